/* The run: what it is, how it was started, what it says. */
(() => {
  "use strict";
  const live = window.EMhubLive;
  const { format, make, write, known } = live;
  const LEVELS = {
    info: { icon: "info-circle", word: "Info" },
    warning: { icon: "exclamation-triangle", word: "Warning" },
    error: { icon: "x-octagon", word: "Error" },
  };
  const KEPT = 50;

  class Run {
    constructor(root) {
      this.root = root;
      this.facts = root.querySelector("[data-run-facts]");
      this.parameters = root.querySelector("[data-parameters]");
      this.events = root.querySelector("[data-events]");
      this.told = new Set();
    }

    clear() {
      this.told.clear();
      this.events.replaceChildren();
    }

    show(run, parameters) {
      this.root.hidden = false;
      const rows = [
        ["Status", run.status],
        ["Software", [run.software, run.version].filter(Boolean).join(" ")],
        ["Host", run.host],
        ["Started", known(run.started) && moment(run.started)],
        ["Finished", known(run.finished) && moment(run.finished)],
        ["Micrograph pixel size", known(run.pixel_size) && `${live.plain(run.pixel_size)} Å`],
        ["Micrograph size", known(run.width) && known(run.height) && `${run.width} × ${run.height} pixels`],
        ["Particle diameter", known(run.particle_diameter) && `${live.plain(run.particle_diameter)} Å`],
      ];
      fill(this.facts, rows.filter(([, value]) => value));
      if (!parameters) return;
      const names = Object.keys(parameters);
      this.parameters.hidden = names.length === 0;
      write(this.parameters.querySelector("summary"), `Parameters (${names.length})`);
      fill(this.parameters.querySelector("dl"), names.map((name) => [name, plainValue(parameters[name])]));
    }

    /** New messages go on top; the page keeps as many as the server sends at first. */
    say(events) {
      const fresh = events.filter((event) => !this.told.has(event.id));
      this.events.closest("section").hidden = this.told.size + fresh.length === 0;
      for (const event of [...fresh].reverse()) {
        this.told.add(event.id);
        const { icon, word } = LEVELS[event.level] || LEVELS.info;
        this.events.prepend(
          make("li", { className: `live-event live-event-${event.level}` }, [
            make("i", { className: `bi bi-${icon}`, "aria-hidden": "true" }),
            make("time", { text: format.clock(event.at), title: format.exact(event.at) }),
            make("span", {}, [make("strong", { text: event.level === "info" ? "" : `${word}: ` }), event.text]),
          ]),
        );
      }
      while (this.events.children.length > KEPT) this.events.lastElementChild.remove();
    }
  }

  const moment = (seconds) => make("time", { text: format.clock(seconds), title: format.exact(seconds) });
  const plainValue = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));

  function fill(list, rows) {
    list.replaceChildren(
      ...rows.map(([name, value]) => {
        const said = make("dd");
        said.append(value);
        return make("div", {}, [make("dt", { text: name }), said]);
      }),
    );
  }

  /** A number as it was given, without a float's tail. */
  live.plain = (value) => String(Number(value.toPrecision(6)));
  live.Run = Run;
})();
