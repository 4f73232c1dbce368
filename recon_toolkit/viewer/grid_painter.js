// The drawing of height fields: a mesh with normals and two pictures, one object at a time.

const MODES = ["photo", "albedo", "shading", "normals", "depth", "wireframe"];
const PICTURES = ["photo", "albedo"];
const MOST_CELLS = 64; // of the wireframe, along either side: more would be a grey fog

class GridPainter {
  constructor(gl) {
    this.gl = gl;
    this.program = new Program(gl, VERTEX_SHADER, FRAGMENT_SHADER);
    this.array = gl.createVertexArray();
    this.buffer = gl.createBuffer();
    gl.bindVertexArray(this.array);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffer);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer()); // belongs to the array
    [[3, 0], [3, 12], [2, 24]].forEach(([size, start], index) => {
      gl.enableVertexAttribArray(index);
      gl.vertexAttribPointer(index, size, gl.FLOAT, false, 32, start);
    });
    this.textures = PICTURES.map(() => gl.createTexture());
  }

  /** Take in a face: `{surface, pictures: {photo, albedo}}` with pictures as decoded images or undefined. */
  show(content) {
    const { gl } = this, { surface, pictures } = content;
    this.content = content;
    gl.bindVertexArray(this.array);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffer);
    gl.bufferData(gl.ARRAY_BUFFER, surface.vertices, gl.STATIC_DRAW);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, surface.triangles, gl.STATIC_DRAW);
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    PICTURES.forEach((name, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, this.textures[unit]);
      const grey = new Uint8Array([128, 128, 128, 255]);
      if (pictures[name]) gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, pictures[name]);
      else gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, grey);
      gl.generateMipmap(gl.TEXTURE_2D);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    });
  }

  /** Draw the face: `light` and `predicted` as of lightOf, `pose` as of Orbit, `density` device pixels in a pixel. */
  draw({ mode, lit, pose, light, predicted, density }) {
    const { gl, program } = this, { surface } = this.content;
    program.use();
    gl.bindVertexArray(this.array);
    gl.uniformMatrix3fv(program.place("rotation"), false, rotationOf(pose));
    gl.uniform3fv(program.place("offset"), pose.offset);
    const fitting = pose.zoom / Math.max(1, surface.tallness);
    gl.uniform1f(program.place("focal"), fitting / Math.tan((surface.fov * RADIAN) / 2));
    gl.uniform1i(program.place("mode"), MODES.indexOf(mode));
    gl.uniform1i(program.place("lit"), lit ? 1 : 0);
    gl.uniform2f(program.place("strength"), light.ambient, light.diffuse);
    gl.uniform3fv(program.place("travel"), travelOf(light));
    gl.uniform2f(program.place("predictedStrength"), predicted.ambient, predicted.diffuse);
    gl.uniform3fv(program.place("predictedTravel"), travelOf(predicted));
    gl.uniform2f(program.place("range"), surface.near, surface.far);
    const coarser = Math.ceil(Math.max(...surface.cells) / MOST_CELLS);
    gl.uniform2fv(program.place("cells"), surface.cells.map((count) => count / coarser));
    gl.uniform1f(program.place("pixels"), density);
    PICTURES.forEach((name, unit) => gl.uniform1i(program.place(name), unit));
    gl.drawElements(gl.TRIANGLES, surface.triangles.length, gl.UNSIGNED_INT, 0);
  }
}
