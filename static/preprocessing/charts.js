/* Series over image number or time with their histograms beside them, drawn by uPlot. */
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

  class SeriesChart {
    constructor(card, facts, select) {
      this.card = card;
      this.facts = facts;
      this.select = select;
      this.place = card.querySelector("[data-plot]");
      this.readout = card.querySelector("[data-readout]");
      this.colour = () => css(`--live-${facts.key}`);
      this.mode = null;
      this.plot = null;
      this.selected = -1;
    }

    /** Show the columns against `view` = {mode, x, order, title}; `order` says which row stands at each x. */
    show(columns, view) {
      const values = view.order.map((row) => columns.series[this.facts.key][row]);
      this.card.hidden = !values.some((value) => value !== null);
      if (this.card.hidden) return;
      this.view = view;
      this.columns = columns;
      const data = [view.x, values, statistics.runningMedian(values, MEDIAN_OF)];
      this.middle = statistics.median(values);
      if (this.plot && this.mode === view.mode && this.title === view.title) {
        const { min, max } = this.plot.scales.x;
        const zoomed = this.zoomed();
        this.plot.setData(data, !zoomed);
        if (zoomed) this.plot.setScale("x", { min, max });
      } else {
        this.#draw(data);
      }
      this.#describe(null);
      const { label, unit, digits } = this.facts;
      this.place.setAttribute(
        "aria-label",
        `${label} of ${format.integer(values.length)} micrographs against ${view.title.toLowerCase()}: ` +
          `median ${format.fixed(this.middle, digits)} ${unit}.`,
      );
    }

    zoomed() {
      const x = this.plot.data[0];
      const { min, max } = this.plot.scales.x;
      return x.length > 1 && (min > x[0] || max < x[x.length - 1]);
    }

    mark(at) {
      this.selected = at;
      if (this.plot) this.plot.redraw(false);
    }

    redraw() {
      if (this.plot) this.plot.redraw(true, true);
    }

    #height() {
      return this.place.clientHeight || 200;
    }

    #draw(data) {
      if (this.plot) {
        this.observer.disconnect();
        this.plot.destroy();
      }
      const { view, facts } = this;
      this.mode = view.mode;
      this.title = view.title;
      const timed = view.mode === "time";
      const options = {
        width: this.place.clientWidth || 300,
        height: this.#height(),
        padding: [8, 14, 0, 0],
        legend: { show: false },
        cursor: {
          sync: { key: "live", scales: ["x", null], setSeries: false },
          drag: { x: true, y: false, dist: 8 },
          y: false,
          points: { size: 9, fill: () => this.colour(), stroke: ink, width: 1 },
        },
        scales: {
          x: { time: timed, range: (_, min, max) => (min === max ? [min - 1, max + 1] : [min, max]) },
          y: { range: (plot) => calmRange(this.#seen(plot)) },
        },
        axes: [
          axis(view.title, timed ? { values: timeLabels, space: 64, size: 36 } : { size: 24, incrs: WHOLE }),
          axis(titled(facts.label, facts.unit), { size: 46 }),
        ],
        series: [
          {},
          {
            paths: () => null,
            points: { show: true, size: 4.5, width: 0, fill: () => this.colour(), stroke: () => this.colour() },
          },
          { stroke: ink, width: 1.75, spanGaps: true, points: { show: false } },
        ],
        hooks: {
          setCursor: [(plot) => this.#describe(plot.cursor.idx)],
          draw: [(plot) => this.#drawMore(plot)],
        },
      };
      if (timed) options.tzDate = (seconds) => uPlot.tzDate(new Date(seconds * 1000), live.zone);
      this.plot = new uPlot(options, data, this.place);
      this.observer = fit(this.place, this.plot, () => this.#height());
      let pressedAt = 0;
      this.plot.over.addEventListener("mousedown", (event) => (pressedAt = event.clientX));
      this.plot.over.addEventListener("click", (event) => {
        const at = this.#nearest(this.plot.cursor.idx);
        if (Math.abs(event.clientX - pressedAt) < 8 && at !== null) this.select(this.view.order[at]);
      });
    }

    #seen(plot) {
      const { min, max } = plot.scales.x;
      const [x, values] = plot.data;
      return values.filter((_, at) => !known(min) || (x[at] >= min && x[at] <= max));
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
      const { digits, unit } = this.facts;
      if (!known(at) || !this.plot || !known(this.plot.data[1][at])) {
        return write(this.readout, `median ${format.fixed(this.middle, digits)} ${unit}`);
      }
      const row = this.view.order[at];
      const number = format.integer(this.columns.number(row));
      const time = format.clock(this.columns.time(row));
      write(this.readout, `${format.fixed(this.plot.data[1][at], digits)} ${unit} · image ${number} · ${time}`);
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
      ctx.fillStyle = this.colour();
      values.forEach((value, at) => {
        if (value === null || (value >= min && value <= max)) return;
        const left = plot.valToPos(x[at], "x", true);
        const up = value > max;
        const tip = up ? bbox.top + 1 : bbox.top + bbox.height - 1;
        ctx.beginPath();
        ctx.moveTo(left, tip);
        ctx.lineTo(left - size, tip + (up ? 1.6 : -1.6) * size);
        ctx.lineTo(left + size, tip + (up ? 1.6 : -1.6) * size);
        ctx.fill();
      });
      const at = this.view.order.indexOf(this.selected);
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

    show(bins) {
      const { edges, counts, below, above, limits } = bins;
      const { unit, label } = this.facts;
      const outside = [];
      if (below) outside.push(`${format.integer(below)} below ${limits[0]} ${unit}`);
      if (above) outside.push(`${format.integer(above)} above ${limits[1]} ${unit}`);
      write(this.note, outside.join(", "));
      this.place.hidden = !counts.length;
      if (!counts.length) return;
      this.range = [edges[0], edges[edges.length - 1]];
      const data = [edges.slice(0, -1), counts];
      const most = counts.indexOf(Math.max(...counts));
      this.place.setAttribute(
        "aria-label",
        `Histogram of ${label.toLowerCase()}: most micrographs between ${edges[most]} and ${edges[most + 1]} ${unit}.`,
      );
      if (this.plot) return this.plot.setData(data);
      this.plot = new uPlot(
        {
          width: this.place.clientWidth || 160,
          height: this.place.clientHeight || 200,
          padding: [8, 10, 0, 0],
          legend: { show: false },
          cursor: { show: false },
          scales: {
            x: { time: false, range: () => this.range },
            y: { range: (_, __, max) => [0, Math.max(1, max) * 1.08] },
          },
          axes: [axis(titled(label, unit), { size: 24, space: 36 }), axis("Micrographs", { size: 50, incrs: WHOLE })],
          series: [
            {},
            {
              paths: uPlot.paths.bars({ size: [1, Infinity], align: 1, gap: 1 }),
              fill: () => css(`--live-${this.facts.key}`),
              stroke: () => css(`--live-${this.facts.key}`),
              width: 0,
              points: { show: false },
            },
          ],
        },
        data,
        this.place,
      );
      fit(this.place, this.plot, () => this.place.clientHeight || 200);
    }

    redraw() {
      if (this.plot) this.plot.redraw(true, true);
    }
  }

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

  /** All charts of the page, drawn again whenever the theme changes. */
  class Charts {
    constructor(root, series, select) {
      this.root = root;
      this.mode = recall() || "auto";
      this.charts = [];
      this.histograms = {};
      this.selected = null;
      for (const facts of series) {
        const card = root.querySelector(`[data-series="${facts.key}"]`);
        this.charts.push(new SeriesChart(card, facts, select));
        this.histograms[facts.key] = new HistogramChart(card, facts);
      }
      this.buttons = [...root.querySelectorAll("[data-axis]")];
      for (const button of this.buttons) {
        button.addEventListener("click", () => {
          this.mode = button.dataset.axis;
          remember(this.mode);
          if (this.columns) this.show(this.columns);
        });
      }
      new MutationObserver(() => this.redraw()).observe(document.documentElement, {
        attributeFilter: ["data-bs-theme"],
      });
      // Paper is white, whatever the screen.
      const html = document.documentElement;
      let onScreen = html.dataset.bsTheme;
      window.addEventListener("beforeprint", () => {
        onScreen = html.dataset.bsTheme;
        html.dataset.bsTheme = "light";
        for (const image of document.querySelectorAll("img[loading=lazy]")) image.loading = "eager";
      });
      window.addEventListener("afterprint", () => (html.dataset.bsTheme = onScreen));
    }

    redraw() {
      for (const chart of [...this.charts, ...Object.values(this.histograms)]) chart.redraw();
    }

    show(columns, histograms) {
      this.columns = columns;
      const view = this.#view(columns);
      for (const chart of this.charts) chart.show(columns, view);
      this.mark(this.selected);
      for (const [key, bins] of Object.entries(histograms || {})) this.histograms[key].show(bins);
      for (const button of this.buttons) {
        button.setAttribute("aria-pressed", String(button.dataset.axis === view.mode));
        button.classList.toggle("active", button.dataset.axis === view.mode);
      }
      const part = this.root.querySelector("[data-part]");
      part.hidden = columns.total <= columns.length;
      write(
        part,
        `The newest ${format.integer(columns.length)} of ${format.integer(columns.total)} micrographs are drawn; ` +
          "counters and histograms are of all.",
      );
    }

    mark(id) {
      this.selected = id;
      if (!this.columns) return;
      for (const chart of this.charts) chart.mark(id === null ? -1 : this.columns.row(id));
    }

    /** Rows in the order of x: uPlot wants x ascending, and times need not follow the exposures' order. */
    #view(columns) {
      const rows = columns.id.map((_, row) => row);
      const acquired = columns.acquired.filter((moment) => moment !== null).length;
      let mode = this.mode;
      if (mode === "auto") mode = acquired > 0 && acquired === columns.length ? "time" : "number";
      if (mode === "number") {
        return { mode, title: "Image number", order: rows, x: rows.map((row) => columns.number(row)) };
      }
      const order = rows.sort((a, b) => columns.time(a) - columns.time(b) || a - b);
      let title = "Time acquired";
      if (acquired === 0) title = "Time reported";
      else if (acquired < columns.length) title = "Time acquired, or reported where unknown";
      return { mode, title, order, x: order.map((row) => columns.time(row)) };
    }
  }

  live.Charts = Charts;
})();
