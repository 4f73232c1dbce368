// The controls of the view: turning and zooming by mouse, touch and keyboard, and the movements of the buttons.

const FRONT = { yaw: 0, pitch: 0, roll: 0, offset: [0, 0, 0], zoom: 0.9 };
const STEEPEST = 85 * RADIAN;
const STRAIGHT = 90 * RADIAN; // from above or below
const HOME = { yaw: 30 * RADIAN, pitch: 20 * RADIAN, roll: 0, offset: [0, 0, 0], zoom: 0.9 }; // of shapes
const HEIGHT_FIELD = { home: FRONT, steepest: STEEPEST, spins: false }; // there is nothing behind its front
const SHAPE = { home: HOME, steepest: STRAIGHT, spins: true };
const KEY_TURN = 5 * RADIAN;
const KEYS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const SWAY = 35 * RADIAN;
const SWAY_PERIOD = 6000; // milliseconds
const SPIN_PERIOD = 12000;
const GLIDE = 350;

const stillness = window.matchMedia("(prefers-reduced-motion: reduce)");

class Orbit {
  /**
   * `changed()` is called whenever the pose has to be drawn anew, `touched()` when a person takes hold of the view.
   * `eager` is whether the wheel zooms before the canvas has the focus. `manner` is HEIGHT_FIELD or SHAPE: from where
   * one may look, and where one starts.
   */
  constructor(canvas, { changed, touched, eager }) {
    Object.assign(this, { canvas, changed, touched, eager, pointers: new Map(), movement: null });
    this.behave(HEIGHT_FIELD);
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(kind, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("dblclick", () => this.glide(this.manner.home));
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  /** Start with an object of another manner. */
  behave(manner) {
    if (this.manner === manner) return;
    Object.assign(this, { manner, movement: null, pose: { ...manner.home } });
    this.touched();
  }

  /** Turn by angles: the nearest side of the object moves to the left and down. */
  turn(left, down) {
    this.hold();
    const { pose } = this;
    pose.yaw = Math.atan2(Math.sin(pose.yaw + left), Math.cos(pose.yaw + left));
    pose.pitch = clamp(pose.pitch + down, -this.manner.steepest, this.manner.steepest);
    this.changed();
  }

  zoom(factor) {
    this.hold();
    this.pose.zoom = clamp(this.pose.zoom * factor, 0.4, 8);
    this.changed();
  }

  /** End any movement, because a person takes over. */
  hold() {
    this.movement = null;
    this.touched();
  }

  /** Move to a pose within a moment, or at once for people who want no motion. */
  glide(pose) {
    this.hold();
    const turns = Math.round((pose.yaw - this.pose.yaw) / (2 * Math.PI)); // the shorter way round
    const from = { ...this.pose, yaw: this.pose.yaw + 2 * Math.PI * turns }, start = performance.now();
    const mix = (a, b, t) => a + (b - a) * t;
    this.movement = (now) => {
      const t = stillness.matches ? 1 : clamp((now - start) / GLIDE, 0, 1);
      const eased = t * t * (3 - 2 * t);
      this.pose = { ...pose, offset: pose.offset.map((value, i) => mix(from.offset[i], value, eased)) };
      for (const name of ["yaw", "pitch", "roll", "zoom"]) this.pose[name] = mix(from[name], pose[name], eased);
      return t < 1;
    };
    this.changed();
  }

  /** Turn until somebody takes hold: round and round, or to and fro what has only a front. */
  wander() {
    if (!this.manner.spins) return this.sway();
    const from = { ...this.pose }, start = performance.now();
    this.movement = (now) => {
      const yaw = from.yaw + (2 * Math.PI * Math.max(0, now - start)) / SPIN_PERIOD;
      this.pose = { ...from, yaw: Math.atan2(Math.sin(yaw), Math.cos(yaw)) };
      return true;
    };
    return this.changed();
  }

  /** Turn to and fro until somebody takes hold, or for so many periods. */
  sway(periods = Infinity) {
    const from = { ...this.pose }, start = performance.now();
    this.movement = (now) => {
      const phase = Math.max(0, now - start) / SWAY_PERIOD;
      this.pose = { ...from, yaw: from.yaw + SWAY * Math.sin(2 * Math.PI * Math.min(phase, periods)) };
      return phase < periods;
    };
    this.changed();
  }

  /** Go on with a movement at a time in milliseconds; whether there is more to come. */
  advance(now) {
    if (this.movement && !this.movement(now)) this.movement = null;
    return this.movement !== null;
  }

  press(event) {
    if (event.pointerType === "mouse" && event.button !== 0) return;
    this.hold();
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.focus({ preventScroll: true });
  }

  drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const after = [event.clientX, event.clientY];
    if (this.pointers.size === 1) {
      const gain = Math.PI / this.canvas.clientWidth; // across the canvas is half a turn
      this.turn(-(after[0] - before[0]) * gain, (after[1] - before[1]) * gain);
    } else if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const distance = (place) => Math.max(1, Math.hypot(place[0] - other[0], place[1] - other[1]));
      this.zoom(distance(after) / distance(before));
    }
    this.pointers.set(event.pointerId, after);
  }

  wheel(event) {
    if (!this.eager && document.activeElement !== this.canvas) return;
    event.preventDefault();
    const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
    this.zoom(Math.exp(-clamp(pixels, -200, 200) / 500));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (KEYS[event.key]) this.turn(...KEYS[event.key].map((sign) => sign * KEY_TURN));
    else if (event.key === "+" || event.key === "=") this.zoom(1.15);
    else if (event.key === "-" || event.key === "_") this.zoom(1 / 1.15);
    else if (event.key === "0") this.glide(this.manner.home);
    else return;
    event.preventDefault();
  }
}
