// The drawing: one WebGL context, and a painter for each kind of object.

/** A vertex and a fragment shader. Throws where they do not work. */
class Program {
  constructor(gl, ...sources) {
    Object.assign(this, { gl, program: gl.createProgram(), places: {} });
    [gl.VERTEX_SHADER, gl.FRAGMENT_SHADER].forEach((kind, index) => {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, sources[index]);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
    });
    gl.linkProgram(this.program);
    if (!gl.getProgramParameter(this.program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new Error(`the shaders do not work here: ${gl.getProgramInfoLog(this.program)}`);
    }
  }

  use() {
    this.gl.useProgram(this.program);
  }

  /** Where a uniform goes. */
  place(name) {
    return (this.places[name] ??= this.gl.getUniformLocation(this.program, name));
  }
}

class Renderer {
  /** `painters` are classes, by kind. Throws where the browser has no WebGL 2. */
  constructor(canvas, painters) {
    Object.assign(this, { canvas, classes: painters });
    this.gl = canvas.getContext("webgl2", { antialias: true, alpha: true });
    if (!this.gl) throw new Error("no WebGL 2");
    this.prepare();
  }

  /** Make everything that lives in the context; again after the context was lost. */
  prepare() {
    const { gl, classes, shown } = this;
    this.painters = Object.fromEntries(Object.entries(classes).map(([kind, Painter]) => [kind, new Painter(gl)]));
    gl.enable(gl.DEPTH_TEST);
    if (shown) this.show(shown.kind, shown.content);
  }

  /** Take in an object, as its painter wants it. */
  show(kind, content) {
    this.shown = { kind, content };
    this.painters[kind].show(content);
  }

  /** Draw the object: the settings are its painter's. */
  draw(settings) {
    const { gl, canvas, shown } = this;
    if (!shown) return;
    const density = Math.min(window.devicePixelRatio || 1, 3);
    const side = Math.max(1, Math.round(canvas.clientWidth * density));
    if (canvas.width !== side) canvas.width = canvas.height = side;
    gl.viewport(0, 0, side, side);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    this.painters[shown.kind].draw({ ...settings, density });
  }
}
