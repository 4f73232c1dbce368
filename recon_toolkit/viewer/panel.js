// A panel: the controls of one kind of object. What kinds differ in is in the panels made from this one.

const degrees = (angle) => Math.round(angle / RADIAN);

class Panel {
  /**
   * `element` holds the controls, and `number` is the viewer's. `kind` is that of scenes, `modes` what can be seen of
   * them, `Painter` what draws them and `manner` how they turn.
   */
  constructor(viewer, element, number, { kind, modes, Painter, manner }) {
    Object.assign(this, { viewer, element, kind, modes, Painter, manner, mode: modes[0] });
    this.one(".rv-help").id = `rv-help-${kind}-${number}`;
    for (const choice of this.all(".rv-modes input")) {
      choice.name = `rv-mode-${kind}-${number}`;
      choice.addEventListener("change", () => this.show(choice.value));
    }
    for (const slider of this.all("input[type=range]")) slider.addEventListener("input", () => this.slide(slider));
    for (const button of this.all("[data-do]")) {
      button.addEventListener("click", () => this.perform(button.dataset.do, button));
    }
  }

  one(selector) {
    return this.element.querySelector(selector);
  }

  all(selector) {
    return this.element.querySelectorAll(selector);
  }

  get help() {
    return this.one(".rv-help").id;
  }

  choice(mode) {
    return this.one(`.rv-modes [value=${mode}]`);
  }

  /** Show this, or what comes first where there is none of it. */
  showAny(mode) {
    this.show([mode, ...this.modes].find((each) => !this.choice(each).disabled));
  }

  show(mode) {
    if (this.choice(mode).disabled) return;
    this.mode = mode;
    this.choice(mode).checked = true;
    this.viewer.request();
  }

  /** Say of a slider in words where it is. */
  label(slider, words) {
    slider.previousElementSibling.textContent = words;
    slider.setAttribute("aria-valuetext", words);
  }

  /** Whether a movement that goes on by itself is on. */
  press(on) {
    this.one("[data-do=turn]").setAttribute("aria-pressed", String(on));
  }

  perform(action, button) {
    const { orbit } = this.viewer;
    if (action === "closer") orbit.zoom(1.25);
    if (action === "further") orbit.zoom(0.8);
    if (action === "save") this.viewer.save();
    if (action === "turn") {
      const start = button.getAttribute("aria-pressed") !== "true";
      orbit.hold();
      if (start) orbit.wander();
      this.press(start);
    }
  }
}
