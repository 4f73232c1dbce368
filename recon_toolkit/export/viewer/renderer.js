// The drawing: one WebGL context, which holds the buffers and pictures of one object at a time.

const MODES = ["photo", "albedo", "shading", "normals", "depth", "wireframe"];
const PICTURES = ["photo", "albedo"];
const MOST_CELLS = 64; // of the wireframe, along either side: more would be a grey fog

class Renderer {
  /** Throws where the browser has no WebGL 2. */
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { antialias: true, alpha: true });
    if (!this.gl) throw new Error("no WebGL 2");
    this.prepare();
  }

  /** Make everything that lives in the context; again after the context was lost. */
  prepare() {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX_SHADER], [gl.FRAGMENT_SHADER, FRAGMENT_SHADER]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new Error(`the shaders do not work here: ${gl.getProgramInfoLog(program)}`);
    }
    this.program = program;
    this.places = {};
    gl.bindVertexArray(gl.createVertexArray());
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    [[3, 0], [3, 12], [2, 24]].forEach(([size, start], index) => {
      gl.enableVertexAttribArray(index);
      gl.vertexAttribPointer(index, size, gl.FLOAT, false, 32, start);
    });
    PICTURES.forEach((_, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    });
    gl.enable(gl.DEPTH_TEST);
    gl.useProgram(program);
    if (this.content) this.show(this.content);
  }

  /** Take in a face: `{surface, pictures: {photo, albedo}}` with pictures as decoded images or undefined. */
  show(content) {
    const { gl } = this, { surface, pictures } = content;
    this.content = content;
    gl.bufferData(gl.ARRAY_BUFFER, surface.vertices, gl.STATIC_DRAW);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, surface.triangles, gl.STATIC_DRAW);
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    PICTURES.forEach((name, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      const grey = new Uint8Array([128, 128, 128, 255]);
      if (pictures[name]) gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, pictures[name]);
      else gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, grey);
      gl.generateMipmap(gl.TEXTURE_2D);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    });
  }

  place(name) {
    return (this.places[name] ??= this.gl.getUniformLocation(this.program, name));
  }

  /** Draw the face: `light` and `predicted` as of lightOf, `pose` as of Orbit. */
  draw({ mode, lit, pose, light, predicted }) {
    const { gl, canvas } = this, { surface } = this.content;
    const density = Math.min(window.devicePixelRatio || 1, 3);
    const side = Math.max(1, Math.round(canvas.clientWidth * density));
    if (canvas.width !== side) canvas.width = canvas.height = side;
    gl.viewport(0, 0, side, side);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix3fv(this.place("rotation"), false, rotationOf(pose));
    gl.uniform3fv(this.place("offset"), pose.offset);
    const fitting = pose.zoom / Math.max(1, surface.tallness);
    gl.uniform1f(this.place("focal"), fitting / Math.tan((surface.fov * RADIAN) / 2));
    gl.uniform1i(this.place("mode"), MODES.indexOf(mode));
    gl.uniform1i(this.place("lit"), lit ? 1 : 0);
    gl.uniform2f(this.place("strength"), light.ambient, light.diffuse);
    gl.uniform3fv(this.place("travel"), travelOf(light));
    gl.uniform2f(this.place("predictedStrength"), predicted.ambient, predicted.diffuse);
    gl.uniform3fv(this.place("predictedTravel"), travelOf(predicted));
    gl.uniform2f(this.place("range"), surface.near, surface.far);
    const coarser = Math.ceil(Math.max(...surface.cells) / MOST_CELLS);
    gl.uniform2fv(this.place("cells"), surface.cells.map((count) => count / coarser));
    gl.uniform1f(this.place("pixels"), density);
    PICTURES.forEach((name, unit) => gl.uniform1i(this.place(name), unit));
    gl.drawElements(gl.TRIANGLES, surface.triangles.length, gl.UNSIGNED_INT, 0);
  }
}
