// The controls of shapes: points or surface, the size of points, and the views from around.

const SIDES = {
  home: HOME,
  front: { ...HOME, yaw: 0, pitch: 0 },
  side: { ...HOME, yaw: 90 * RADIAN, pitch: 0 },
  above: { ...HOME, yaw: 0, pitch: STRAIGHT },
};

/** A size at which so many points on a body of usual shape just about touch, in pixels of the page. */
function sizeFor(count) {
  return clamp(Math.round((2 * 640) / Math.sqrt(Math.max(1, count))) / 2, 2, 12);
}

class ShapePanel extends Panel {
  constructor(viewer, element, number) {
    super(viewer, element, number, { kind: "shape", modes: SHAPE_MODES, Painter: ShapePainter, manner: SHAPE });
  }

  /** What the painter draws of a scene. */
  async contentOf(scene) {
    return drawableOf(scene);
  }

  /** Set the controls to a scene. What it does not have is not offered. */
  take(scene) {
    const has = { points: scene.points, surface: scene.surface, both: scene.points && scene.surface };
    for (const mode of SHAPE_MODES) {
      this.choice(mode).disabled = !has[mode];
      this.choice(mode).parentElement.hidden = !has[mode];
    }
    this.showAny(this.mode);
    const slider = this.one("[name=size]");
    if (scene.points && !this.sized) slider.value = sizeFor(atob(scene.points.data).length / 6);
    this.resize(slider);
  }

  /** What the painter has to know besides the pose. */
  get settings() {
    return { mode: this.mode, size: this.size };
  }

  show(mode) {
    super.show(mode);
    this.one(".rv-points").hidden = this.mode === "surface";
  }

  /** Take the size of points from the slider; who has chosen one keeps it for other objects. */
  slide(slider) {
    this.sized = true;
    this.resize(slider);
  }

  resize(slider) {
    this.size = Number(slider.value);
    this.label(slider, `${this.size} px`);
    this.viewer.request();
  }

  perform(action, button) {
    super.perform(action, button);
    if (SIDES[action]) this.viewer.orbit.glide(SIDES[action]);
  }

  /** From where the object is seen, in words: when it turns to the left, we go round it to the right. */
  words({ yaw, pitch }) {
    const round = degrees(yaw), up = degrees(pitch);
    if (Math.abs(up) === 90) return up > 0 ? "from straight above" : "from straight below";
    const parts = [
      round && (Math.abs(round) === 180 ? "behind" : `${Math.abs(round)}° to the ${round > 0 ? "right" : "left"}`),
      up && `${Math.abs(up)}° ${up > 0 ? "above" : "below"}`,
    ].filter(Boolean);
    return parts.length ? `from ${parts.join(" and ")}` : "from the front";
  }
}
