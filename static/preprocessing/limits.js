/* The session's limits: lines on the charts that people who may move them drag, and numbers beside the titles. */
(() => {
  "use strict";
  const live = window.EMhubLive;
  const { format, make, write, known } = live;
  // Which limits there are: the least and the greatest good value of a quantity.
  const NAMES = {
    ctf_resolution: [null, "ctf_resolution_max"],
    motion_total: [null, "motion_total_max"],
    astigmatism: [null, "astigmatism_max"],
    ice_thickness: [null, "ice_thickness_max"],
    particles: ["particles_min", "particles_max"],
  };
  const SIDES = [
    { sign: "≥", word: "At least", shade: "below" },
    { sign: "≤", word: "At most", shade: "above" },
  ];

  /** The limits as they are, and how they are changed; `say` and `saved` are whoever's wants to hear of it. */
  class Limits {
    constructor({ address, mayChange, changed }) {
      Object.assign(this, { address, mayChange, changed });
      this.values = {};
      this.saving = false;
      this.say = () => {};
      this.saved = () => {};
    }

    /** {quantity: [least, greatest]} as the server told them. */
    tell(values) {
      if (JSON.stringify(values) === JSON.stringify(this.values) || this.saving) return;
      this.values = values;
      this.changed();
    }

    get(key, side) {
      return (this.values[key] || [null, null])[side];
    }

    async set(key, side, value) {
      const before = this.get(key, side);
      if (value === before) return;
      this.#put(key, side, value);
      this.saving = true;
      try {
        const { "X-CSRFToken": token } = JSON.parse(document.body.getAttribute("hx-headers") || "{}");
        const response = await fetch(this.address, {
          method: "POST",
          headers: { "Content-Type": "application/json", "X-CSRFToken": token || "" },
          body: JSON.stringify({ [NAMES[key][side]]: value }),
          credentials: "same-origin",
          redirect: "manual",
        });
        if (!response.ok) {
          let why = "";
          if (response.headers.get("Content-Type") === "application/json") {
            why = Object.values(await response.json()).flat().join(" ");
          }
          throw new Error(why || "It could not be saved; log in again and try once more.");
        }
        this.say("");
      } catch (error) {
        this.#put(key, side, before);
        this.say(`The limit was not changed. ${error.message}`);
      } finally {
        this.saving = false;
        this.saved();
      }
    }

    #put(key, side, value) {
      const pair = [...(this.values[key] || [null, null])];
      pair[side] = value;
      this.values = { ...this.values, [key]: pair };
      this.changed();
    }
  }

  /** A limit as a number people move it by: fine enough, and without a float's tail. */
  const step = (digits) => (digits > 1 ? 0.05 : digits === 1 ? 0.1 : 1);
  const tidy = (value, digits) => Number((Math.round(value / step(digits)) * step(digits)).toFixed(digits > 1 ? 2 : digits));

  /** The limits of one quantity on its chart. */
  class LimitLines {
    constructor(chart, charts) {
      this.chart = chart;
      this.limits = charts.limits;
      this.key = chart.facts.key;
      this.lines = [null, null];
      this.fields = [null, null];
      this.held = null;
      if (NAMES[this.key]) this.#fields();
    }

    /** Numbers beside the title; a field where it may be changed. */
    #fields() {
      const place = this.chart.card.querySelector("[data-limits]");
      NAMES[this.key].forEach((name, side) => {
        if (!name) return;
        const { unit, digits, label } = this.chart.facts;
        const { sign, word } = SIDES[side];
        const title = `${word}: beyond it a micrograph is not usable`;
        if (!this.limits.mayChange) {
          this.fields[side] = make("span", { className: "live-limit-said", title });
          place.append(this.fields[side]);
          return;
        }
        const field = make("input", {
          type: "number",
          step: step(digits),
          min: 0,
          className: "form-control form-control-sm",
          "aria-label": `${label}: ${word.toLowerCase()}${unit ? ` (${unit})` : ""}`,
          placeholder: "none",
        });
        field.addEventListener("change", () => {
          if (!field.checkValidity()) return field.reportValidity();
          this.limits.set(this.key, side, field.value === "" ? null : Number(field.value));
        });
        this.fields[side] = field;
        place.append(make("label", { className: "live-limit-field", title }, [sign, field]));
      });
      this.refresh();
    }

    attach(plot) {
      this.plot = plot;
      this.lines = [null, null];
      plot.hooks.draw.push(() => this.#place());
      this.refresh();
    }

    refresh() {
      if (!NAMES[this.key]) return;
      this.fields.forEach((field, side) => {
        if (!field) return;
        const value = this.limits.get(this.key, side);
        const { unit, digits } = this.chart.facts;
        if (field.tagName !== "INPUT") {
          write(field, known(value) ? `${SIDES[side].sign} ${format.fixed(value, digits)} ${unit}` : "");
        } else if (document.activeElement !== field) field.value = known(value) ? String(value) : "";
      });
      if (this.plot) this.plot.redraw(false);
    }

    /** What lies beyond a limit stands on a tinted ground. */
    shade(plot) {
      if (!NAMES[this.key]) return;
      const { ctx, bbox } = plot;
      const { min, max } = plot.scales.y;
      ctx.fillStyle = live.chart.css("--live-beyond");
      SIDES.forEach(({ shade }, side) => {
        const value = this.#value(side);
        if (!known(value)) return;
        const at = plot.valToPos(Math.min(Math.max(value, min), max), "y", true);
        if (shade === "above") ctx.fillRect(bbox.left, bbox.top, bbox.width, at - bbox.top);
        else ctx.fillRect(bbox.left, at, bbox.width, bbox.top + bbox.height - at);
      });
    }

    #value(side) {
      return this.held && this.held.side === side ? this.held.value : this.limits.get(this.key, side);
    }

    #place() {
      SIDES.forEach(({ sign, word }, side) => {
        const value = this.#value(side);
        if (!known(value)) {
          if (this.lines[side]) this.lines[side].remove();
          this.lines[side] = null;
          return;
        }
        const { plot } = this;
        const { unit, digits, label } = this.chart.facts;
        const line = (this.lines[side] = this.lines[side] || this.#make(side));
        const { min, max } = plot.scales.y;
        const beyond = value > max ? "above" : value < min ? "below" : "";
        const at = plot.valToPos(Math.min(Math.max(value, min), max), "y");
        line.style.top = `${at}px`;
        line.dataset.beyond = beyond;
        const text = `${sign} ${format.fixed(value, digits)}${unit ? ` ${unit}` : ""}`;
        write(line.firstElementChild, beyond ? `${text} ${beyond === "above" ? "↑" : "↓"}` : text);
        if (this.limits.mayChange) {
          line.setAttribute("aria-valuenow", value);
          line.setAttribute("aria-valuetext", text);
          line.setAttribute("aria-label", `${label}: ${word.toLowerCase()}`);
        }
      });
    }

    #make(side) {
      const line = make("div", { className: "live-limit", "data-limit": NAMES[this.key][side] }, [make("span")]);
      this.plot.over.append(line);
      if (!this.limits.mayChange) return line;
      line.classList.add("live-limit-movable");
      line.tabIndex = 0;
      line.setAttribute("role", "slider");
      line.setAttribute("aria-orientation", "vertical");
      line.setAttribute("aria-valuemin", 0);
      line.title = "Drag it; or arrow keys, Enter to keep, Escape to leave, Delete for no limit";
      for (const kind of ["mousedown", "click", "dblclick"]) line.addEventListener(kind, (event) => event.stopPropagation());
      line.addEventListener("pointerdown", (event) => this.#drag(event, line, side));
      line.addEventListener("keydown", (event) => this.#key(event, side));
      line.addEventListener("blur", () => this.held && this.held.side === side && !this.held.dragged && this.#let(false));
      return line;
    }

    #drag(event, line, side) {
      if (event.button !== 0) return;
      event.preventDefault();
      line.focus({ preventScroll: true });
      line.setPointerCapture(event.pointerId);
      const { over } = this.plot;
      const start = event.clientY;
      const move = (moved) => {
        // A click on it moves nothing.
        if (!this.held && Math.abs(moved.clientY - start) < 3) return;
        const top = moved.clientY - over.getBoundingClientRect().top;
        const value = this.plot.posToVal(Math.min(Math.max(top, 0), over.clientHeight), "y");
        this.#hold(side, Math.max(0, tidy(value, this.chart.facts.digits)), true);
      };
      const stop = (last) => {
        line.removeEventListener("pointermove", move);
        line.removeEventListener("pointerup", stop);
        line.removeEventListener("pointercancel", stop);
        this.#let(last.type === "pointerup");
      };
      line.addEventListener("pointermove", move);
      line.addEventListener("pointerup", stop);
      line.addEventListener("pointercancel", stop);
    }

    #key(event, side) {
      const by = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
      if (by) {
        const { digits } = this.chart.facts;
        this.#hold(side, Math.max(0, tidy(this.#value(side) + by * step(digits), digits)), false);
      } else if (event.key === "Enter") this.#let(true);
      else if (event.key === "Escape") this.#let(false);
      else if (event.key === "Delete" || event.key === "Backspace") this.limits.set(this.key, side, null);
      else return;
      event.preventDefault();
      event.stopPropagation();
    }

    #hold(side, value, dragged) {
      this.held = { side, value, dragged };
      this.plot.redraw(false);
    }

    #let(keep) {
      const { held } = this;
      this.held = null;
      if (held && keep) this.limits.set(this.key, held.side, held.value);
      this.plot.redraw(false);
    }
  }

  live.Limits = Limits;
  live.LimitLines = LimitLines;
})();
