/* Series over image number or time with their histograms beside them, drawn by uPlot; all share one view. */
(() => {
  "use strict";
  const live = window.EMhubLive;
  const { format, statistics, known, write } = live;
  const MEDIAN_OF = 31;
  const FONT = "12px system-ui, sans-serif";
  const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000];

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const ink = () => css("--live-ink");
  const faint = () => css("--live-faint");
  const withUnit = (value, { digits, unit }) =>
    `${format.fixed(value, digits)}${unit === "°" || !unit ? "" : " "}${unit}`;
  const titled = (label, unit) => (unit ? `${label} (${unit})` : label);

  function axis(label, more = {}) {
    return {
      stroke: ink,
      font: FONT,
      labelFont: FONT,
      label,
      labelSize: 16,
      labelGap: 0,
      grid: { stroke: faint, width: 1 },
      ticks: { stroke: faint, width: 1, size: 4 },
      ...more,
    };
  }

  /** Clock times in the facility's zone, the day under the first and wherever it changes. */
  function timeLabels(_, splits, __, ___, increment) {
    let shown = null;
    return splits.map((seconds) => {
      const day = format.day(seconds);
      const text = increment >= 86400 ? day : format.time(seconds, increment < 60);
      const label = day === shown || increment >= 86400 ? text : `${text}\n${day}`;
      shown = day;
      return label;
    });
  }

  /**
   * The range that shows nearly all values well: a few wild ones do not flatten the rest, they are drawn as arrows
   * at the edge instead.
   */
  function calmRange(values) {
    const sorted = statistics.sorted(values);
    if (!sorted.length) return [0, 1];
    const low = statistics.percentile(sorted, 0.02);
    const high = statistics.percentile(sorted, 0.98);
    const reach = (high - low) / 2 || Infinity;
    const from = Math.max(sorted[0], low - reach);
    const to = Math.min(sorted[sorted.length - 1], high + reach);
    const [min, max] = uPlot.rangeNum(from, to, 0.12, false);
    return from >= 0 && min < 0 ? [0, max] : [min, max];
  }

  /** Draws again when the element's width changes. */
  function fit(element, plot, height) {
    const observer = new ResizeObserver(() => {
      const width = element.clientWidth;
      if (width > 0 && Math.abs(width - plot.width) > 0.5) plot.setSize({ width, height: height() });
    });
    observer.observe(element);
    return observer;
  }

  /** Draws once the element comes near what is seen, and at once for print. */
  const waiting = new Map();
  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) if (entry.isIntersecting) run(entry.target);
    },
    { rootMargin: "300px" },
  );

  function run(element) {
    const draw = waiting.get(element);
    waiting.delete(element);
    near.unobserve(element);
    if (draw) draw();
  }

  /** `draw()` soon: the last one asked for wins. */
  function whenNear(element, draw) {
    if (!waiting.has(element)) near.observe(element);
    waiting.set(element, draw);
  }

  const drawAll = () => [...waiting.keys()].forEach(run);

  /** What is not seen yet is drawn too once the page has nothing else to do, one after the other. */
  function drawLater() {
    const [next] = waiting.keys();
    if (!next) return;
    run(next);
    setTimeout(drawLater, 30);
  }

  class SeriesChart {
    constructor(card, facts, charts) {
      this.card = card;
      this.facts = facts;
      this.charts = charts;
      this.place = card.querySelector("[data-plot]");
      this.readout = card.querySelector("[data-readout]");
      this.colour = () => css(`--live-${facts.key}`);
      this.plot = null;
      this.marked = null;
      this.limits = new live.LimitLines(this, charts);
    }

    /** Draw a view = {mode, title, x, order, from, to, medians}; `order` has the row of each x, -1 for none. */
    show(view) {
      const { columns } = this.charts;
      this.card.hidden = !columns.any(this.facts.key);
      if (!this.card.hidden) whenNear(this.place, () => this.#show(view));
    }

    #show(view) {
      const { key, label } = this.facts;
      const column = this.charts.columns.series[key];
      const values = view.order.map((row) => (row < 0 ? null : column[row]));
      const line = view.line(key, values);
      this.view = view;
      this.middle = view.middle(key, values);
      const data = [view.x, values, line];
      if (this.plot && this.mode === view.mode && this.title === view.title) {
        this.plot.setData(data, false);
        this.plot.setScale("x", { min: view.from, max: view.to });
      } else {
        this.mode = view.mode;
        this.title = view.title;
        this.#draw(data);
      }
      this.#describe(null);
      const said = `median ${withUnit(this.middle, this.facts)}.`;
      this.place.setAttribute(
        "aria-label",
        `${label} of ${format.integer(view.rows)} micrographs against ${view.title.toLowerCase()}: ${said}`,
      );
    }

    mark(id) {
      this.marked = id;
      if (this.plot) this.plot.redraw(false);
    }

    redraw() {
      if (this.plot) this.plot.redraw(true, true);
    }

    #height() {
      return this.place.clientHeight || 190;
    }

    #draw(data) {
      if (this.plot) {
        this.observer.disconnect();
        this.plot.destroy();
      }
      const { facts, charts } = this;
      const timed = this.mode === "time";
      const options = {
        width: this.place.clientWidth || 300,
        height: this.#height(),
        padding: [8, 22, 0, 0],
        legend: { show: false },
        cursor: {
          sync: { key: "live", scales: ["x", null], setSeries: false },
          drag: { x: true, y: false, dist: 8, setScale: false },
          bind: { dblclick: () => () => charts.zoom(null, null) },
          y: false,
          points: { size: 9, fill: () => this.colour(), stroke: ink, width: 1 },
        },
        scales: {
          x: { time: timed, range: () => this.#spread() },
          y: { range: (plot) => calmRange(this.#seen(plot)) },
        },
        axes: [
          axis(this.title, timed ? { values: timeLabels, space: 64, size: 42 } : { size: 24, incrs: WHOLE }),
          axis(titled(facts.label, facts.unit), { size: 46 }),
        ],
        series: [
          {},
          {
            paths: () => null,
            points: { show: true, size: data[0].length > 1500 ? 3.5 : 4.5, width: 0, fill: () => this.colour(), stroke: () => this.colour() },
          },
          { stroke: ink, width: 1.75, spanGaps: true, points: { show: false } },
        ],
        hooks: {
          setCursor: [(plot) => this.#describe(plot.cursor.idx)],
          setSelect: [(plot) => this.#selected(plot)],
          draw: [(plot) => this.#drawMore(plot)],
        },
      };
      if (timed) options.tzDate = (seconds) => uPlot.tzDate(new Date(seconds * 1000), live.zone);
      this.plot = new uPlot(options, data, this.place);
      this.observer = fit(this.place, this.plot, () => this.#height());
      const { over } = this.plot;
      let pressedAt = null;
      over.addEventListener("mousedown", (event) => (pressedAt = event.clientX));
      over.addEventListener("click", (event) => {
        const at = this.#nearest(this.plot.cursor.idx);
        if (pressedAt === null || Math.abs(event.clientX - pressedAt) >= 8 || at === null) return;
        charts.select(charts.columns.id[this.view.order[at]]);
      });
      // With Shift the hand moves the view instead of choosing a part of it.
      over.addEventListener(
        "mousedown",
        (event) => {
          if (!event.shiftKey || event.button !== 0) return;
          event.stopImmediatePropagation();
          event.preventDefault();
          charts.grab(event, over.clientWidth);
        },
        true,
      );
      over.addEventListener(
        "wheel",
        (event) => {
          if (!event.ctrlKey && !event.metaKey) return;
          event.preventDefault();
          const at = this.plot.posToVal(event.offsetX, "x");
          charts.zoomAbout(at, event.deltaY > 0 ? 1.3 : 1 / 1.3);
        },
        { passive: false },
      );
      this.limits.attach(this.plot);
    }

    #spread() {
      const { from, to } = this.view;
      return from === to ? [from - 1, to + 1] : [from, to];
    }

    #selected(plot) {
      const { left, width } = plot.select;
      if (width < 8) return;
      const from = plot.posToVal(left, "x");
      const to = plot.posToVal(left + width, "x");
      plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
      this.charts.zoom(from, to);
    }

    #seen(plot) {
      const { from, to } = this.view;
      const [x, values] = plot.data;
      return values.filter((_, at) => x[at] >= from && x[at] <= to);
    }

    /** The nearest place with a value; null where there is none. */
    #nearest(at) {
      if (!known(at)) return null;
      const values = this.plot.data[1];
      for (let away = 0; away < values.length; away++) {
        if (known(values[at - away])) return at - away;
        if (known(values[at + away])) return at + away;
      }
      return null;
    }

    #describe(at) {
      if (!known(at) || !this.plot || !known(this.plot.data[1][at])) {
        return write(this.readout, `median ${withUnit(this.middle, this.facts)}`);
      }
      const row = this.view.order[at];
      const number = format.integer(this.charts.columns.number[row]);
      const time = format.clock(this.charts.columns.time(row));
      write(this.readout, `${withUnit(this.plot.data[1][at], this.facts)} · image ${number} · ${time}`);
    }

    #drawMore(plot) {
      const { ctx, bbox } = plot;
      const { min, max } = plot.scales.y;
      const [x, values] = plot.data;
      const size = 4 * devicePixelRatio;
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left - 2 * size, bbox.top, bbox.width + 4 * size, bbox.height);
      ctx.clip();
      this.limits.shade(plot);
      ctx.fillStyle = this.colour();
      values.forEach((value, at) => {
        if (value === null || (value >= min && value <= max)) return;
        const left = plot.valToPos(x[at], "x", true);
        if (left < bbox.left - size || left > bbox.left + bbox.width + size) return;
        const up = value > max;
        const tip = up ? bbox.top + 1 : bbox.top + bbox.height - 1;
        ctx.beginPath();
        ctx.moveTo(left, tip);
        ctx.lineTo(left - size, tip + (up ? 1.6 : -1.6) * size);
        ctx.lineTo(left + size, tip + (up ? 1.6 : -1.6) * size);
        ctx.fill();
      });
      const row = this.marked === null ? -1 : this.charts.columns.row(this.marked);
      const at = row < 0 ? -1 : this.view.order.indexOf(row);
      if (at >= 0) {
        const left = plot.valToPos(x[at], "x", true);
        ctx.strokeStyle = ink();
        ctx.lineWidth = devicePixelRatio;
        ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
        ctx.beginPath();
        ctx.moveTo(left, bbox.top);
        ctx.lineTo(left, bbox.top + bbox.height);
        ctx.stroke();
        if (known(values[at])) {
          const top = plot.valToPos(Math.min(Math.max(values[at], min), max), "y", true);
          ctx.setLineDash([]);
          ctx.lineWidth = 2 * devicePixelRatio;
          ctx.beginPath();
          ctx.arc(left, top, 5.5 * devicePixelRatio, 0, 2 * Math.PI);
          ctx.stroke();
        }
      }
      ctx.restore();
    }
  }

  /** Counts by fixed bins: {edges, counts, below, above, limits}. */
  class HistogramChart {
    constructor(card, facts) {
      this.card = card;
      this.facts = facts;
      this.place = card.querySelector("[data-histogram]");
      this.note = card.querySelector("[data-outside]");
      this.plot = null;
    }

    /** `bins` undefined: no micrograph in view has a value. */
    show(bins) {
      if (!this.card.hidden) whenNear(this.place, () => this.#show(bins));
    }

    #show(bins) {
      const { edges, counts, below, above, limits } = bins || { edges: [], counts: [] };
      const { unit, label } = this.facts;
      const outside = [];
      if (below) outside.push(`${format.integer(below)} below ${limits[0]} ${unit}`);
      if (above) outside.push(`${format.integer(above)} above ${limits[1]} ${unit}`);
      if (!counts.length && !outside.length) outside.push("None in view");
      write(this.note, outside.join(", "));
      this.place.hidden = !counts.length;
      if (!counts.length) return;
      this.range = [edges[0], edges[edges.length - 1]];
      const data = [edges.slice(0, -1), counts];
      const most = counts.indexOf(Math.max(...counts));
      this.place.dataset.count = counts.reduce((sum, count) => sum + count, 0);
      this.place.setAttribute(
        "aria-label",
        `Histogram of ${label.toLowerCase()}: most micrographs between ${edges[most]} and ${edges[most + 1]} ${unit}.`,
      );
      if (this.plot) return this.plot.setData(data);
      this.plot = new uPlot(
        {
          width: this.place.clientWidth || 160,
          height: this.place.clientHeight || 190,
          padding: [8, 10, 0, 0],
          legend: { show: false },
          cursor: { show: false },
          scales: {
            x: { time: false, range: () => this.range },
            y: { range: (_, __, max) => [0, Math.max(1, max) * 1.08] },
          },
          axes: [axis(titled(label, unit), { size: 24, space: 36 }), axis("Micrographs", { size: 58, incrs: WHOLE })],
          series: [{}, bars(() => css(`--live-${this.facts.key}`))],
        },
        data,
        this.place,
      );
      fit(this.place, this.plot, () => this.place.clientHeight || 190);
    }

    redraw() {
      if (this.plot) this.plot.redraw(true, true);
    }
  }

  const bars = (colour) => ({
    paths: uPlot.paths.bars({ size: [1, Infinity], align: 1, gap: 1 }),
    fill: colour,
    stroke: colour,
    width: 0,
    points: { show: false },
  });

  const AXIS = "emhub-live-axis";

  /** The axis this browser's reader chose last; storage may be forbidden, then each visit chooses anew. */
  function recall() {
    try {
      return localStorage.getItem(AXIS);
    } catch {
      return null;
    }
  }

  function remember(mode) {
    try {
      localStorage.setItem(AXIS, mode);
    } catch {
      // As above.
    }
  }

  /**
   * All charts of the page: one view (axis and part of it) for all. `select(id)` shows a micrograph, `closer(view)`
   * asks the server for a part, `reload()` for everything, `viewed()` is told when the view changed.
   */
  class Charts {
    constructor(root, { series, columns, limits, select, closer, reload, viewed }) {
      Object.assign(this, { root, columns, limits, select, closer, reload, viewed });
      this.mode = recall() || "auto";
      this.part = null; // {from, to}: to is null where it goes on with the newest
      this.near = null; // What the server said of the part.
      this.asked = 0;
      this.whole = {};
      this.marked = null;
      this.drawn = false;
      this.charts = [];
      this.histograms = {};
      for (const facts of series) {
        const card = root.querySelector(`[data-series="${facts.key}"]`);
        this.charts.push(new SeriesChart(card, facts, this));
        this.histograms[facts.key] = new HistogramChart(card, facts);
      }
      this.buttons = [...root.querySelectorAll("[data-axis]")];
      for (const button of this.buttons) {
        button.addEventListener("click", () => this.#turn(button.dataset.axis));
      }
      for (const button of root.querySelectorAll("[data-zoom]")) {
        button.addEventListener("click", () => this.#step(button.dataset.zoom));
      }
      document.addEventListener("keydown", (event) => this.#key(event));
      new MutationObserver(() => this.redraw()).observe(document.documentElement, {
        attributeFilter: ["data-bs-theme"],
      });
      // Paper is white, whatever the screen.
      const html = document.documentElement;
      let onScreen = html.dataset.bsTheme;
      window.addEventListener("beforeprint", () => {
        onScreen = html.dataset.bsTheme;
        html.dataset.bsTheme = "light";
        drawAll();
        for (const image of document.querySelectorAll("img[loading=lazy]")) image.loading = "eager";
      });
      window.addEventListener("afterprint", () => (html.dataset.bsTheme = onScreen));
    }

    redraw() {
      for (const chart of [...this.charts, ...Object.values(this.histograms)]) chart.redraw();
    }

    /** "number" or "time": what is drawn now. */
    get axis() {
      const { acquired, length } = this.columns;
      if (this.mode !== "auto") return this.mode;
      // The newest may not have it yet: that is no reason to turn.
      return length > 0 && 2 * acquired.filter(known).length > length ? "time" : "number";
    }

    /** What the server is asked for at first: null leaves it to the server. */
    get wanted() {
      return this.mode === "auto" ? null : this.mode;
    }

    /** The columns changed, and with them the histograms of everything (undefined: not). */
    show(histograms) {
      if (histograms) this.whole = histograms;
      this.#draw();
      if (!this.drawn && this.columns.length) setTimeout(drawLater, 1000);
      this.drawn = this.columns.length > 0;
      if (this.part) this.#ask(this.near && !this.#complete() ? 4000 : 400);
    }

    mark(id) {
      this.marked = id;
      for (const chart of this.charts) chart.mark(id);
    }

    /** More rows of what is drawn already. */
    add(block) {
      this.columns.merge({ ...block, reset: false, closer: true });
      this.#draw();
    }

    limitsChanged() {
      for (const chart of this.charts) chart.limits.refresh();
      if (this.part) this.#ask(0);
    }

    /** Look at a part of the axis; null, null: at everything. */
    zoom(from, to) {
      const [first, last] = this.#ends();
      const least = this.axis === "time" ? 30 : 2;
      if (from !== null && to - from < least) {
        const middle = (from + to) / 2;
        [from, to] = [middle - least / 2, middle + least / 2];
      }
      this.part = from === null || (from <= first && to >= last) ? null : { from, to };
      this.near = null;
      this.#draw();
      if (this.part) this.#ask(0);
      this.viewed();
    }

    zoomAbout(at, factor) {
      const { from, to } = this.#extent();
      this.zoom(at - (at - from) * factor, at + (to - at) * factor);
    }

    /** Move the view with the pointer until it is let go. */
    grab(event, width) {
      const { from, to } = this.#extent();
      const move = (moved) => {
        const by = ((event.clientX - moved.clientX) / width) * (to - from);
        this.#pan(from + by, to + by);
      };
      const stop = () => {
        window.removeEventListener("mousemove", move);
        window.removeEventListener("mouseup", stop);
      };
      window.addEventListener("mousemove", move);
      window.addEventListener("mouseup", stop);
    }

    /** What is asked of the server for the part in view. */
    get query() {
      if (!this.part) return { axis: this.axis };
      const { from, to } = this.part;
      return to === null ? { axis: this.axis, from } : { axis: this.axis, from, to };
    }

    #pan(from, to) {
      const [first, last] = this.#ends();
      const by = from < first ? first - from : to > last ? last - to : 0;
      this.zoom(from + by, to + by);
    }

    #step(what) {
      const { from, to } = this.#extent();
      const [first, last] = this.#ends();
      const width = to - from;
      if (what === "all") return this.zoom(null, null);
      if (what === "in") return this.zoomAbout((from + to) / 2, 0.5);
      if (what === "out") return this.zoomAbout((from + to) / 2, 2);
      if (what === "older") return this.#pan(from - width / 2, to - width / 2);
      if (what === "newer") return this.#pan(from + width / 2, to + width / 2);
      // The newest so many hours or micrographs, going on with what comes.
      const reach = this.axis === "time" ? Number(what) * 3600 : Number(what) * 100;
      if (reach >= last - first) return this.zoom(null, null);
      this.part = { from: last - reach, to: null, reach };
      this.near = null;
      this.#draw();
      this.#ask(0);
      this.viewed();
    }

    #key(event) {
      const busy = event.target.closest("input, select, textarea, [role=slider], [contenteditable], [role=dialog]");
      if (busy || event.altKey || event.ctrlKey || event.metaKey || this.root.hidden) return;
      const step = { "+": "in", "=": "in", "-": "out", "[": "older", "]": "newer", 0: "all" }[event.key];
      if (!step) return;
      event.preventDefault();
      this.#step(step);
    }

    #turn(mode) {
      const before = this.axis;
      this.mode = mode;
      remember(mode);
      if (this.axis === before) return this.#draw();
      this.part = this.near = null;
      // Which of many rows were chosen, and the line through them, belong to an axis.
      if (this.columns.complete) this.#draw();
      else this.reload();
      this.viewed();
    }

    #complete() {
      return this.columns.complete || (this.near && this.near.complete);
    }

    #ask(wait) {
      clearTimeout(this.timer);
      const asked = ++this.asked;
      const begun = this.part;
      this.timer = setTimeout(async () => {
        const block = await this.closer(this.query);
        // Meanwhile the reader may have moved on.
        if (!block || asked !== this.asked || begun !== this.part) return;
        this.near = block;
        this.columns.merge({ ...block, reset: false, closer: true });
        this.#draw();
        this.viewed();
      }, wait);
    }

    /** The least and greatest x there is. */
    #ends() {
      const { columns } = this;
      if (!columns.length) return [0, 1];
      if (this.axis === "number") return [1, columns.number[columns.length - 1]];
      let [first, last] = [Infinity, -Infinity];
      for (let row = 0; row < columns.length; row++) {
        const time = columns.time(row);
        if (time < first) first = time;
        if (time > last) last = time;
      }
      return [first, last];
    }

    #extent() {
      const [first, last] = this.#ends();
      if (!this.part) return { from: first, to: last };
      if (this.part.reach) this.part.from = last - this.part.reach;
      return { from: this.part.from, to: this.part.to ?? last };
    }

    #draw() {
      if (!this.columns.length) return;
      const view = this.#view();
      for (const chart of this.charts) chart.show(view);
      const near = this.near && this.near.histograms;
      for (const [key, chart] of Object.entries(this.histograms)) chart.show((near || this.whole)[key]);
      for (const button of this.buttons) {
        button.setAttribute("aria-pressed", String(button.dataset.axis === view.mode));
        button.classList.toggle("active", button.dataset.axis === view.mode);
      }
      this.#say(view);
    }

    #say(view) {
      const { columns } = this;
      const said = this.root.querySelector("[data-part]");
      const total = format.integer(columns.total);
      let text = "";
      if (this.part) {
        const rows = this.near ? format.integer(this.near.rows) : "…";
        text = `${rows} of ${total} micrographs in view`;
        if (this.near && this.near.judged) {
          text += `, ${format.percent(this.near.usable / this.near.judged)} of them usable`;
        }
        if (this.near && !this.near.complete) text += "; extremes and medians are drawn";
      } else if (!columns.complete) {
        text = `All ${total} micrographs: extremes and medians are drawn, zoom in for every one`;
      }
      write(said, text);
      this.root.dataset.view = this.part ? "part" : "all";
      this.root.dataset.near = this.part && this.near ? this.near.rows : "";
      for (const button of this.root.querySelectorAll("[data-zoom=all], [data-zoom=older], [data-zoom=newer]")) {
        button.disabled = !this.part;
      }
      for (const button of this.root.querySelectorAll("[data-hours]")) {
        button.textContent = view.mode === "time" ? `${button.dataset.hours} h` : `${button.dataset.hours}00`;
        button.title = view.mode === "time" ? "The newest hours" : "The newest micrographs";
      }
    }

    /** Rows in the order of x, the medians' places in between: uPlot wants x ascending. */
    #view() {
      const { columns } = this;
      const mode = this.axis;
      const rows = columns.id.map((_, row) => row);
      const at = mode === "number" ? (row) => columns.number[row] : (row) => columns.time(row);
      if (mode === "time") rows.sort((a, b) => at(a) - at(b) || a - b);
      let title = "Image number";
      if (mode === "time") {
        const acquired = columns.acquired.filter(known).length;
        title = acquired === 0 ? "Time reported" : "Time acquired";
        if (acquired && acquired < columns.length) title = "Time acquired, or reported where unknown";
      }
      const { from, to } = this.#extent();
      const complete = this.#complete();
      const medians = complete ? null : this.near ? this.near.medians : this.part ? null : columns.medians;
      const x = [];
      const order = [];
      const line = []; // Which of the medians stands here.
      let next = 0;
      for (const row of rows) {
        const here = at(row);
        while (medians && next < medians.x.length && medians.x[next] < here) {
          x.push(medians.x[next]);
          order.push(-1);
          line.push(next++);
        }
        x.push(here);
        order.push(row);
        line.push(medians && medians.x[next] === here ? next++ : -1);
      }
      const inside = (place) => x[place] >= from && x[place] <= to;
      const seen = (values) => values.filter((_, place) => inside(place));
      const lastLine = medians && medians.x.length ? medians.x[medians.x.length - 1] : -Infinity;
      return {
        mode,
        title,
        x,
        order,
        from,
        to,
        rows: this.near ? this.near.rows : columns.total,
        /** The line: the server's medians and, where all rows are here or newer ones came, running ones. */
        line(key, values) {
          if (!medians && !complete) return values.map(() => null);
          const own = values.map((value, place) =>
            inside(place) && (complete || x[place] > lastLine) ? value : null,
          );
          const running = statistics.runningMedian(own, MEDIAN_OF);
          if (!medians) return running;
          const of = medians.series[key] || [];
          return running.map((value, place) => (line[place] < 0 ? value : (of[line[place]] ?? null)));
        },
        /** The middle of what is in view: of all rows where they are here, else of the medians. */
        middle(key, values) {
          if (medians && medians.series[key]) return statistics.median(medians.series[key].filter(known));
          return statistics.median(seen(values));
        },
      };
    }
  }

  live.Charts = Charts;
  live.chart = { css, ink, faint, axis, bars, fit, timeLabels, titled, whenNear, WHOLE, FONT };
})();
