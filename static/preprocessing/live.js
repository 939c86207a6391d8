/* The live page: puts the parts together and hands each what changed. */
(() => {
  "use strict";
  const live = window.EMhubLive;
  const { format, make, write, known } = live;
  const page = document.getElementById("live");
  const config = JSON.parse(document.getElementById("live-config").textContent);
  live.zone = config.zone;
  format.setZone(config.zone);

  const find = (selector) => page.querySelector(selector);
  const columns = (live.columns = new live.Columns(config.series.map((series) => series.key)));
  const limits = new live.Limits({
    address: config.limits,
    mayChange: config.may_change,
    changed() {
      charts.limitsChanged();
      pair.show(keys());
    },
  });
  limits.say = (text) => write(find("#live-limit-note"), text);
  limits.saved = () => poller.now();
  const run = new live.Run(find("#live-run"));
  const classes = new live.Classes(find("#live-classes"));
  const viewer = new live.Viewer(find("#live-viewer"), {
    address: (id) => config.micrograph.replace("/0/", `/${id}/`),
    changed: (id) => charts.mark(id),
    async around(number) {
      const block = await fetchJSON(config.range, { axis: "number", from: Math.max(1, number - AROUND), to: number + AROUND });
      if (block) charts.add(block);
    },
  });
  const select = (id) => viewer.select(id);
  const { series } = config;
  const charts = new live.Charts(find("#live-charts"), {
    series,
    columns,
    limits,
    select,
    closer: (query) => fetchJSON(config.range, query),
    reload: () => start(),
    viewed: () => pair.show(keys(), true),
  });
  const query = () => charts.query;
  const pair = new live.Pair(find("#live-pair"), { series, query, select, limits, fetchJSON: (asked) => fetchJSON(config.pair, asked) });
  const polar = new live.Polar(find("#live-polar"), { select });
  const shifts = new live.Shifts(find("#live-shifts"), { series, select, fetchJSON: (asked) => fetchJSON(config.shifts, asked) });
  const throughput = new live.Throughput(find("#live-throughput"));
  new MutationObserver(() => throughput.redraw()).observe(document.documentElement, { attributeFilter: ["data-bs-theme"] });
  // Who steps from micrograph to micrograph is brought so many to each side at once.
  const AROUND = 60;
  // So many more rows than at first, and the first choice is made anew.
  const GROWN = 6000;
  // ms: no sooner again, however many older exposures come in between.
  const RELOAD = 20000;
  let current = null; // The run as last told, null before the first.
  let changedAt = null;
  let lastConnection = null;
  let lastVerdict = null;
  let first = 0; // Rows of the first load.
  let loadedAt = 0;
  let anew = false;
  let paused = false;
  let held = { fresh: 0, touched: new Set(), histograms: null, throughput: null, shifts: false };

  const keys = () => series.map(({ key }) => key).filter((key) => columns.any(key));

  /** What a part of the page asks beside the poll; null where it could not be had: the poll says why. */
  async function fetchJSON(address, asked) {
    const parameters = new URLSearchParams(asked);
    if (current) parameters.set("run", current.id);
    try {
      const response = await fetch(`${address}?${parameters}`, { credentials: "same-origin", redirect: "manual" });
      if (!response.ok) throw new Error(`The server answered ${response.status}.`);
      return await response.json();
    } catch (error) {
      console.warn("Part of the page could not be read:", error);
      return null;
    }
  }

  /** Load everything again. */
  function start() {
    anew = true;
    poller.now(true);
  }

  function showState(state) {
    const line = find("#live-state");
    line.dataset.state = state.key;
    line.dataset.level = state.level;
    find("[data-state-icon]").className = `bi bi-${state.icon}`;
    write(find("[data-state-text]"), `${state.text}.`);
  }

  function ago(moment) {
    const seconds = Date.parse(moment) / 1000;
    return make("time", { datetime: moment, title: format.exact(seconds), "data-relative": "", text: format.ago(seconds) });
  }

  const ALERT_ICONS = { bad: "x-octagon-fill" };

  /** What needs somebody, as the page came with it (_alerts.html); said anew only where it is another. */
  function showAlerts(alerts) {
    const place = find("#live-alerts");
    const told = JSON.stringify(alerts.map(({ kind, since }) => [kind, since]));
    if (place.dataset.told === told) return;
    place.dataset.told = told;
    const lines = alerts.map(({ kind, level, text, since }) =>
      make("li", { "data-alert": kind, "data-level": level }, [
        make("i", { className: `bi bi-${ALERT_ICONS[level] || "exclamation-triangle-fill"}`, "aria-hidden": "true" }),
        make("span", {}, [
          text,
          " ",
          make("span", { className: "alerts-since" }, [ago(since)]),
        ]),
      ]),
    );
    place.replaceChildren(...(lines.length ? [make("ul", { className: "alerts-open", "aria-label": "Open alerts" }, lines)] : []));
    const tab = page.querySelector("[data-tab=alerts]");
    if (tab) write(tab, lines.length ? `Alerts (${lines.length})` : "Alerts");
  }

  function showCounters(counters) {
    for (const [name, value] of Object.entries(counters)) {
      const place = find(`[data-counter="${name}"]`);
      if (place) write(place, format.count(value));
      if (place && value >= 1e7) place.title = format.integer(value);
      const bar = find(`[data-bar="${name}"]`);
      if (bar) bar.value = counters.movies ? Math.min(1, value / counters.movies) : 0;
    }
    const behind = counters.movies - counters.micrographs;
    write(find("[data-note=movies]"), behind > 0 && counters.micrographs ? `${format.integer(behind)} not processed yet` : "");
    const each = counters.picked ? counters.particles / counters.picked : null;
    write(find("[data-note=particles]"), known(each) ? `${format.integer(Math.round(each))} per micrograph` : "");
  }

  /** A number with its unit in a lighter tone; unknown is a dash that says why. */
  function put(name, text, unit, why) {
    const place = find(`[data-verdict="${name}"]`);
    const said = text === null ? format.DASH : text;
    if (place.dataset.said === said + unit) return;
    place.dataset.said = said + unit;
    place.replaceChildren(said);
    if (text !== null && unit) place.append(unit === "%" ? "" : " ", make("span", { className: "live-unit", text: unit }));
    place.title = text === null ? why : "";
    place.classList.toggle("live-unknown", text === null);
  }

  function showVerdict(verdict) {
    lastVerdict = verdict;
    const { advice } = verdict;
    const place = find("#live-advice");
    place.dataset.advice = advice.key;
    place.dataset.level = advice.level;
    place.querySelector("i").className = `bi bi-${advice.icon}`;
    write(place.querySelector("strong"), advice.title);
    write(place.querySelector("[data-reason]"), advice.text);
    const rate = (value) => (known(value) ? format.integer(Math.round(value)) : null);
    put("rate_now", rate(verdict.rate_now), "/h", "Known once micrographs have come for five minutes.");
    write(find("[data-note=rate]"), known(verdict.rate_session) ? `${rate(verdict.rate_session)} over the session` : "");
    const share = verdict.judged ? (100 * verdict.usable) / verdict.judged : null;
    put("usable", known(share) ? format.fixed(share, share > 0 && share < 10 ? 1 : 0) : null, "%", "No micrograph could be judged by the limits yet.");
    write(
      find("[data-note=usable]"),
      verdict.judged ? `${format.integer(verdict.usable)} of ${format.integer(verdict.judged)}` : "",
    );
    put("projected", known(verdict.projected) ? format.integer(verdict.projected) : null, "", "Known while movies come and the booking goes on.");
    write(find("[data-note=projected]"), known(verdict.projected) ? "if it goes on like this" : "");
    const size = format.size(verdict.bytes);
    put("bytes", size && size[0], size ? size[1] : "", "No watcher has told the size of the data.");
    limits.tell(verdict.limits);
    tick();
  }

  /** What moves with the clock alone. */
  function tick() {
    const now = Date.now() / 1000;
    if (!lastVerdict) return;
    const last = lastVerdict.last_movie;
    put("last_movie", known(last) ? format.ago(last, now) : null, "", "No movie has come yet.");
    if (known(last)) find("[data-verdict=last_movie]").title = format.exact(last);
    const pipeline = current ? `pipeline ${format.ago(current.last_seen, now)}` : "";
    write(find("[data-note=last_movie]"), pipeline);
    if (current) find("[data-note=last_movie]").title = `The pipeline last wrote at ${format.exact(current.last_seen)}.`;
  }

  function pause(on) {
    paused = on;
    const button = find("[data-pause]");
    button.setAttribute("aria-pressed", String(on));
    if (!on) {
      if (held.histograms) draw(held.touched, held.histograms, held.throughput, held.shifts);
      held = { fresh: 0, touched: new Set(), histograms: null, throughput: null, shifts: false };
    }
    sayPaused();
  }

  function sayPaused() {
    const button = find("[data-pause]");
    button.classList.toggle("live-chip-on", paused);
    button.querySelector("i").className = `bi bi-${paused ? "play-fill" : "pause-fill"}`;
    const news = held.fresh ? `${format.integer(held.fresh)} new` : "nothing new";
    write(button.querySelector("span"), paused ? `Paused, ${news}: go on` : "Pause");
  }

  function draw(touched, histograms, rates, beamShifts) {
    charts.show(histograms);
    if (current) viewer.update(current, columns, touched);
    find("#live-charts").hidden = find("#live-panels").hidden = columns.length === 0;
    pair.show(keys());
    polar.show(columns);
    throughput.show(rates);
    shifts.show(beamShifts);
  }

  function showRuns(runs) {
    const choice = find("#live-runs");
    choice.hidden = runs.length < 2;
    if (choice.hidden) return;
    const list = choice.querySelector("[data-runs]");
    const links = runs.map((each) => {
      const link = live.make("a", { className: "nav-link", href: `?run=${each.id}`, text: each.name });
      link.append(" ", live.make("span", { className: "live-unit", text: format.integer(each.micrographs) }));
      link.title = `${each.status}, ${format.integer(each.micrographs)} micrographs`;
      if (current && each.id === current.id) {
        link.classList.add("active");
        link.setAttribute("aria-current", "true");
      }
      return live.make("li", { className: "nav-item" }, [link]);
    });
    const same = [...list.children].map((item) => item.outerHTML).join("") === links.map((item) => item.outerHTML).join("");
    if (!same) list.replaceChildren(...links);
  }

  function accept(data) {
    showState(data.state);
    showAlerts(data.alerts);
    showCounters(data.counters);
    if (current && data.run && current.id !== data.run.id) run.clear();
    current = data.run && { ...data.run, over: !data.session.running || known(data.run.finished) };
    showVerdict(data.verdict);
    showRuns(data.runs);
    find("#live-empty").hidden = columns.length > 0 || data.counters.micrographs > 0;
    find("#live-no-run").hidden = data.run !== null;
    find("#live-no-micrograph").hidden = data.run === null;
    if (data.run) {
      run.show(data.run, data.parameters);
      run.say(data.events);
      if (data.micrographs) take(data);
      if (data.classes) classes.show(data.classes);
    }
    changedAt = data.now;
    page.dataset.revision = data.run ? data.run.revision : 0;
  }

  function take(data) {
    anew = false;
    const { touched, fresh } = columns.merge(data.micrographs);
    if (data.micrographs.reset) [first, loadedAt] = [columns.length, Date.now()];
    if (paused) {
      held.fresh += Math.max(0, fresh);
      for (const id of touched) held.touched.add(id);
      Object.assign(held, { histograms: data.histograms, throughput: data.throughput, shifts: data.beam_shifts });
      sayPaused();
    } else draw(touched, data.histograms, data.throughput, data.beam_shifts);
    if ((columns.stale || columns.length > first + GROWN) && Date.now() - loadedAt > RELOAD) start();
  }

  const SAID = {
    live: () => (changedAt ? `Live, updated ${format.time(changedAt, true)}` : "Live"),
    back: () => "Connected again",
    lost: () => `Connection lost, trying again; last update ${format.clock(poller.heardAt)}`,
    login: () => "You are logged out.",
    gone: () => "This session or run is not there any more, or you may no longer see it.",
  };

  function connection(kind) {
    let said = kind;
    if (kind === "live" && lastConnection === "lost") {
      connection.backUntil = Date.now() + 5000;
    }
    if (kind === "live" && Date.now() < (connection.backUntil || 0)) said = "back";
    lastConnection = kind;
    const line = find("#live-connection");
    line.dataset.connection = said;
    write(line.querySelector("span"), SAID[said]());
    const link = line.querySelector("a");
    link.hidden = said !== "login";
    link.href = config.login;
  }

  const poller = new live.Poller({
    address() {
      const query = new URLSearchParams();
      const id = current ? current.id : config.run;
      if (id !== null) query.set("run", id);
      if (current && !anew) query.set("after", current.revision);
      else if (charts.wanted) query.set("axis", charts.wanted);
      return `${config.data}?${query}`;
    },
    accept,
    status: connection,
  });
  find("[data-pause]").addEventListener("click", () => pause(!paused));
  poller.start();
  setInterval(() => document.visibilityState === "visible" && tick(), 10000);
})();
