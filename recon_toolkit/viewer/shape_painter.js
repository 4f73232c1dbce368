// The drawing of shapes: points and triangles, which share a program.

const SHAPE_MODES = ["points", "surface", "both"];
const MEASURE = 600; // pixels of the page: the side of the canvas for which sizes of points are given
const LIFT = 0.012; // of the radius

class ShapePainter {
  constructor(gl) {
    this.gl = gl;
    this.program = new Program(gl, SHAPE_VERTEX_SHADER, SHAPE_FRAGMENT_SHADER);
    [this.dots, this.corners] = [0, 1].map(() => {
      const array = gl.createVertexArray(), buffer = gl.createBuffer();
      gl.bindVertexArray(array);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      [0, 12].forEach((start, index) => {
        gl.enableVertexAttribArray(index);
        gl.vertexAttribPointer(index, 3, gl.FLOAT, false, 24, start);
      });
      return { array, buffer, count: 0 };
    });
  }

  /** Take in a shape, as of drawableOf. */
  show(content) {
    const { gl } = this;
    this.content = content;
    for (const name of ["dots", "corners"]) {
      gl.bindBuffer(gl.ARRAY_BUFFER, this[name].buffer);
      gl.bufferData(gl.ARRAY_BUFFER, content[name], gl.STATIC_DRAW);
      this[name].count = content[name].length / 6;
    }
  }

  /** Draw the shape: `pose` as of Orbit, `size` of points at the first zoom, `density` device pixels in a pixel. */
  draw({ mode, pose, size, density }) {
    const { gl, program, content } = this;
    program.use();
    const focal = pose.zoom / Math.tan((SHAPE_FOV * RADIAN) / 2);
    gl.uniformMatrix3fv(program.place("rotation"), false, rotationOf(pose));
    gl.uniform1f(program.place("focal"), focal);
    gl.uniform1f(program.place("size"), SHAPE_SIZE);
    gl.uniform2f(program.place("heights"), content.bottom, content.top);
    // As everything else, points grow with the canvas and the zoom; upon a surface they must not hide it.
    const pixels = (size * gl.canvas.width * pose.zoom) / HOME.zoom / MEASURE / (mode === "both" ? 2 : 1);
    gl.uniform1f(program.place("diameter"), Math.max(density, pixels));
    const draw = ({ array, count }, kind, paint, lift) => {
      gl.uniform1i(program.place("paint"), paint);
      gl.uniform1f(program.place("lift"), lift);
      gl.bindVertexArray(array);
      gl.drawArrays(kind, 0, count);
    };
    if (mode !== "points") draw(this.corners, gl.TRIANGLES, 0, 0);
    if (mode === "points") draw(this.dots, gl.POINTS, content.oriented ? 1 : 2, 0);
    if (mode === "both") draw(this.dots, gl.POINTS, 3, LIFT);
  }
}
