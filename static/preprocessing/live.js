/* The live page: puts the parts together and hands each what changed. */
(() => {
  "use strict";
  const live = window.EMhubLive;
  const { format, write, known, statistics } = live;
  const page = document.getElementById("live");
  const config = JSON.parse(document.getElementById("live-config").textContent);
  live.zone = config.zone;
  format.setZone(config.zone);

  const find = (selector) => page.querySelector(selector);
  const columns = new live.Columns(config.series.map((series) => series.key));
  const run = new live.Run(find("#live-run"));
  const classes = new live.Classes(find("#live-classes"));
  const viewer = new live.Viewer(find("#live-viewer"), {
    address: (id) => config.micrograph.replace("/0/", `/${id}/`),
    changed: (id) => charts.mark(id),
  });
  const charts = new live.Charts(find("#live-charts"), config.series, (row) => viewer.select(row));
  let current = null; // The run as last told, null before the first.
  let changedAt = null;
  let lastConnection = null;

  function showState(state) {
    const line = find("#live-state");
    line.dataset.state = state.key;
    line.dataset.level = state.level;
    find("[data-state-icon]").className = `bi bi-${state.icon}`;
    write(find("[data-state-text]"), state.text);
  }

  function showCounters(counters) {
    for (const [name, value] of Object.entries(counters)) write(find(`[data-counter="${name}"]`), format.integer(value));
    const each = counters.picked ? counters.particles / counters.picked : null;
    write(find("[data-counter-note=particles]"), known(each) ? `${format.integer(Math.round(each))} per micrograph` : "");
  }

  /** What moves with the clock alone. */
  function tick() {
    const now = Date.now() / 1000;
    const seen = find("[data-counter=last_seen]");
    if (current) {
      write(seen, format.ago(current.last_seen, now));
      seen.title = `The pipeline last wrote at ${format.exact(current.last_seen)}.`;
    }
    const over = !current || current.over;
    const times = columns.id.map((_, row) => columns.time(row));
    const rate = statistics.ratePerHour(times, now, over);
    const shown = find("[data-counter=rate]");
    write(shown, known(rate) ? format.integer(Math.round(rate)) : format.DASH);
    shown.title = known(rate) ? "Micrographs per hour." : "Known once micrographs have come for five minutes.";
    write(find("[data-counter-note=rate]"), !known(rate) ? "" : over ? "on average" : "in the last hour");
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
    showCounters(data.counters);
    if (current && data.run && current.id !== data.run.id) run.clear();
    current = data.run && { ...data.run, over: !data.session.running || known(data.run.finished) };
    showRuns(data.runs);
    find("#live-empty").hidden = columns.length > 0 || data.counters.micrographs > 0;
    find("#live-no-run").hidden = data.run !== null;
    find("#live-no-micrograph").hidden = data.run === null;
    if (data.run) {
      run.show(data.run, data.parameters);
      run.say(data.events);
      if (data.micrographs) {
        const touched = columns.merge(data.micrographs);
        charts.show(columns, data.histograms);
        viewer.update(data.run, columns, touched);
        find("#live-charts").hidden = columns.length === 0;
      }
      if (data.classes) classes.show(data.classes);
    }
    changedAt = data.now;
    page.dataset.revision = data.run ? data.run.revision : 0;
    tick();
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
      if (current) query.set("after", current.revision);
      return `${config.data}?${query}`;
    },
    accept,
    status: connection,
  });
  poller.start();
  setInterval(() => document.visibilityState === "visible" && tick(), 10000);
})();
