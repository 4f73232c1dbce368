// The page: chooses an object, listens to the controls and says what is to be seen.

const SETTLED = 400; // milliseconds without change after which screen readers are told
const PANELS = { grid: GridPanel, shape: ShapePanel };

class Viewer {
  constructor(root, number) {
    this.root = root;
    this.results = [...root.querySelectorAll(".rv-result")];
    this.canvas = this.one(".rv-canvas");
    this.one(".rv-status").id = `rv-status-${number}`;
    this.panels = [...root.querySelectorAll(".rv-controls")].map(
      (element) => new PANELS[element.dataset.kind](this, element, number),
    );
    this.one(".rv-stage").hidden = false;
    this.listObjects(number);
    try {
      this.renderer = new Renderer(
        this.canvas, Object.fromEntries(this.panels.map(({ kind, Painter }) => [kind, Painter])),
      );
    } catch (error) {
      this.canvas.remove();
      this.say(`This browser cannot draw in 3D here (${error.message}). The still pictures are shown instead.`);
    }
    if (this.renderer) this.connect();
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

  connect() {
    const touched = () => this.panels.forEach((panel) => panel.press(false));
    const eager = "greet" in this.root.dataset;
    this.orbit = new Orbit(this.canvas, { changed: () => this.request(), touched, eager });
    this.canvas.addEventListener("keydown", (event) => {
      const mode = this.panel?.modes[Number(event.key) - 1];
      if (mode && !event.ctrlKey && !event.metaKey && !event.altKey) this.panel.show(mode);
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
    const panel = this.panels.find(({ kind }) => kind === (scene.kind ?? "grid"));
    try {
      const content = await panel.contentOf(scene);
      if (this.chosen !== chosen) return undefined; // somebody was faster
      this.renderer.show(panel.kind, content);
    } catch (error) {
      return this.say(`This object cannot be shown in 3D: ${error.message}`);
    }
    Object.assign(this, { scene, panel });
    this.canvas.setAttribute("aria-label", `3D view of ${scene.name}`);
    this.canvas.setAttribute("aria-describedby", `${this.one(".rv-status").id} ${panel.help}`);
    for (const each of this.panels) each.element.hidden = each !== panel;
    this.orbit.behave(panel.manner);
    panel.take(scene);
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
    if (this.panel) this.renderer.draw({ ...this.panel.settings, pose: this.orbit.pose });
  }

  /** Tell in words what is to be seen, once it has come to rest. */
  describe() {
    clearTimeout(this.telling);
    this.telling = setTimeout(() => {
      const { panel, orbit: { pose } } = this;
      if (!panel) return;
      const mode = panel.mode[0].toUpperCase() + panel.mode.slice(1);
      const zoom = Math.round((pose.zoom / panel.manner.home.zoom) * 100);
      this.one(".rv-status").textContent = `${mode}, ${panel.words(pose)}, zoom ${zoom}%`;
    }, SETTLED);
  }

  save() {
    this.draw(); // the browser may have dropped the last picture
    this.canvas.toBlob((blob) => {
      const name = this.scene.name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "object";
      const link = Object.assign(document.createElement("a"), { download: `${name}-${this.panel.mode}.png` });
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
