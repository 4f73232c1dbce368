// The page: chooses an object, listens to the controls and says what is to be seen.

const NEUTRAL_LIGHT = [0.4, 0.7, 0, 0, 1]; // for models that predict none
const SETTLED = 400; // milliseconds without change after which screen readers are told
const degrees = (angle) => Math.round(angle / RADIAN);

async function decoded(address) {
  if (!address) return undefined;
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}

class Viewer {
  constructor(root, number) {
    this.root = root;
    this.results = [...root.querySelectorAll(".rv-result")];
    this.canvas = this.one(".rv-canvas");
    this.mode = "photo";
    this.lit = true;
    this.light = this.predicted = lightOf(NEUTRAL_LIGHT);
    this.one(".rv-help").id = `rv-help-${number}`;
    this.one(".rv-status").id = `rv-status-${number}`;
    this.canvas.setAttribute("aria-describedby", `rv-status-${number} rv-help-${number}`);
    this.one(".rv-stage").hidden = false;
    this.listObjects(number);
    try {
      this.renderer = new Renderer(this.canvas);
    } catch (error) {
      this.canvas.remove();
      this.say(`This browser cannot draw in 3D here (${error.message}). The still pictures are shown instead.`);
    }
    if (this.renderer) this.connect(number);
    this.choose(0, "greet" in root.dataset);
  }

  one(selector) {
    return this.root.querySelector(selector);
  }

  say(message) {
    this.one(".rv-stage .rv-message").textContent = message;
    this.one(".rv-stage .rv-message").hidden = !message;
  }

  /** One radio button an object, with its input picture, where there are several. */
  listObjects(number) {
    this.one(".rv-objects").hidden = this.results.length < 2;
    this.results.forEach((result, index) => {
      const label = document.createElement("label"), picture = document.createElement("img");
      const choice = Object.assign(document.createElement("input"), { type: "radio", checked: index === 0 });
      choice.name = `rv-face-${number}`;
      choice.addEventListener("change", () => this.choose(index));
      picture.src = result.querySelector("img").src;
      picture.alt = "";
      const name = document.createElement("span");
      name.textContent = result.dataset.name;
      label.append(choice, picture, name);
      this.one(".rv-strip").append(label);
    });
  }

