/* The browser of micrographs: what the address chooses, a page of tiles, one of them whole, verdicts by hand. */
(() => {
  "use strict";
  const root = document.getElementById("browse");
  if (!root) return;
  const config = JSON.parse(document.getElementById("browse-config").textContent);
  const { format } = window.EMhubLive;
  const PAGE = 60;
  const FRESH = 10000;
  const TOAST = 12000;
  const MARKS = {
    accepted: ["bi-check-circle-fill", "accepted by hand"],
    rejected: ["bi-x-circle-fill", "rejected by hand"],
    pipeline: ["bi-x-circle", "rejected by the pipeline"],
    unusable: ["bi-exclamation-triangle", "not usable by the limits"],
    usable: null,
    unknown: null,
  };
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const form = document.getElementById("browse-filter");
  const state = { offset: 0, total: 0, revision: null, rows: [], id: null, detail: null, act: null, wanted: 0 };

  /* -- The address is the choice ------------------------------------------------------------------------- */
  function query(more = {}) {
    const chosen = new URLSearchParams();
    for (const [name, value] of new URLSearchParams(location.search)) if (name !== "at" && value) chosen.set(name, value);
    for (const [name, value] of Object.entries(more)) chosen.set(name, value);
    return chosen;
  }

  function fillForm() {
    const chosen = query();
    for (const field of form.elements) {
      if (!field.name) continue;
      const value = chosen.get(field.name);
      if (field.name === "run" && value === null) continue;
      field.value = value ?? (field.tagName === "SELECT" ? field.options[0].value : "");
    }
    const ranges = config.measures.some(({ name }) => chosen.has(`${name}_min`) || chosen.has(`${name}_max`));
    part("clear").hidden = !ranges && !["show", "sort", "grid_square", "foil_hole"].some((name) => chosen.has(name));
    document.getElementById("browse-ranges").querySelector("summary").classList.toggle("active", ranges);
  }

  function readForm() {
    const chosen = new URLSearchParams();
    for (const field of form.elements) {
      const usual = field.tagName === "SELECT" && field.name !== "run" && field.selectedIndex === 0;
      if (field.name && field.value.trim() && !usual) chosen.set(field.name, field.value.trim());
    }
    return chosen;
  }

  /* -- Asking the server --------------------------------------------------------------------------------- */
  function trouble(text) {
    const box = part("trouble");
    box.hidden = !text;
    box.textContent = text || "";
  }

  async function ask(url, options = {}) {
    const response = await fetch(url, { redirect: "manual", headers: { Accept: "application/json" }, ...options });
    if (response.type === "opaqueredirect" || response.status === 401) {
      location.assign(config.login);
      throw new Error("You are logged out.");
    }
    const body = await response.json().catch(() => null);
    if (!response.ok) {
      const said = body && (body.detail || body.text || Object.entries(body).map(([name, why]) => `${name}: ${[].concat(why).join(" ")}`).join(" "));
      throw new Error(said || `The server answered ${response.status}.`);
    }
    return body;
  }

  async function load({ keep = false } = {}) {
    const wanted = ++state.wanted;
    root.setAttribute("aria-busy", "true");
    try {
      const data = await ask(`${config.data}?${query({ offset: state.offset, limit: PAGE })}`);
      if (wanted !== state.wanted) return;
      trouble("");
      state.revision = data.revision;
      state.total = data.total;
      state.rows = data.rows;
      part("fresh").hidden = true;
      showTiles(data);
      showActs(data.acts);
      const ids = data.rows.map((row) => row.id);
      if (!keep && ids.length && !ids.includes(state.id)) choose(ids[0], { quiet: true });
      else if (state.id !== null) choose(state.id, { quiet: true, anew: true });
      if (!data.total) part("one").hidden = true;
    } catch (error) {
      if (wanted === state.wanted) trouble(`The micrographs could not be read. ${error.message}`);
    } finally {
      if (wanted === state.wanted) root.removeAttribute("aria-busy");
    }
  }

  /** While the session runs: say how many came, without moving what is being looked at. */
  async function fresh() {
    if (document.visibilityState !== "visible" || state.revision === null) return;
    try {
      const data = await ask(`${config.data}?${query({ offset: 0, limit: 1 })}`);
      if (data.revision === state.revision) return;
      const more = data.total - state.total;
      const button = part("fresh");
      button.hidden = false;
      button.textContent = more > 0 ? `${format.integer(more)} new: show` : "Something changed: show";
    } catch {
      // Said when the reader asks for something; the next look may do better.
    }
  }

  /* -- Tiles --------------------------------------------------------------------------------------------- */
  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function mark(kind) {
    const found = MARKS[kind];
    return found ? [element("i", { class: `bi ${found[0]} browse-mark`, "aria-hidden": "true" }), element("span", { class: "visually-hidden" }, `, ${found[1]}`)] : [];
  }

  function tile(row, { small = false } = {}) {
    const sort = (query().get("sort") || "-number").replace("-", "");
    const measure = config.measures.find(({ name }) => name === sort) || config.measures.find(({ name }) => name === "ctf_resolution") || config.measures[0];
    const value = measure && row.values ? row.values[measure.name] : null;
    const picture = row.picture
      ? element("img", { src: row.picture, alt: "", loading: "lazy", decoding: "async" })
      : element("span", { class: "browse-none" });
    const line = element("span", { class: "browse-line" }, element("span", {}, format.integer(row.number)));
    if (!small && value !== null && value !== undefined) line.append(element("span", {}, `${format.fixed(value, measure.digits)}${measure.unit && measure.unit !== "relative" ? ` ${measure.unit}` : ""}`));
    const made = element("button", { type: "button", class: "browse-tile", "data-id": row.id, "data-state": row.state, title: row.name || `Micrograph ${row.number}` }, picture, line, ...mark(row.state));
    if (row.id === state.id && !small) made.setAttribute("aria-current", "true");
    return made;
  }

  function showTiles(data) {
    part("tiles").replaceChildren(...data.rows.map((row) => tile(row)));
    part("empty").hidden = data.total > 0;
    const all = data.words === "all";
    part("count").textContent = all
      ? `${format.integer(data.of)} micrographs`
      : `${format.integer(data.total)} of ${format.integer(data.of)} micrographs: ${data.words}`;
    for (const button of root.querySelectorAll("[data-all]")) button.disabled = data.total === 0;
    const pages = Math.ceil(data.total / PAGE);
    part("pages").hidden = pages < 2;
    const page = Math.floor(state.offset / PAGE);
    part("page").textContent = `Page ${format.integer(page + 1)} of ${format.integer(pages)}`;
    root.querySelector('[data-page="-1"]').disabled = page === 0;
    root.querySelector('[data-page="1"]').disabled = page + 1 >= pages;
  }

  function current() {
    for (const each of part("tiles").querySelectorAll(".browse-tile")) {
      if (Number(each.dataset.id) === state.id) each.setAttribute("aria-current", "true");
      else each.removeAttribute("aria-current");
    }
  }

  /* -- One of them --------------------------------------------------------------------------------------- */
  async function choose(id, { quiet = false, anew = false } = {}) {
    state.id = id;
    current();
    part("one").hidden = false;
    if (!quiet) history.replaceState(null, "", `?${query({ at: id })}`);
    if (state.detail && state.detail.id === id && !anew) return;
    try {
      const detail = await ask(`${config.detail.replace("/0/", `/${id}/`)}?${query()}`);
      if (state.id !== id) return;
      state.detail = detail;
      show(detail);
    } catch (error) {
      if (state.id === id) trouble(`This micrograph could not be read. ${error.message}`);
    }
  }

  function show(detail) {
    trouble("");
    part("number").textContent = format.integer(detail.number);
    part("name").textContent = detail.name.split("/").pop();
    part("name").title = detail.name;
    const frame = part("picture");
    for (const old of frame.querySelectorAll("img")) old.remove();
    part("no-picture").hidden = Boolean(detail.picture);
    if (detail.picture) {
      const image = element("img", { src: detail.picture, alt: `Micrograph ${detail.name}` });
      image.addEventListener("load", () => {
        if (image.naturalWidth) frame.style.aspectRatio = `${image.naturalWidth} / ${image.naturalHeight}`;
        drawPicks();
      });
      frame.prepend(image);
    }
    part("psd-figure").hidden = !detail.psd;
    part("psd").replaceChildren(...(detail.psd ? [element("img", { src: detail.psd, alt: `Power spectrum of ${detail.name}` })] : []));
    const facts = detail.facts.map((fact) => ({ ...fact, text: fact.at ? format.clock(fact.at) : fact.text }));
    part("values").replaceChildren(
      ...[...detail.values, ...facts].map(({ key, label, text, unit }) => {
        const value = element("dd", { "data-value": key }, text === null ? format.DASH : String(text));
        if (text === null) value.title = "Not known: the pipeline has not sent it for this micrograph.";
        else if (unit) value.append(unit === "°" ? "" : "\u00a0", element("span", { class: "unit" }, unit));
        return element("div", {}, element("dt", {}, label), value);
      }),
    );
    showVerdict(detail);
    part("nearby-box").hidden = detail.nearby.length === 0;
    part("nearby").replaceChildren(...detail.nearby.map((row) => tile(row, { small: true })));
    picks(detail);
  }

  function showVerdict({ verdict, state: kind }) {
    const box = part("verdict");
    const words = { usable: "Usable by the limits.", unusable: "Not usable by the limits.", pipeline: "Rejected by the pipeline.", unknown: "Not judged: nothing that has a limit is known yet.", accepted: "Accepted by hand.", rejected: "Rejected by hand." };
    box.textContent = words[kind];
    if (verdict) {
      const done = verdict.verdict === "accepted" ? "Accepted" : "Rejected";
      box.textContent = `${done} by ${verdict.by || "somebody who is gone"}${verdict.at ? `, ${format.clock(verdict.at)}` : ""}${verdict.reason ? `: ${verdict.reason}` : ""}.`;
    }
    for (const button of root.querySelectorAll("[data-verdict]")) {
      button.setAttribute("aria-pressed", String(button.dataset.verdict === (verdict ? verdict.verdict : "")));
    }
  }

  /* -- Picks over the picture ---------------------------------------------------------------------------- */
  async function picks(detail) {
    const box = part("picks-switch");
    box.hidden = !detail.picks;
    detail.points = null;
    drawPicks();
    if (!detail.picks) return;
    try {
      const found = await ask(detail.picks);
      detail.points = found.coordinates || [];
      detail.width = found.width || config.run.width;
      detail.height = found.height || config.run.height;
      part("picks-count").textContent = `${format.integer(detail.points.length)} pick${detail.points.length === 1 ? "" : "s"}`;
      if (state.detail === detail) drawPicks();
    } catch (error) {
      part("picks-count").textContent = "Picks could not be read";
      part("picks-count").title = error.message;
    }
  }

  /** Circles of the particle's diameter where it is known, at the picks' places in micrograph pixels. */
  function drawPicks() {
    const canvas = part("picks");
    const { width, height } = canvas.getBoundingClientRect();
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const detail = state.detail;
    const on = part("picks-switch").querySelector("input").checked;
    if (!detail || !detail.points || !on || !detail.width || !detail.height) return;
    const draw = canvas.getContext("2d");
    const across = canvas.width / detail.width;
    const down = canvas.height / detail.height;
    const { pixel_size: pixel, particle_diameter: diameter } = config.run;
    const radius = pixel && diameter ? (diameter / pixel / 2) * across : 6 * scale;
    draw.lineWidth = 1.5 * scale;
    for (const [stroke, extra] of [["rgba(0, 0, 0, 0.55)", 1.5 * scale], ["#f0e442", 0]]) {
      draw.strokeStyle = stroke;
      draw.lineWidth = 1.5 * scale + extra;
      draw.beginPath();
      for (const [x, y] of detail.points) {
        draw.moveTo(x * across + radius, y * down);
        draw.arc(x * across, y * down, radius, 0, 2 * Math.PI);
      }
      draw.stroke();
    }
  }

  /* -- Going on ------------------------------------------------------------------------------------------ */
  async function step(by, kind = "any") {
    if (state.id === null) return;
    try {
      const { id } = await ask(`${config.next}?${query({ id: state.id, step: by, kind })}`);
      if (id === null) {
        const which = kind === "any" ? "" : `${kind} `;
        return toast(by > 0 ? `There is no ${which}one after this.` : `There is no ${which}one before this.`);
      }
      if (!state.rows.some((row) => row.id === id)) await pageOf(id, by);
      choose(id);
    } catch (error) {
      trouble(`The next micrograph could not be found. ${error.message}`);
    }
  }

  /** The page of tiles moves along with the one that is looked at. */
  async function pageOf(id, by) {
    state.id = id;
    for (let tries = 0; tries < 2; tries++) {
      const offset = Math.max(0, state.offset + by * PAGE);
      if (offset >= state.total || offset === state.offset) return;
      state.offset = offset;
      await load({ keep: true });
      if (state.rows.some((row) => row.id === id)) return;
    }
  }

  /* -- Verdicts ------------------------------------------------------------------------------------------ */
  function token() {
    return JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"];
  }

  async function post(url, fields) {
    return ask(url, { method: "POST", body: new URLSearchParams(fields), headers: { Accept: "application/json", "X-CSRFToken": token() } });
  }

  async function judge(fields) {
    try {
      const answer = await post(`${config.verdict}?${query()}`, fields);
      toast(answer.text, answer.act);
      await load({ keep: true });
    } catch (error) {
      trouble(`Nothing was changed. ${error.message}`);
    }
  }

  function judgeOne(verdict) {
    if (!config.may_judge || state.id === null) return;
    const reason = document.getElementById("browse-reason").value;
    judge({ verdict, reason: verdict === "rejected" ? reason : "", ids: state.id });
  }

  function judgeAll(verdict) {
    const dialog = part("ask");
    const rejects = verdict === "rejected";
    const count = state.total;
    part("ask-title").textContent = `${rejects ? "Reject" : "Accept"} ${format.integer(count)} micrograph${count === 1 ? "" : "s"}?`;
    part("ask-text").textContent = `Shown are ${part("count").textContent}. It counts for every run of the session, and can be undone.`;
    part("ask-reason").hidden = !rejects;
    part("ask-yes").textContent = `${rejects ? "Reject" : "Accept"} ${format.integer(count)}`;
    dialog.returnValue = "";
    dialog.onclose = () => {
      if (dialog.returnValue !== "yes") return;
      const reason = rejects ? part("ask-reason").querySelector("input").value : "";
      judge({ verdict, reason, all: 1, count });
    };
    dialog.showModal();
  }

  async function undo(act) {
    try {
      const answer = await post(config.undo.replace("/0/", `/${act}/`), {});
      toast(answer.text);
      await load({ keep: true });
    } catch (error) {
      trouble(error.message);
    }
  }

  function toast(text, act = null) {
    const box = part("toast");
    box.hidden = false;
    box.firstElementChild.textContent = text;
    state.act = act;
    part("undo").hidden = !act;
    clearTimeout(toast.timer);
    toast.timer = setTimeout(() => (box.hidden = true), TOAST);
  }

  function showActs(acts) {
    part("history").hidden = acts.length === 0;
    part("acts").replaceChildren(
      ...acts.map((act) => {
        const row = element("li", {}, `${act.text}${act.reason ? ` (${act.reason})` : ""}, ${act.by}, ${format.clock(act.at)} `);
        if (act.undone) row.append(element("span", { class: "text-body-secondary" }, `undone by ${act.undone}`));
        else if (config.may_judge) row.append(element("button", { type: "button", class: "btn btn-link btn-sm p-0", "data-undo": act.id }, "Undo"));
        return row;
      }),
    );
  }

  /* -- What people do ------------------------------------------------------------------------------------ */
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = readForm();
    if (Number(chosen.get("run") || config.run.id) !== config.run.id) return location.assign(`?${chosen}`);
    history.pushState(null, "", `?${chosen}`);
    document.getElementById("browse-ranges").open = false;
    begin();
  });
  form.addEventListener("change", (event) => event.target.matches("select") && form.requestSubmit());
  window.addEventListener("popstate", () => begin());
  window.addEventListener("resize", drawPicks);
  part("fresh").addEventListener("click", () => {
    state.offset = 0;
    load();
  });
  part("picks-switch").addEventListener("change", drawPicks);
  part("undo").addEventListener("click", () => state.act && undo(state.act));
  root.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { id, step: by, kind, page, all, undo: act } = button.dataset;
    if (id) choose(Number(id));
    else if (by) step(Number(by), kind);
    else if (page) {
      state.offset = Math.max(0, state.offset + Number(page) * PAGE);
      load();
    } else if (all) judgeAll(all);
    else if (act) undo(Number(act));
    else if (button.dataset.verdict !== undefined) judgeOne(button.dataset.verdict);
  });
  document.addEventListener("keydown", (event) => {
    const busy = event.target.closest("input, select, textarea, dialog, summary, .dropdown-menu");
    if (busy || event.altKey || event.ctrlKey || event.metaKey) return;
    const keys = {
      ArrowLeft: () => step(-1),
      ArrowRight: () => step(1),
      g: () => step(1, "good"),
      b: () => step(1, "bad"),
      a: () => judgeOne("accepted"),
      r: () => judgeOne("rejected"),
      u: () => judgeOne(""),
      p: () => part("picks-switch").querySelector("input").click(),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });

  function begin() {
    state.offset = 0;
    fillForm();
    const at = Number(new URLSearchParams(location.search).get("at"));
    state.id = at || null;
    load({ keep: Boolean(at) });
  }
  begin();
  if (config.running) setInterval(fresh, FRESH);
})();
