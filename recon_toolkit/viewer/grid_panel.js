// The controls of height fields: pictures and maps upon them, their light, and the view of the photograph.

const NEUTRAL_LIGHT = [0.4, 0.7, 0, 0, 1]; // for models that predict none

async function decoded(address) {
  if (!address) return undefined;
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}

class GridPanel extends Panel {
  constructor(viewer, element, number) {
    super(viewer, element, number, { kind: "grid", modes: MODES, Painter: GridPainter, manner: HEIGHT_FIELD });
    this.lit = true;
    this.light = this.predicted = lightOf(NEUTRAL_LIGHT);
    this.one("[name=lit]").addEventListener("change", (event) => {
      this.lit = event.target.checked;
      viewer.request();
    });
    const ball = this.one(".rv-ball");
    ball.addEventListener("pointerdown", (event) => ball.setPointerCapture(event.pointerId));
    for (const kind of ["pointerdown", "pointermove"]) {
      ball.addEventListener(kind, (event) => event.buttons & 1 && this.point(event, ball.getBoundingClientRect()));
    }
  }

  /** What the painter draws of a scene. */
  async contentOf(scene) {
    const [photo, albedo] = await Promise.all([decoded(scene.photo), decoded(scene.albedo)]);
    return { surface: surfaceOf(scene), pictures: { photo, albedo } };
  }

  /** Set the controls to a scene. */
  take(scene) {
    this.scene = scene;
    for (const mode of PICTURES) this.choice(mode).disabled = !scene[mode];
    this.one("[data-do=photographed]").hidden = !scene.view;
    Object.assign(this.viewer.orbit.pose, { roll: 0, offset: FRONT.offset });
    this.showAny(this.mode);
    this.predicted = lightOf(scene.light ?? NEUTRAL_LIGHT);
    this.relight(this.predicted);
  }

  /** What the painter has to know besides the pose. */
  get settings() {
    const { mode, lit, light, predicted } = this;
    return { mode, lit, light, predicted };
  }

  show(mode) {
    super.show(mode);
    this.one(".rv-check").hidden = this.mode !== "albedo";
  }

  /** Set the light, and the sliders and the ball to it. */
  relight(light) {
    this.light = { ...light };
    const [x, y] = travelOf(light);
    this.one(".rv-ball").style.setProperty("--x", -x);
    this.one(".rv-ball").style.setProperty("--y", -y);
    for (const slider of this.all("input[type=range]")) {
      const angle = slider.name === "right" || slider.name === "up";
      const value = angle ? degrees(light[slider.name]) : light[slider.name];
      slider.max = Math.max(slider.max, value);
      slider.value = value;
      const sides = { right: ["left", "right"], up: ["below", "above"] }[slider.name];
      const words = angle ? `${Math.abs(value)}°${value ? ` ${sides[value > 0 ? 1 : 0]}` : ""}` : value.toFixed(2);
      this.label(slider, words);
    }
    this.viewer.request();
  }

  slide(slider) {
    const angle = slider.name === "right" || slider.name === "up";
    this.relight({ ...this.light, [slider.name]: Number(slider.value) * (angle ? RADIAN : 1) });
  }

  /** Let the light come from where the pointer is on the ball. */
  point(event, box) {
    let x = ((event.clientX - box.left) / box.width) * 2 - 1, y = ((event.clientY - box.top) / box.height) * 2 - 1;
    const scale = Math.min(1, 1 / Math.hypot(x, y));
    [x, y] = [x * scale, y * scale];
    this.relight({ ...this.light, ...anglesOf([-x, -y, Math.sqrt(Math.max(0, 1 - x * x - y * y))]) });
  }

  perform(action, button) {
    super.perform(action, button);
    if (action === "front") this.viewer.orbit.glide(FRONT);
    if (action === "photographed") this.viewer.orbit.glide(poseOf(this.scene.view));
    if (action === "relight") this.relight(this.predicted);
  }

  /** From where the object is seen, in words. */
  words({ yaw, pitch }) {
    const parts = [
      degrees(yaw) && `${Math.abs(degrees(yaw))}° to the ${yaw > 0 ? "left" : "right"}`,
      degrees(pitch) && `${Math.abs(degrees(pitch))}° ${pitch > 0 ? "down" : "up"}`,
    ].filter(Boolean);
    return parts.length ? `turned ${parts.join(" and ")}` : "from the front";
  }
}