  connect(number) {
    const touched = () => this.one("[data-do=turn]").setAttribute("aria-pressed", "false");
    const eager = "greet" in this.root.dataset;
    this.orbit = new Orbit(this.canvas, { changed: () => this.request(), touched, eager });
    this.one(".rv-controls").hidden = false;
    for (const choice of this.root.querySelectorAll(".rv-modes input")) {
      choice.name = `rv-mode-${number}`;
      choice.addEventListener("change", () => this.show(choice.value));
    }
    for (const slider of this.root.querySelectorAll("input[type=range]")) {
      slider.addEventListener("input", () => this.slide(slider));
    }
    for (const button of this.root.querySelectorAll("[data-do]")) {
      button.addEventListener("click", () => this.perform(button.dataset.do, button));
    }
    this.one("[name=lit]").addEventListener("change", (event) => {
      this.lit = event.target.checked;
      this.request();
    });
    const ball = this.one(".rv-ball");
    ball.addEventListener("pointerdown", (event) => ball.setPointerCapture(event.pointerId));
    for (const kind of ["pointerdown", "pointermove"]) {
      ball.addEventListener(kind, (event) => event.buttons & 1 && this.point(event, ball.getBoundingClientRect()));
    }
    this.canvas.addEventListener("keydown", (event) => {
      const mode = MODES[Number(event.key) - 1];
      if (mode && !event.ctrlKey && !event.metaKey && !event.altKey) this.show(mode);
    });
    this.canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault(); // or the browser would not give it back
      this.say("The 3D graphics were interrupted. They come back by themselves, or when you reload the page.");
    });
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.renderer.prepare();
      this.say("");
      this.request();
    });
    new ResizeObserver(() => this.request()).observe(this.canvas);
  }

  /** Show the object of this number; `greet` lets it turn once, so that people see that it can. */
  async choose(index, greet = false) {
    const chosen = this.results[index];
    this.results.forEach((result) => (result.hidden = result !== chosen));
    this.chosen = chosen;
    const scene = JSON.parse(chosen.querySelector("script").textContent);
    if (!this.renderer) return this.showStills(chosen, scene);
    try {
      const [photo, albedo] = await Promise.all([decoded(scene.photo), decoded(scene.albedo)]);
      if (this.chosen !== chosen) return undefined; // somebody was faster
      this.renderer.show({ surface: surfaceOf(scene), pictures: { photo, albedo } });
    } catch (error) {
      return this.say(`This object cannot be shown in 3D: ${error.message}`);
    }
    this.scene = scene;
    this.canvas.setAttribute("aria-label", `3D view of ${scene.name}`);
    for (const choice of this.root.querySelectorAll(".rv-modes input")) {
      choice.disabled = PICTURES.includes(choice.value) && !scene[choice.value];
    }
    this.one("[data-do=photographed]").hidden = !scene.view;
    Object.assign(this.orbit.pose, { roll: 0, offset: FRONT.offset });
    this.show([this.mode, ...MODES].find((mode) => !this.modeChoice(mode).disabled));
    this.predicted = lightOf(scene.light ?? NEUTRAL_LIGHT);
    this.relight(this.predicted);
    if (greet && !stillness.matches) this.orbit.sway(1);
    this.root.dataset.state = "ready";
    return undefined;
  }

  showStills(result, scene) {
    const row = result.querySelector(".rv-pictures");
    for (const name of PICTURES.filter((each) => scene[each] && !row.querySelector(`[data-still=${each}]`))) {
      const figure = document.createElement("figure"), caption = document.createElement("figcaption");
      figure.append(Object.assign(document.createElement("img"), { src: scene[name], alt: "" }), caption);
      figure.dataset.still = name;
      caption.textContent = `${name}, from the front`;
      row.append(figure);
    }
    this.root.dataset.state = "ready";
  }

  modeChoice(mode) {
    return this.one(`.rv-modes [value=${mode}]`);
  }

  show(mode) {
    if (this.modeChoice(mode).disabled) return;
    this.mode = mode;
    this.modeChoice(mode).checked = true;
    this.one(".rv-check").hidden = mode !== "albedo";
    this.request();
  }

  /** Set the light, and the sliders and the ball to it. */
  relight(light) {
    this.light = { ...light };
    const [x, y] = travelOf(light);
    this.one(".rv-ball").style.setProperty("--x", -x);
    this.one(".rv-ball").style.setProperty("--y", -y);
    for (const slider of this.root.querySelectorAll("input[type=range]")) {
      const angle = slider.name === "right" || slider.name === "up";
      const value = angle ? degrees(light[slider.name]) : light[slider.name];
      slider.max = Math.max(slider.max, value);
      slider.value = value;
      const sides = { right: ["left", "right"], up: ["below", "above"] }[slider.name];
      const words = angle ? `${Math.abs(value)}°${value ? ` ${sides[value > 0 ? 1 : 0]}` : ""}` : value.toFixed(2);
      slider.previousElementSibling.textContent = words;
      slider.setAttribute("aria-valuetext", words);
    }
    this.request();
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
    if (action === "front") this.orbit.glide(FRONT);
    if (action === "photographed") this.orbit.glide(poseOf(this.scene.view));
    if (action === "closer") this.orbit.zoom(1.25);
    if (action === "further") this.orbit.zoom(0.8);
    if (action === "relight") this.relight(this.predicted);
    if (action === "save") this.save();
    if (action === "turn") {
      const start = button.getAttribute("aria-pressed") !== "true";
      this.orbit.hold();
      if (start) this.orbit.sway();
      button.setAttribute("aria-pressed", String(start));
    }
  }

  /** Draw at the next chance, once however often it is asked for. */
  request() {
    this.pending ??= requestAnimationFrame((now) => {
      this.pending = undefined;
      if (this.orbit.advance(now)) this.request();
      this.draw();
      if (!this.orbit.movement) this.describe();
    });
  }

  draw() {
    const { mode, lit, light, predicted } = this;
    if (this.renderer.content) this.renderer.draw({ mode, lit, light, predicted, pose: this.orbit.pose });
  }

  /** Tell in words what is to be seen, once it has come to rest. */
  describe() {
    clearTimeout(this.telling);
    this.telling = setTimeout(() => {
      const { yaw, pitch, zoom } = this.orbit.pose;
      const parts = [
        degrees(yaw) && `${Math.abs(degrees(yaw))}° to the ${yaw > 0 ? "left" : "right"}`,
        degrees(pitch) && `${Math.abs(degrees(pitch))}° ${pitch > 0 ? "down" : "up"}`,
      ].filter(Boolean);
      const turned = parts.length ? `turned ${parts.join(" and ")}` : "from the front";
      const mode = this.mode[0].toUpperCase() + this.mode.slice(1);
      this.one(".rv-status").textContent = `${mode}, ${turned}, zoom ${Math.round((zoom / FRONT.zoom) * 100)}%`;
    }, SETTLED);
  }

  save() {
    this.draw(); // the browser may have dropped the last picture
    this.canvas.toBlob((blob) => {
      const name = this.scene.name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "object";
      const link = Object.assign(document.createElement("a"), { download: `${name}-${this.mode}.png` });
      link.href = URL.createObjectURL(blob);
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    });
  }
}

for (const root of document.querySelectorAll(".rv:not([data-state])")) {
  root.dataset.state = "loading";
  new Viewer(root, (window.recViewers = (window.recViewers ?? 0) + 1));
}
