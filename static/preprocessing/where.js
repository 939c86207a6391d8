/* The map of the grid: squares, and the foil holes of one, coloured by a quantity's median. */
(() => {
  "use strict";
  const live = window.EMhubLive;
  const { format, make, write, known } = live;
  const page = document.getElementById("where");
  const config = JSON.parse(document.getElementById("where-config").textContent);
  const EVERY = 10000;
  const find = (selector) => page.querySelector(selector);
  const choice = find("[data-quantity]");
  const OWN = [
    { key: "usable", label: "Usable share", unit: "%", digits: 0 },
    { key: "count", label: "Micrographs", unit: "", digits: 0 },
  ];
  let places = null;
  let square = new URLSearchParams(location.search).get("square");
  let sort = { by: "count", down: true };
  let marked = null;
  let etag = null;

  const canvas = new live.Canvas(find("[data-canvas]"));
  const facts = () => [...config.series, ...OWN].find(({ key }) => key === choice.value);
  const share = (at) => (places.judged[at] ? (100 * places.usable[at]) / places.judged[at] : null);

  function value(key, at) {
    if (key === "usable") return share(at);
    if (key === "count") return places.count[at];
    return places.medians[key][at];
  }

  function said(at) {
    const { key, label, unit, digits } = facts();
    const mean = key === "count" || key === "usable" ? "" : `median ${label} ${format.fixed(value(key, at), digits)} ${unit}, `;
    const good = share(at) === null ? "" : `, ${format.fixed(share(at), 0)}% usable`;
    return `${places.name[at]}: ${mean}${format.integer(places.count[at])} micrographs${good}`;
  }

  /** The browser of micrographs with those of a place, where this site has one. */
  function address(at) {
    if (!config.micrographs) return null;
    const query = new URLSearchParams(
      square === null ? { grid_square: places.name[at] } : { grid_square: square, foil_hole: places.name[at] },
    );
    if (config.run) query.set("run", config.run);
    return `${config.micrographs}?${query}`;
  }

  function draw() {
    const { key, label, unit } = facts();
    const values = places.name.map((_, at) => value(key, at));
    const span = live.colours.span(values);
    const placed = places.name.map((_, at) => at).filter((at) => known(places.x[at]) && known(places.y[at]));
    find(".where-canvas").hidden = placed.length === 0;
    find(".where-parts").dataset.map = String(placed.length > 0);
    live.showScale(find("[data-scale]"), span, { ...facts(), unit });
    write(find("[data-column]"), key === "count" || key === "usable" || !unit ? "" : `(${unit})`);
    find("[data-column]").title = label;
    if (placed.length) canvas.show(() => paint(placed, values, span));
    table(values, span);
  }

  function paint(placed, values, span) {
    const room = (list) => {
      const [low, high] = [Math.min(...list), Math.max(...list)];
      const more = (high - low) * 0.07 || 5;
      return { min: low - more, max: high + more };
    };
    const across = { ...room(placed.map((at) => places.x[at])), label: "Stage x (µm)" };
    const up = { ...room(placed.map((at) => places.y[at])), label: "Stage y (µm)" };
    const { x, y, box } = canvas.axes(across, up, { same: true });
    const { ctx } = canvas;
    // As large as neighbours leave room for.
    const area = ((box.right - box.left) * (box.bottom - box.top)) / Math.max(placed.length, 12);
    const size = Math.min(34, Math.max(6, Math.sqrt(area) * 0.42));
    for (const at of placed) {
      const [left, top] = [x(places.x[at]), y(places.y[at])];
      const here = values[at] === null || !span ? null : span.share(values[at]);
      ctx.fillStyle = here === null ? live.chart.css("--live-faint") : live.colours.colour(here);
      ctx.strokeStyle = at === marked ? live.chart.ink() : live.chart.css("--bs-border-color");
      ctx.lineWidth = at === marked ? 2.5 : 1;
      ctx.beginPath();
      if (square === null) ctx.rect(left - size / 2, top - size / 2, size, size);
      else ctx.arc(left, top, size / 2, 0, 2 * Math.PI);
      ctx.fill();
      ctx.stroke();
      if (size >= 24 && placed.length <= 80) {
        ctx.fillStyle = here === null ? live.chart.ink() : live.colours.inkOn(here);
        ctx.textAlign = "center";
        ctx.textBaseline = "middle";
        ctx.font = `10px ${live.chart.FONT.split(" ").slice(1).join(" ")}`;
        ctx.fillText(short(values[at]), left, top);
      }
      canvas.points.push({ left, top, at });
    }
    ctx.font = live.chart.FONT;
  }

  const short = (number) => (number === null ? "–" : number >= 1000 ? `${Math.round(number / 100) / 10}k` : format.fixed(number, facts().digits));

  function table(values, span) {
    const order = places.name.map((_, at) => at);
    const of = { count: (at) => places.count[at], usable: share, median: (at) => values[at] }[sort.by];
    order.sort((a, b) => {
      const by = of ? (of(a) ?? -Infinity) - (of(b) ?? -Infinity) : places.name[a].localeCompare(places.name[b], "en", { numeric: true });
      return (sort.down ? -by : by) || a - b;
    });
    for (const button of page.querySelectorAll("[data-sort]")) {
      const own = button.dataset.sort === sort.by;
      button.closest("th").setAttribute("aria-sort", own ? (sort.down ? "descending" : "ascending") : "none");
    }
    const { key, digits } = facts();
    const own = key === "count" || key === "usable";
    find("tbody").replaceChildren(
      ...order.map((at) => {
        const swatch = make("i", { className: "where-swatch", "aria-hidden": "true" });
        if (span && values[at] !== null) swatch.style.background = live.colours.colour(span.share(values[at]));
        const name =
          square === null
            ? make("button", { type: "button", className: "btn btn-link", text: places.name[at], "data-open": at, title: "Its foil holes" })
            : make("span", { text: places.name[at] });
        const link = address(at);
        const row = make("tr", { "data-place": places.name[at] }, [
          make("td", {}, [swatch, name]),
          make("td", { text: format.integer(places.count[at]) }),
          make("td", { text: share(at) === null ? format.DASH : `${format.fixed(share(at), 0)}%` }),
          make("td", { text: own ? "" : format.fixed(values[at], digits) }),
          make("td", {}, link ? [make("a", { href: link, title: "Its micrographs" }, [make("i", { className: "bi bi-images", "aria-hidden": "true" }), make("span", { className: "visually-hidden", text: "Micrographs" })])] : []),
        ]);
        row.addEventListener("mouseenter", () => point(at));
        return row;
      }),
    );
  }

  function point(at) {
    marked = at;
    write(find("[data-readout]"), at === null ? hint() : said(at));
    if (!find(".where-canvas").hidden) canvas.paint();
  }

  const hint = () => (square === null ? "Click a square for its foil holes." : "Click a foil hole for its micrographs.");

  function show() {
    const there = [...config.series.filter(({ key }) => places.keys.includes(key)), ...OWN];
    const chosen = choice.value || (places.keys.includes("ctf_resolution") ? "ctf_resolution" : there[0].key);
    if ([...choice.options].map((option) => option.value).join() !== there.map(({ key }) => key).join()) {
      choice.replaceChildren(...there.map(({ key, label }) => make("option", { value: key, text: label })));
      choice.value = there.some(({ key }) => key === chosen) ? chosen : there[0].key;
    }
    const none = places.name.length === 0;
    find("#where-map").hidden = none && square === null;
    find("#where-empty").hidden = !none || square !== null;
    const kind = square === null ? "grid square" : "foil hole";
    write(find("#where-title"), square === null ? "Grid squares" : `Foil holes of grid square ${square}`);
    write(find("[data-kind]"), square === null ? "Grid square" : "Foil hole");
    find("[data-back]").hidden = square === null;
    const total = places.count.reduce((sum, count) => sum + count, 0);
    const many = (count, word) => `${format.integer(count)} ${word}${count === 1 ? "" : "s"}`;
    write(
      find("#where-sentence"),
      none ? `No ${kind} is known yet.` : `${many(total, "micrograph")} on ${many(places.total, kind)}${square === null ? "" : ` of ${square}`}.`,
    );
    const notes = [];
    if (places.unplaced) notes.push(`of ${many(places.unplaced, "micrograph")} no ${kind} is known`);
    if (places.total > places.name.length) notes.push(`the ${format.integer(places.name.length)} with most micrographs are shown`);
    if (!none && !places.x.some(known)) notes.push("no stage position is known, so there is a list and no map");
    const text = notes.join("; ");
    write(find("[data-note]"), text && `${text[0].toUpperCase()}${text.slice(1)}.`);
    if (!none) draw();
    if (marked === null) write(find("[data-readout]"), none ? "" : hint());
  }

  async function load() {
    clearTimeout(timer);
    const query = new URLSearchParams();
    if (config.run) query.set("run", config.run);
    if (square !== null) query.set("square", square);
    try {
      const headers = etag ? { "If-None-Match": etag } : {};
      const response = await fetch(`${config.data}?${query}`, { headers, cache: "no-store", credentials: "same-origin", redirect: "manual" });
      if (response.type === "opaqueredirect") return location.assign(config.login);
      if (response.status === 404) return write(find("#where-sentence"), "No pipeline has reported on this session yet.");
      if (response.status !== 304) {
        if (!response.ok) throw new Error(`The server answered ${response.status}.`);
        const data = await response.json();
        etag = response.headers.get("ETag");
        places = data.places;
        show();
      }
    } catch (error) {
      console.warn("The map could not be read:", error);
    }
    timer = setTimeout(() => document.visibilityState === "visible" && load(), EVERY);
  }

  /** Another square, or null for all of them; the address follows, so that Back goes back. */
  function open(name, push = true) {
    square = name;
    etag = marked = null;
    const query = new URLSearchParams(location.search);
    if (name === null) query.delete("square");
    else query.set("square", name);
    if (push) history.pushState({}, "", `?${query}`);
    load();
  }

  let timer = null;
  choice.addEventListener("change", () => places && draw());
  find("[data-back]").addEventListener("click", () => open(null));
  find("tbody").addEventListener("click", (event) => {
    const button = event.target.closest("[data-open]");
    if (button) open(places.name[button.dataset.open]);
  });
  for (const button of page.querySelectorAll("[data-sort]")) {
    button.addEventListener("click", () => {
      const by = button.dataset.sort;
      sort = { by, down: sort.by === by ? !sort.down : by !== "name" };
      draw();
    });
  }
  canvas.element.addEventListener("mousemove", (event) => {
    const hit = canvas.hit(event, 18);
    if ((hit ? hit.at : null) !== marked) point(hit ? hit.at : null);
    canvas.element.style.cursor = hit && (square === null || config.micrographs) ? "pointer" : "";
  });
  canvas.element.addEventListener("mouseleave", () => point(null));
  canvas.element.addEventListener("click", (event) => {
    const hit = canvas.hit(event, 18);
    if (!hit) return;
    if (square === null) open(places.name[hit.at]);
    else if (address(hit.at)) location.assign(address(hit.at));
  });
  window.addEventListener("popstate", () => open(new URLSearchParams(location.search).get("square"), false));
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && load());
  window.addEventListener("beforeprint", () => canvas.draw && canvas.paint());
  load();
})();
