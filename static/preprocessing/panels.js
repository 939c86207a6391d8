/* What stands below the series: any two quantities, astigmatism in polar coordinates, beam shifts, throughput. */
(() => {
  "use strict";
  const live = window.EMhubLive;
  const { format, make, write, known, statistics } = live;

  /** A drawing area of its own size and sharpness with axes; `hit(left, top)` finds what is drawn there. */
  class Canvas {
    constructor(place) {
      this.place = place;
      this.element = make("canvas");
      place.append(this.element);
      new ResizeObserver(() => this.draw && this.paint()).observe(place);
      new MutationObserver(() => this.draw && this.paint()).observe(document.documentElement, {
        attributeFilter: ["data-bs-theme"],
      });
      this.points = [];
    }

    /** `draw(canvas)` now and whenever size or theme change; `near`: not before it comes near what is seen. */
    show(draw, near = false) {
      this.draw = draw;
      if (near) live.chart.whenNear(this.place, () => this.paint());
      else this.paint();
    }

    paint() {
      const { clientWidth: width, clientHeight: height } = this.place;
      if (!width || !height) return;
      const sharp = devicePixelRatio || 1;
      this.element.width = Math.round(width * sharp);
      this.element.height = Math.round(height * sharp);
      Object.assign(this.element.style, { width: `${width}px`, height: `${height}px` });
      this.ctx = this.element.getContext("2d");
      this.ctx.scale(sharp, sharp);
      Object.assign(this, { width, height, points: [] });
      this.ctx.font = live.chart.FONT;
      this.draw(this);
    }

    /** Axes for ranges {min, max, label} in x and y; answers where a value lies. `same`: one scale for both. */
    axes(across, up, { same = false } = {}) {
      const { ctx, width, height } = this;
      const box = { left: 58, top: 8, right: width - 14, bottom: height - 42 };
      if (same) {
        const scale = Math.max((across.max - across.min) / (box.right - box.left), (up.max - up.min) / (box.bottom - box.top));
        for (const [range, pixels] of [[across, box.right - box.left], [up, box.bottom - box.top]]) {
          const middle = (range.min + range.max) / 2;
          range.min = middle - (scale * pixels) / 2;
          range.max = middle + (scale * pixels) / 2;
        }
      }
      const x = (value) => box.left + ((value - across.min) / (across.max - across.min)) * (box.right - box.left);
      const y = (value) => box.bottom - ((value - up.min) / (up.max - up.min)) * (box.bottom - box.top);
      ctx.strokeStyle = live.chart.faint();
      ctx.fillStyle = live.chart.ink();
      ctx.lineWidth = 1;
      ctx.textAlign = "center";
      ctx.textBaseline = "top";
      for (const tick of ticks(across, (box.right - box.left) / 70)) {
        line(ctx, x(tick), box.top, x(tick), box.bottom + 4);
        ctx.fillText(plain(tick), x(tick), box.bottom + 6);
      }
      ctx.fillText(across.label, (box.left + box.right) / 2, box.bottom + 23);
      ctx.textAlign = "right";
      ctx.textBaseline = "middle";
      for (const tick of ticks(up, (box.bottom - box.top) / 45)) {
        line(ctx, box.left - 4, y(tick), box.right, y(tick));
        ctx.fillText(plain(tick), box.left - 7, y(tick));
      }
      ctx.save();
      ctx.translate(9, (box.top + box.bottom) / 2);
      ctx.rotate(-Math.PI / 2);
      ctx.textAlign = "center";
      ctx.fillText(up.label, 0, 0);
      ctx.restore();
      return { x, y, box };
    }

    /** The nearest drawn point within reach of the pointer: {left, top, id, ...}; null where there is none. */
    hit(event, reach = 14) {
      const { left, top } = this.element.getBoundingClientRect();
      const [x, y] = [event.clientX - left, event.clientY - top];
      let best = null;
      let least = reach * reach;
      for (const point of this.points) {
        const away = (point.left - x) ** 2 + (point.top - y) ** 2;
        if (away < least) [best, least] = [point, away];
      }
      return best;
    }

    dot(left, top, radius) {
      const { ctx } = this;
      ctx.beginPath();
      ctx.arc(left, top, radius, 0, 2 * Math.PI);
      ctx.fill();
    }

    nothing(text) {
      const { ctx } = this;
      ctx.fillStyle = live.chart.css("--live-quiet");
      ctx.textAlign = "center";
      ctx.textBaseline = "middle";
      ctx.fillText(text, this.width / 2, this.height / 2);
    }
  }

  function line(ctx, fromX, fromY, toX, toY) {
    ctx.beginPath();
    ctx.moveTo(Math.round(fromX) + 0.5, Math.round(fromY) + 0.5);
    ctx.lineTo(Math.round(toX) + 0.5, Math.round(toY) + 0.5);
    ctx.stroke();
  }

  /** Round values between min and max, about so many. */
  function ticks({ min, max }, about) {
    const rough = (max - min) / Math.max(2, about);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
    const found = [];
    for (let at = Math.ceil(min / step); at * step <= max + step * 1e-9; at++) found.push(Number((at * step).toPrecision(10)));
    return found;
  }

  const plain = (value) => value.toLocaleString("en-GB", { maximumSignificantDigits: 6 }).replace("-", "−");

  /** The values' range with a little room. */
  function around(values, label) {
    let [min, max] = [Infinity, -Infinity];
    for (const value of values) {
      if (value < min) min = value;
      if (value > max) max = value;
    }
    const room = (max - min) * 0.05 || Math.abs(max) * 0.1 || 1;
    return { min: min >= 0 ? Math.max(0, min - room) : min - room, max: max + room, label };
  }

  /** Asks the server while the panel is seen: at once at first, then no more often than `every` ms. */
  class Asked {
    constructor(root, ask, every = 8000) {
      Object.assign(this, { root, ask, every });
      this.at = 0;
      this.seen = false;
      new IntersectionObserver(
        ([entry]) => {
          this.seen = entry.isIntersecting;
          if (this.seen && this.due) this.#later(0);
        },
        { rootMargin: "200px" },
      ).observe(root);
      // Once without being seen, when the page has drawn the rest: for whoever prints it.
      setTimeout(() => this.due && !this.at && this.#now(), 2500);
    }

    /** What it shows is of yesterday; `urgent`: the reader asked for something else. */
    changed(urgent = false) {
      this.due = true;
      if (this.seen) this.#later(urgent ? 0 : Math.max(0, this.at + this.every - Date.now()));
    }

    #later(wait) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.#now(), wait);
    }

    async #now() {
      this.due = false;
      this.at = Date.now();
      await this.ask();
    }
  }

  /** Any two quantities against each other. */
  class Pair {
    constructor(root, { series, fetchJSON, query, select, limits }) {
      Object.assign(this, { root, series, fetchJSON, query, limits });
      this.canvas = new Canvas(root.querySelector("[data-canvas]"));
      this.readout = root.querySelector("[data-readout]");
      this.choices = ["x", "y"].map((name) => root.querySelector(`[data-pair=${name}]`));
      this.asked = new Asked(root, () => this.#ask());
      for (const choice of this.choices) choice.addEventListener("change", () => this.asked.changed(true));
      const { element } = this.canvas;
      element.addEventListener("mousemove", (event) => this.#describe(this.canvas.hit(event)));
      element.addEventListener("mouseleave", () => this.#describe(null));
      element.addEventListener("click", (event) => {
        const point = this.canvas.hit(event);
        if (point) select(point.id);
      });
    }

    /** The quantities there are; the usual question first: resolution against defocus. */
    show(keys, urgent) {
      this.root.hidden = keys.length < 2;
      if (this.root.hidden) return;
      this.choices.forEach((choice, place) => {
        const there = [...choice.options].map((option) => option.value);
        if (there.join() === keys.join()) return;
        const chosen = choice.value || (place ? "ctf_resolution" : "defocus");
        const options = this.series.filter(({ key }) => keys.includes(key));
        choice.replaceChildren(...options.map(({ key, label }) => make("option", { value: key, text: label })));
        choice.value = keys.includes(chosen) ? chosen : keys[place];
        urgent = true;
      });
      this.asked.changed(urgent);
    }

    async #ask() {
      const [x, y] = this.choices.map((choice) => choice.value);
      const data = await this.fetchJSON({ ...this.query(), x, y });
      if (!data) return;
      this.data = data;
      this.facts = [x, y].map((key) => this.series.find((each) => each.key === key));
      this.canvas.place.dataset.points = data.x.length;
      this.canvas.show(() => this.#draw());
      this.#describe(null);
    }

    #draw() {
      const { canvas, data, facts } = this;
      if (!data.x.length) return canvas.nothing("No micrograph in view has both values yet");
      const named = facts.map(({ label, unit }) => live.chart.titled(label, unit));
      const { x, y, box } = canvas.axes(around(data.x, named[0]), around(data.y, named[1]));
      const { ctx } = canvas;
      ctx.strokeStyle = live.chart.css("--live-quiet");
      ctx.setLineDash([4, 3]);
      for (const [place, { key }] of facts.entries()) {
        for (const value of [0, 1].map((side) => this.limits.get(key, side)).filter(known)) {
          const at = place ? y(value) : x(value);
          if (place && at > box.top && at < box.bottom) line(ctx, box.left, at, box.right, at);
          if (!place && at > box.left && at < box.right) line(ctx, at, box.top, at, box.bottom);
        }
      }
      ctx.setLineDash([]);
      ctx.fillStyle = live.chart.css(`--live-${facts[1].key}`);
      const size = data.x.length > 2000 ? 1.6 : 2.4;
      const most = Math.max(...data.count);
      data.x.forEach((value, at) => {
        const point = { left: x(value), top: y(data.y[at]), id: data.id[at], at };
        // A spot that stands for many is darker.
        ctx.globalAlpha = most > 1 ? 0.35 + (0.65 * Math.log(data.count[at] + 1)) / Math.log(most + 1) : 0.75;
        canvas.dot(point.left, point.top, size);
        canvas.points.push(point);
      });
      ctx.globalAlpha = 1;
    }

    #describe(point) {
      const { data, facts } = this;
      if (!point) return write(this.readout, `${format.integer(data ? data.total : null)} micrographs`);
      const said = facts.map(({ label, unit, digits }, place) => {
        const value = (place ? data.y : data.x)[point.at];
        return `${label} ${format.fixed(value, digits)}${unit ? ` ${unit}` : ""}`;
      });
      const more = data.count[point.at] > 1 ? ` (${format.integer(data.count[point.at])} alike)` : "";
      write(this.readout, said.join(", ") + more);
    }
  }

  /** Astigmatism by size and direction; an axis has two ends, so every micrograph is drawn at both. */
  class Polar {
    constructor(root, { select }) {
      this.root = root;
      this.canvas = new Canvas(root.querySelector("[data-canvas]"));
      this.readout = root.querySelector("[data-readout]");
      this.canvas.element.addEventListener("click", (event) => {
        const point = this.canvas.hit(event);
        if (point) select(point.id);
      });
    }

    show(columns) {
      const rows = [];
      columns.series.astigmatism.forEach((value, row) => {
        if (value !== null && known(columns.angle[row])) rows.push(row);
      });
      this.root.hidden = rows.length === 0;
      if (this.root.hidden) return;
      this.newest = new Set(rows.slice(-50));
      Object.assign(this, { columns, rows });
      this.canvas.place.dataset.points = rows.length;
      this.canvas.show(() => this.#draw(), true);
      const middle = mean(columns, rows.slice(-50));
      const [size, angle] = [format.fixed(middle.size, 0), format.fixed(middle.angle, 0)];
      write(this.readout, `newest ${this.newest.size}: mean ${size} nm at ${angle}°`);
    }

    #draw() {
      const { canvas, columns, rows } = this;
      const { ctx, width, height } = canvas;
      const values = rows.map((row) => columns.series.astigmatism[row]);
      const most = Math.max(statistics.percentile([...values].sort((a, b) => a - b), 0.98) * 1.15, 1);
      const [midX, midY] = [width / 2, height / 2];
      const reach = Math.min(width, height) / 2 - 24;
      const radius = (size) => (Math.min(size, most) / most) * reach;
      ctx.strokeStyle = live.chart.faint();
      ctx.fillStyle = live.chart.ink();
      ctx.textBaseline = "middle";
      ctx.textAlign = "center";
      for (let degrees = 0; degrees < 360; degrees += 45) {
        const [left, top] = turn(degrees, reach);
        line(ctx, midX, midY, midX + left, midY + top);
        const [textLeft, textTop] = turn(degrees, reach + 13);
        ctx.fillText(`${degrees}°`, midX + textLeft, midY + textTop);
      }
      const rings = ticks({ min: 0, max: most }, 3).filter((ring) => ring > 0);
      for (const ring of rings) {
        ctx.beginPath();
        ctx.arc(midX, midY, radius(ring), 0, 2 * Math.PI);
        ctx.stroke();
      }
      const [old, fresh] = [live.chart.css("--live-quiet"), live.chart.css("--live-astigmatism")];
      for (const row of rows) {
        const newest = this.newest.has(row);
        ctx.fillStyle = newest ? fresh : old;
        ctx.globalAlpha = newest ? 0.95 : rows.length > 800 ? 0.18 : 0.4;
        for (const half of [0, 180]) {
          const [left, top] = turn(columns.angle[row] + half, radius(columns.series.astigmatism[row]));
          canvas.dot(midX + left, midY + top, newest ? 2.6 : 1.8);
          canvas.points.push({ left: midX + left, top: midY + top, id: columns.id[row] });
        }
      }
      ctx.globalAlpha = 1;
      ctx.fillStyle = live.chart.ink();
      ctx.textAlign = "left";
      for (const ring of rings) ctx.fillText(`${plain(ring)} nm`, midX + 4, midY - radius(ring) + 8);
    }
  }

  /** Right is 0°, up 90°. */
  const turn = (degrees, radius) => {
    const angle = (degrees * Math.PI) / 180;
    return [Math.cos(angle) * radius, -Math.sin(angle) * radius];
  };

  /** The mean of axes: directions that differ by 180° are the same. */
  function mean(columns, rows) {
    let [x, y] = [0, 0];
    for (const row of rows) {
      const twice = (2 * columns.angle[row] * Math.PI) / 180;
      x += columns.series.astigmatism[row] * Math.cos(twice);
      y += columns.series.astigmatism[row] * Math.sin(twice);
    }
    const angle = ((Math.atan2(y, x) * 90) / Math.PI + 180) % 180;
    return { size: Math.hypot(x, y) / Math.max(1, rows.length), angle };
  }

  /** Beam-shift groups coloured by the median of a quantity. */
  class Shifts {
    constructor(root, { series, fetchJSON, select }) {
      Object.assign(this, { root, series, fetchJSON });
      this.canvas = new Canvas(root.querySelector("[data-canvas]"));
      this.choice = root.querySelector("[data-quantity]");
      this.table = root.querySelector("tbody");
      this.scale = root.querySelector("[data-scale]");
      this.asked = new Asked(root, () => this.#ask(), 30000);
      this.choice.addEventListener("change", () => this.data && this.#show());
      this.canvas.element.addEventListener("click", (event) => {
        const point = this.canvas.hit(event);
        if (point) select(point.id);
      });
    }

    show(there, urgent) {
      this.root.hidden = !there;
      if (there) this.asked.changed(urgent);
    }

    async #ask() {
      const data = await this.fetchJSON({});
      if (!data || !data.rows.length) return;
      this.data = data;
      const keys = Object.keys(data.rows[0].medians);
      const chosen = this.choice.value || "ctf_resolution";
      const options = this.series.filter(({ key }) => keys.includes(key));
      this.choice.replaceChildren(...options.map(({ key, label }) => make("option", { value: key, text: label })));
      this.choice.value = keys.includes(chosen) ? chosen : keys[0];
      this.#show();
    }

    #show() {
      const { data } = this;
      const facts = this.series.find(({ key }) => key === this.choice.value);
      const span = live.colours.span(data.rows.map((row) => row.medians[facts.key]));
      this.canvas.place.dataset.groups = data.groups;
      this.canvas.show(() => this.#draw(facts, span));
      live.showScale(this.scale, span, facts);
      write(this.root.querySelector("[data-column]"), live.chart.titled(facts.label, facts.unit));
      this.table.replaceChildren(
        ...data.rows.slice(0, 30).map((row) =>
          make("tr", {}, [
            make("td", { text: format.integer(row.group + 1) }),
            make("td", { text: `${plain(row.x)}, ${plain(row.y)}` }),
            make("td", { text: format.integer(row.count) }),
            make("td", { text: format.fixed(row.medians[facts.key], facts.digits) }),
          ]),
        ),
      );
    }

    #draw(facts, span) {
      const { canvas, data } = this;
      const { shifts } = data;
      const { x, y } = canvas.axes(around(shifts.x, "Beam shift x"), around(shifts.y, "Beam shift y"), { same: true });
      const { ctx } = canvas;
      const share = new Map();
      for (const row of data.rows) {
        const value = row.medians[facts.key];
        if (span && value !== null) share.set(row.group, span.share(value));
      }
      shifts.x.forEach((value, at) => {
        const here = share.get(shifts.group[at]);
        ctx.fillStyle = here === undefined ? live.chart.css("--live-quiet") : live.colours.colour(here);
        const point = { left: x(value), top: y(shifts.y[at]), id: shifts.id[at] };
        canvas.dot(point.left, point.top, 2.2);
        canvas.points.push(point);
      });
      ctx.font = `600 ${live.chart.FONT}`;
      ctx.textAlign = "center";
      ctx.textBaseline = "bottom";
      ctx.fillStyle = live.chart.ink();
      if (data.rows.length <= 40) for (const row of data.rows) ctx.fillText(row.group + 1, x(row.x), y(row.y) - 9);
    }
  }

  /** A bar of the scale's colours with its ends: the same on every page. */
  live.showScale = (place, span, facts) => {
    place.hidden = !span;
    if (!span) return;
    const unit = facts.unit ? ` ${facts.unit}` : "";
    const bar = make("span", { className: "live-scale-bar" });
    bar.style.backgroundImage = live.colours.css;
    place.replaceChildren(
      make("span", { text: format.fixed(span.low, facts.digits) }),
      bar,
      make("span", { text: format.fixed(span.high, facts.digits) + unit }),
    );
  };

  /** Micrographs by hour, or by whatever span fits. */
  class Throughput {
    constructor(root) {
      this.root = root;
      this.place = root.querySelector("[data-plot]");
      this.readout = root.querySelector("[data-readout]");
    }

    show(block) {
      this.root.hidden = !block || block.counts.length < 2;
      if (!this.root.hidden) live.chart.whenNear(this.place, () => this.#show(block));
    }

    #show({ start, width, counts }) {
      const { axis, bars, css, fit, timeLabels, WHOLE } = live.chart;
      const per = width === 3600 ? "an hour" : width < 3600 ? `in ${width / 60} min` : `in ${width / 3600} h`;
      write(this.readout, `Micrographs ${per}, at most ${format.integer(Math.max(...counts))}`);
      const x = counts.map((_, at) => start + at * width);
      this.range = [start, start + counts.length * width];
      this.place.setAttribute("aria-label", `Micrographs ${per} over the session.`);
      if (this.plot && this.width === width) return this.plot.setData([x, counts]);
      if (this.plot) this.plot.destroy();
      this.width = width;
      this.plot = new uPlot(
        {
          width: this.place.clientWidth || 300,
          height: this.place.clientHeight || 200,
          padding: [8, 14, 0, 0],
          legend: { show: false },
          cursor: { show: false },
          tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), live.zone),
          scales: { x: { range: () => this.range }, y: { range: (_, __, max) => [0, Math.max(1, max) * 1.08] } },
          axes: [axis("Time", { values: timeLabels, space: 64, size: 42 }), axis("Micrographs", { size: 50, incrs: WHOLE })],
          series: [{}, bars(() => css("--live-count"))],
        },
        [x, counts],
        this.place,
      );
      if (this.observer) this.observer.disconnect();
      this.observer = fit(this.place, this.plot, () => this.place.clientHeight || 200);
    }

    redraw() {
      if (this.plot) this.plot.redraw(true, true);
    }
  }

  live.Canvas = Canvas;
  live.Pair = Pair;
  live.Polar = Polar;
  live.Shifts = Shifts;
  live.Throughput = Throughput;
  live.Asked = Asked;
})();
