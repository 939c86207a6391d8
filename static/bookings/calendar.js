// The calendar. Every time is the facility's wall clock, written without an offset, and is only ever read as UTC to
// count minutes with: the browser's own zone and its summer time play no part. Dates that Event Calendar hands out
// are in the browser's zone and are therefore not used; its texts (startStr) and differences (delta) are.
(() => {
  "use strict";

  const source = document.getElementById("calendar-config");
  if (!source) return;
  const config = JSON.parse(source.textContent);
  const scopes = new Map(config.microscopes.map((scope) => [scope.id, scope]));
  const grid = document.getElementById("calendar-grid");
  const list = document.getElementById("calendar-list");
  const bar = document.getElementById("calendar-bar");
  const title = document.getElementById("calendar-title");
  const note = document.getElementById("calendar-note");
  const dateField = document.getElementById("calendar-date");
  const phone = window.matchMedia("(max-width: 767.98px)");
  const REFRESH = 60_000;

  // -- Wall-clock times ------------------------------------------------------------------------------------
  const MINUTE = 60_000, DAY = 86_400_000;
  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  const LONG_MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December"];
  const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

  const read = (text) => new Date(text.length === 10 ? `${text}T00:00:00Z` : `${text}Z`);
  const write = (time) => new Date(time).toISOString().slice(0, 19);
  const dayOf = (text) => text.slice(0, 10);
  const twelve = document.documentElement.dataset.hourCycle === "h12";

  /** "09:05", or "9:05 am" for who has chosen that; as people.words.clock says it. */
  function clock(text) {
    if (!twelve) return text.slice(11, 16);
    const hour = Number(text.slice(11, 13));
    return `${hour % 12 || 12}:${text.slice(14, 16)}\u00a0${hour < 12 ? "am" : "pm"}`;
  }

  const addDays = (day, count) => write(read(day).getTime() + count * DAY).slice(0, 10);
  const monday = (day) => addDays(day, -((read(day).getUTCDay() + 6) % 7));
  const seconds = (duration) => duration.days * 86_400 + duration.seconds;
  const shift = (text, duration) => (duration ? write(read(text).getTime() + seconds(duration) * 1000) : text);

  function addMonths(day, count) {
    const date = read(day);
    return new Date(Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + count, 1)).toISOString().slice(0, 10);
  }

  /** "Mon 23 Nov", with the year where it is not this one's. */
  function dayWords(day) {
    const date = read(day);
    const year = day.slice(0, 4) === config.today.slice(0, 4) ? "" : ` ${day.slice(0, 4)}`;
    return `${DAYS[date.getUTCDay()]} ${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]}${year}`;
  }

  /** "Tue 24 Nov 09:00 to 18:00", "Tue 24 Nov 22:00 to Wed 25 Nov 06:00"; as bookings.rules.span says it. */
  function span(start, end) {
    const until = dayOf(start) === dayOf(end) ? clock(end) : `${dayWords(dayOf(end))} ${clock(end)}`;
    return `${dayWords(dayOf(start))} ${clock(start)} to ${until}`;
  }

  /** "23–29 Nov 2026", "28 Dec 2026 – 3 Jan 2027". */
  function rangeWords(first, last) {
    const [a, b] = [read(first), read(last)];
    const end = `${b.getUTCDate()} ${MONTHS[b.getUTCMonth()]} ${b.getUTCFullYear()}`;
    if (a.getUTCFullYear() !== b.getUTCFullYear()) {
      return `${a.getUTCDate()} ${MONTHS[a.getUTCMonth()]} ${a.getUTCFullYear()} – ${end}`;
    }
    if (a.getUTCMonth() !== b.getUTCMonth()) return `${a.getUTCDate()} ${MONTHS[a.getUTCMonth()]} – ${end}`;
    return `${a.getUTCDate()}–${end}`;
  }

  // -- What is shown: the address's choice, then what this person chose last; the server knows both ---------------
  let kept = "";

  function choice() {
    // On a phone the list is no choice: the view that was chosen on a large screen stays.
    const chosen = new URLSearchParams({ view: phone.matches ? config.keptView : state.view });
    for (const code of [...state.chosen].sort()) chosen.append("microscope", code);
    return String(chosen);
  }

  /** Lets the server keep the choice, so that it is there on another machine too; only when it is another one. */
  function remember() {
    const chosen = choice();
    if (chosen === kept) return;
    kept = chosen;
    const token = JSON.parse(document.body.getAttribute("hx-headers") || "{}");
    const body = new URLSearchParams(chosen);
    // Not told when it fails: nothing is lost but the choice.
    fetch(config.choice, { method: "POST", body, headers: token, keepalive: true }).catch(() => { kept = ""; });
  }

  const VIEWS = {
    week: { name: "timeGridWeek", days: 7 },
    month: { name: "dayGridMonth" },
    timeline: { name: "resourceTimelineWeek", days: 7 },
    weeks: { name: "resourceTimelineFourWeeks", days: 28 },
    list: { days: 7 },
  };
  const codes = new Set(config.microscopes.map((scope) => scope.code));
  const state = {
    view: config.view,
    date: config.date || config.today,
    chosen: new Set(config.chosen.filter((code) => codes.has(code))),
  };
  kept = choice();
  const view = () => (phone.matches ? "list" : state.view);

  const shown = () => config.microscopes.filter((scope) => !state.chosen.size || state.chosen.has(scope.code));

  function address(extra = {}) {
    const query = new URLSearchParams({ view: view(), date: state.date, ...extra });
    for (const code of state.chosen) query.append("microscope", code);
    return `${config.page}?${query}`;
  }

  function period() {
    if (view() === "month") {
      const date = read(state.date);
      return `${LONG_MONTHS[date.getUTCMonth()]} ${date.getUTCFullYear()}`;
    }
    const first = view() === "list" ? state.date : monday(state.date);
    return rangeWords(first, addDays(first, VIEWS[view()].days - 1));
  }

  // -- Notes -----------------------------------------------------------------------------------------------
  function complain(text) {
    note.querySelector("[data-text]").textContent = text;
    note.hidden = false;
  }

  function tell(text, url) {
    const alert = document.createElement("div");
    alert.className = "alert alert-success alert-dismissible";
    alert.setAttribute("role", "status");
    const icon = document.createElement("i");
    icon.className = "bi bi-check-circle";
    icon.setAttribute("aria-hidden", "true");
    alert.append(icon, ` ${text} `);
    if (url) {
      const link = document.createElement("a");
      link.className = "alert-link";
      link.href = url;
      link.textContent = "Open it";
      alert.append(link);
    }
    const close = document.createElement("button");
    close.type = "button";
    close.className = "btn-close";
    close.dataset.bsDismiss = "alert";
    close.setAttribute("aria-label", "Dismiss");
    alert.append(close);
    document.getElementById("messages").replaceChildren(alert);
  }

  /** The login ran out: answers are its page then. True where it did. */
  function loggedOut(response) {
    if (!response.redirected) return false;
    location.assign(`${document.body.dataset.login}?next=${encodeURIComponent(location.pathname + location.search)}`);
    return true;
  }

  // -- Events ----------------------------------------------------------------------------------------------
  const UPKEEP = { downtime: "moon", maintenance: "tools" };

  function toEvent(told) {
    const scope = scopes.get(String(told.microscope));
    if (told.id) told.url = config.detail.replace("/0/", `/${told.id}/`);
    const classes = [`is-${told.kind}`, told.url ? "is-open" : "is-others"];
    return {
      ...(told.id ? { id: String(told.id) } : {}),
      resourceIds: [scope.id],
      start: told.start,
      end: told.end,
      title: told.title,
      // Months draw no time behind others: there a slot is a faint bar.
      display: told.kind === "slot" && view() !== "month" ? "background" : "auto",
      editable: Boolean(told.can_change),
      classNames: classes,
      styles: [`--scope:${scope.colour}`, `--scope-text:${scope.text}`],
      extendedProps: told,
    };
  }

  /** The facility's clock now, as the events write it. */
  function now() {
    const [, sign, hours, minutes] = config.offset.match(/([+-])(\d\d):(\d\d)/);
    return write(Date.now() + (sign === "-" ? -1 : 1) * (Number(hours) * 60 + Number(minutes)) * MINUTE);
  }

  let asking = null;

  async function fetchEvents(range) {
    // Whoever has gone on wants the newest range alone: an answer that comes late must not be drawn over it.
    if (asking) asking.abort();
    const mine = (asking = new AbortController());
    const query = new URLSearchParams({ start: dayOf(range.startStr), end: dayOf(range.endStr) });
    for (const scope of shown()) query.append("microscope", scope.code);
    let response;
    try {
      response = await fetch(`${config.events}?${query}`, { headers: { Accept: "application/json" }, signal: mine.signal });
      if (loggedOut(response)) return [];
      const told = await response.json();
      mine.signal.throwIfAborted();
      if (!response.ok) throw new Error(told.detail);
      note.hidden = true;
      config.offset = told.offset;
      return told.events.map(toEvent);
    } catch (error) {
      if (mine.signal.aborted) throw error; // Nothing to say: the next one is under way.
      complain(
        response && response.status === 400
          ? error.message
          : "The bookings could not be fetched, so what you see may be old. Check the connection.",
      );
      throw error; // The events of before stay.
    }
  }

  function element(tag, className, text) {
    const made = document.createElement(tag);
    made.className = className;
    if (text) made.textContent = text;
    return made;
  }

  function icon(name) {
    const made = element("i", `bi bi-${name}`);
    made.setAttribute("aria-hidden", "true");
    return made;
  }

  function content({ event, view: drawn }) {
    const told = event.extendedProps;
    const scope = scopes.get(event.resourceIds[0]);
    if (!scope || !told.kind) return undefined; // What is just being dragged open.
    const inRows = drawn.type.startsWith("resource");
    const words = element("div", "calendar-words");
    const name = element("span", "calendar-name");
    if (UPKEEP[told.kind]) name.append(icon(UPKEEP[told.kind]), " ");
    name.append(told.title);
    const time = element("span", "calendar-time num", drawn.type === "dayGridMonth" ? clock(told.start) : clocks(told));
    if (event.display === "background") {
      words.append(told.url ? slotLink(told) : element("span", "calendar-name", told.title));
      return { domNodes: [words] };
    }
    if (drawn.type === "dayGridMonth") words.append(time, name, element("span", "calendar-scope", scope.name));
    else if (inRows) words.append(name, time);
    else words.append(name, element("span", "calendar-scope", scope.name), time);
    return { domNodes: [words] };
  }

  /** A slot lies behind what is drawn and dragged; its name alone can be pressed. */
  function slotLink(told) {
    const link = element("a", "calendar-name calendar-slot", told.title);
    link.href = told.url;
    link.setAttribute("aria-label", sentence(told));
    link.addEventListener("pointerdown", (event) => event.stopPropagation());
    link.addEventListener("click", (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      openEvent(told, link);
    });
    return link;
  }

  /** "09:00–18:00"; with the weekdays where it goes over midnight. */
  function clocks({ start, end }) {
    const weekday = (text) => (dayOf(start) === dayOf(end) ? "" : `${DAYS[read(dayOf(text)).getUTCDay()]} `);
    return `${weekday(start)}${clock(start)}–${weekday(end)}${clock(end)}`;
  }

  function sentence(told) {
    const scope = scopes.get(String(told.microscope));
    const who = told.owner ? `, ${told.owner}${told.lab ? `, ${told.lab}` : ""}` : "";
    return `${told.title}, ${scope.name}, ${span(told.start, told.end)}${who}`;
  }

  // -- Dialogs ---------------------------------------------------------------------------------------------
  const eventDialog = document.getElementById("event-dialog");
  const moveDialog = document.getElementById("move-dialog");
  const modal = (dialog) => window.bootstrap.Modal.getOrCreateInstance(dialog);
  const isBusy = () => document.querySelector(".modal.show") !== null || grid.querySelector(".ec-dragging, .ec-preview") !== null;
  let opened = null; // the event element to give the focus back to

  function fact(facts, name, value, fallback) {
    if (!value && !fallback) return;
    facts.append(element("dt", "", name), element("dd", "", value || fallback));
  }

  function openEvent(told, from) {
    opened = from;
    const scope = scopes.get(String(told.microscope));
    eventDialog.querySelector("#event-title").textContent = told.title;
    const facts = eventDialog.querySelector("[data-facts]");
    facts.replaceChildren();
    fact(facts, "Microscope", scope.name + (scope.note ? ` (${scope.note})` : ""));
    fact(facts, "When", span(told.start, told.end));
    if (told.url) {
      fact(facts, "Type", told.kind);
      fact(facts, "Owner", told.owner);
      fact(facts, "Lab", told.lab, "No lab");
    }
    const link = eventDialog.querySelector("[data-open]");
    link.hidden = !told.url;
    if (told.url) link.href = told.url;
    const form = eventDialog.querySelector("[data-move-form]");
    form.hidden = !told.can_change;
    form.dataset.event = told.can_change ? JSON.stringify(told) : "";
    if (told.can_change) {
      const select = form.elements.microscope;
      select.replaceChildren(...config.microscopes.map((one) => new Option(one.name, one.id, false, one.id === scope.id)));
      form.elements.start.value = told.start.slice(0, 16);
      form.elements.end.value = told.end.slice(0, 16);
      form.querySelector("[data-move-error]").classList.remove("d-block");
    }
    modal(eventDialog).show();
  }

  eventDialog.addEventListener("shown.bs.modal", () => {
    const link = eventDialog.querySelector("[data-open]");
    (link.hidden ? eventDialog.querySelector(".modal-footer button") : link).focus();
  });
  eventDialog.addEventListener("hidden.bs.modal", () => opened && opened.isConnected && opened.focus());

  eventDialog.querySelector("[data-move-form]").addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    const form = submitted.target;
    const told = JSON.parse(form.dataset.event);
    const error = form.querySelector("[data-move-error]");
    // To the minute, as typed; what was left alone keeps its seconds.
    const typed = (name) => (form.elements[name].value === told[name].slice(0, 16) ? told[name] : `${form.elements[name].value}:00`);
    const wish = { start: typed("start"), end: typed("end"), microscope: form.elements.microscope.value };
    const problem =
      wish.start.length < 16 || wish.end.length < 16 ? "Give both dates and times."
        : wish.end <= wish.start ? "The end must be after the start. Choose a later end."
          : wish.start === told.start && wish.end === told.end && wish.microscope === String(told.microscope)
            ? "This is where it is. Type another time or choose another microscope."
            : "";
    error.textContent = problem;
    error.classList.toggle("d-block", Boolean(problem));
    if (problem) return;
    eventDialog.addEventListener("hidden.bs.modal", () => askToMove(told, wish, () => {}), { once: true });
    modal(eventDialog).hide();
  });

  // -- Moving ----------------------------------------------------------------------------------------------
  let pending = null;

  function question(told, wish) {
    const from = scopes.get(String(told.microscope)).name;
    const to = scopes.get(wish.microscope).name;
    const moved = from !== to;
    const verb = told.start === wish.start && !moved ? "end" : told.end === wish.end && !moved ? "start" : "move";
    const strong = (text) => element("strong", "", text);
    const text = element("p", "mb-0");
    if (verb === "move") {
      text.append("Move ", strong(told.title), ` from ${moved ? `${from}, ` : ""}${span(told.start, told.end)}`, " to ",
        strong(`${moved ? `${to}, ` : ""}${span(wish.start, wish.end)}`), "?");
    } else {
      text.append("Let ", strong(told.title), ` on ${from} ${verb} at `,
        strong(`${dayWords(dayOf(wish[verb]))} ${clock(wish[verb])}`),
        ` instead of ${dayWords(dayOf(told[verb]))} ${clock(told[verb])}?`);
    }
    return text;
  }

  function askToMove(told, wish, revert) {
    pending = { told, wish, revert, done: false };
    moveDialog.querySelector("#move-title").textContent = "Move this booking?";
    moveDialog.querySelector("#move-text").replaceChildren(question(told, wish));
    const scope = moveDialog.querySelector("[data-move-repeat]");
    scope.hidden = scope.disabled = !told.repeats;
    scope.querySelector("input").checked = true;
    const [yes, no] = [moveDialog.querySelector("[data-yes]"), moveDialog.querySelector("[data-no]")];
    yes.hidden = false;
    yes.disabled = false;
    no.textContent = "No";
    moveDialog.querySelector("[data-edit]").hidden = true;
    modal(moveDialog).show();
  }

  function refused(text) {
    pending.revert();
    pending.done = true;
    moveDialog.querySelector("#move-title").textContent = "Not moved";
    moveDialog.querySelector("[data-move-repeat]").hidden = true;
    const words = element("p", "mb-0");
    words.append(icon("exclamation-octagon"), ` ${text}`);
    moveDialog.querySelector("#move-text").replaceChildren(words);
    moveDialog.querySelector("[data-yes]").hidden = true;
    const edit = moveDialog.querySelector("[data-edit]");
    // The form begins with what was wished: there the staff may set a rule aside, and others choose another time.
    edit.href = `${pending.told.url}edit/#${new URLSearchParams(pending.wish)}`;
    edit.hidden = false;
    const no = moveDialog.querySelector("[data-no]");
    no.textContent = "Leave it where it is";
    no.focus();
  }

  async function saveMove() {
    const { told, wish } = pending;
    moveDialog.querySelector("[data-yes]").disabled = true;
    const scope = told.repeats ? moveDialog.querySelector("[data-move-repeat] input:checked").value : "this";
    const body = new URLSearchParams({ ...wish, scope, seen_start: told.start, seen_end: told.end });
    const token = JSON.parse(document.body.getAttribute("hx-headers") || "{}");
    let response, answer;
    try {
      response = await fetch(`${config.page}${told.id}/move/`, { method: "POST", body, headers: { Accept: "application/json", ...token } });
      if (loggedOut(response)) return;
      answer = await response.json();
    } catch {
      refused(
        response
          ? "The site refused this without saying why. Reload the page and try again."
          : "The site cannot be reached. Nothing was moved; try again in a moment.",
      );
      return;
    }
    if (!response.ok) {
      refused(answer.detail);
      if (response.status === 409 || response.status === 404) refresh();
      return;
    }
    pending.done = true;
    modal(moveDialog).hide();
    tell(answer.detail, told.url);
    refresh();
  }

  moveDialog.querySelector("[data-yes]").addEventListener("click", saveMove);
  moveDialog.querySelector("[data-no]").addEventListener("click", () => modal(moveDialog).hide());
  moveDialog.addEventListener("shown.bs.modal", () => moveDialog.querySelector("[data-yes]").focus());
  // At once, not when the dialog has faded: No and Escape put it back where it was.
  moveDialog.addEventListener("hide.bs.modal", () => {
    if (pending && !pending.done) pending.revert();
  });
  moveDialog.addEventListener("hidden.bs.modal", () => {
    pending = null;
    if (opened && opened.isConnected) opened.focus();
  });

  function dropped(info) {
    const told = info.event.extendedProps;
    opened = null;
    askToMove(
      told,
      {
        start: shift(told.start, info.delta || info.startDelta),
        end: shift(told.end, info.delta || info.endDelta),
        microscope: info.newResource ? info.newResource.id : String(told.microscope),
      },
      info.revert,
    );
  }

  // -- Booking ---------------------------------------------------------------------------------------------
  function book(start, end, scope) {
    const query = new URLSearchParams({ start: start.slice(0, 16), end: end.slice(0, 16) });
    if (scope) query.set("microscope", scope.code);
    const address = `${config.book}?${query}`;
    const shell = document.getElementById("dialog");
    window.htmx.ajax("GET", address, { target: "#dialog-content", swap: "innerHTML" }).then(() => {
      if (document.getElementById("dialog-content").childElementCount) modal(shell).show();
    });
  }

  function selected(info) {
    const only = shown().length === 1 ? shown()[0] : null;
    const scope = info.resource ? scopes.get(info.resource.id) : only;
    // Whole days were drawn in a month: the facility's usual hours on the first and on the last of them.
    if (info.allDay) book(`${dayOf(info.startStr)}T09:00`, `${addDays(dayOf(info.endStr), -1)}T18:00`, scope);
    else book(info.startStr, info.endStr, scope);
  }

  /** Says in the dialog what the button will book, as long as it can be said. */
  function summarise(form) {
    const field = (name) => form.querySelector(`#id_${name}`);
    const place = form.querySelector("[data-summary]");
    const [scope, start, end] = [field("microscope"), field("start"), field("end")];
    const kind = field("kind");
    const name = scope.value ? scope.selectedOptions[0].textContent.trim() : "";
    const what = kind && kind.value !== "booking" ? `${kind.selectedOptions[0].textContent.trim()} on ${name}` : name;
    place.textContent = name && start.value && end.value > start.value ? `${what}, ${span(start.value, end.value)}` : "";
  }

  document.addEventListener("htmx:afterSettle", (event) => {
    const form = event.target.id === "dialog-content" && event.target.querySelector("[data-booking-form]");
    if (!form) return;
    summarise(form);
    // After the form's own script has moved the end along.
    form.addEventListener("change", () => setTimeout(() => summarise(form)));
  });
  document.getElementById("dialog").addEventListener("hidden.bs.modal", () => calendar && calendar.unselect());
  document.addEventListener("emhub:booked", (event) => {
    modal(document.getElementById("dialog")).hide();
    tell(event.detail.message, event.detail.url);
    refresh();
  });

  // -- The grid --------------------------------------------------------------------------------------------
  let calendar = null;

  /** Pixels of one slot, so that the whole period fits where it can. */
  function slotWidth(slots) {
    const sidebar = grid.querySelector(".ec-body .ec-sidebar");
    const room = grid.clientWidth - (sidebar ? sidebar.offsetWidth : 130) - 3;
    return Math.max(26, Math.floor((room * 4) / slots) / 4);
  }

  function resources() {
    return shown().map((scope) => ({ id: scope.id, title: scope.name, extendedProps: scope }));
  }

  function label({ resource }) {
    const scope = resource.extendedProps;
    const words = element("div", "calendar-row");
    const dot = element("span", "scope-dot");
    dot.style.setProperty("--scope", scope.colour);
    const name = element("span", "", scope.name);
    words.append(dot, name);
    if (scope.note) words.append(element("span", "calendar-row-note", scope.note));
    return { domNodes: [words] };
  }

  function draw() {
    calendar = window.EventCalendar.create(grid, {
      view: VIEWS[view()].name,
      date: state.date,
      // The offset of now: the now-line and today are the facility's; events carry no offset and stay as written.
      timeZone: config.offset,
      locale: "en-GB",
      firstDay: 1,
      headerToolbar: { start: "", center: "", end: "" },
      allDaySlot: false,
      nowIndicator: true,
      slotEventOverlap: false,
      slotDuration: "01:00",
      slotHeight: 26,
      slotLabelFormat: twelve ? { hour: "numeric", hourCycle: "h12" } : { hour: "2-digit", minute: "2-digit" },
      eventTimeFormat: twelve ? { hour: "numeric", minute: "2-digit", hourCycle: "h12" } : { hour: "2-digit", minute: "2-digit" },
      dayHeaderFormat: { weekday: "short", day: "numeric", month: "short" },
      snapDuration: "00:30",
      lazyFetching: false,
      editable: false,
      eventResizableFromStart: true,
      selectable: config.mayBook,
      unselectAuto: false,
      resources: resources(),
      resourceLabelContent: label,
      eventSources: [{ events: fetchEvents }],
      eventContent: content,
      eventDidMount: ({ el, event }) => {
        if (!event.extendedProps.kind) return;
        const text = sentence(event.extendedProps);
        el.setAttribute("aria-label", text);
        el.title = text;
      },
      eventClick: ({ event, el }) => openEvent(event.extendedProps, el),
      eventDrop: dropped,
      eventResize: dropped,
      select: selected,
      loading: (is) => grid.setAttribute("aria-busy", String(is)),
      views: {
        dayGridMonth: { dayHeaderFormat: { weekday: "short" } },
        resourceTimelineWeek: { slotDuration: "06:00", slotLabelFormat: twelve ? { hour: "numeric", hourCycle: "h12" } : { hour: "2-digit" }, slotWidth: slotWidth(28), snapDuration: "01:00" },
        resourceTimelineFourWeeks: {
          type: "resourceTimelineWeek", duration: { weeks: 4 }, slotDuration: "24:00", slotWidth: slotWidth(28), snapDuration: "03:00",
          slotLabelFormat: () => "", dayHeaderFormat: { weekday: "short", day: "numeric" },
        },
      },
    });
    new ResizeObserver(() => {
      if (!grid.hidden && calendar && calendar.getOption("slotWidth") !== slotWidth(28)) calendar.setOption("slotWidth", slotWidth(28));
    }).observe(grid);
  }

  let drawnScopes = "";
  const drawnOffset = config.offset;

  function showGrid() {
    const fresh = !calendar;
    list.hidden = true;
    list.replaceChildren();
    grid.hidden = false;
    if (fresh) draw();
    const name = VIEWS[view()].name;
    if (!fresh) {
      calendar.setOption("date", state.date);
      if (calendar.getOption("view") !== name) calendar.setOption("view", name);
    }
    const wantedScopes = shown().map((scope) => scope.id).join();
    if (wantedScopes !== drawnScopes) {
      if (!fresh) {
        calendar.setOption("resources", resources());
        calendar.refetchEvents();
      }
      drawnScopes = wantedScopes;
    }
    grid.className = `calendar-grid is-${view()}`;
  }

  function showList() {
    grid.hidden = true;
    list.hidden = false;
    window.htmx.ajax("GET", address(), { target: "#calendar-list", swap: "innerHTML" });
  }

  function show({ keep = true } = {}) {
    for (const button of bar.querySelectorAll("button[name=view]")) {
      button.setAttribute("aria-pressed", String(button.value === view()));
    }
    for (const button of bar.querySelectorAll("[data-scope]")) {
      const code = button.dataset.scope;
      button.setAttribute("aria-pressed", String(code ? state.chosen.has(code) : !state.chosen.size));
    }
    title.textContent = period();
    dateField.value = state.date;
    document.body.dataset.calendarView = view();
    if (keep) {
      remember();
      history.replaceState(history.state, "", address());
    }
    if (view() === "list") showList();
    else showGrid();
  }

  function refresh() {
    if (view() === "list") showList();
    else if (calendar) calendar.refetchEvents();
  }

  // -- What people press -----------------------------------------------------------------------------------
  function step(by) {
    if (by === 0) state.date = now().slice(0, 10);
    else if (view() === "month") state.date = addMonths(state.date, by);
    else state.date = addDays(state.date, by * VIEWS[view()].days);
    show();
  }

  document.addEventListener("click", (event) => {
    const stepper = event.target.closest("[data-step]");
    if (stepper) {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      step(Number(stepper.dataset.step));
    }
  });
  bar.addEventListener("submit", (event) => {
    event.preventDefault();
    const button = event.submitter;
    if (button && button.name === "view") state.view = button.value;
    else if (button && "scope" in button.dataset) {
      const code = button.dataset.scope;
      if (!code) state.chosen.clear();
      else if (!state.chosen.delete(code)) state.chosen.add(code);
      // All of them one by one is all of them.
      if (state.chosen.size === codes.size) state.chosen.clear();
    } else if (/^\d{4}-\d\d-\d\d$/.test(dateField.value)) state.date = dateField.value;
    show();
  });
  dateField.addEventListener("change", () => {
    // While a year is typed, what is there so far is a year too.
    if (dateField.validity.valid && dateField.value) {
      state.date = dateField.value;
      show();
    }
  });
  note.querySelector("[data-retry]").addEventListener("click", refresh);
  phone.addEventListener("change", () => show({ keep: false }));

  // Others book too: what is on the screen stays true while somebody looks at it.
  let seen = Date.now();
  function look() {
    if (document.hidden || isBusy() || Date.now() - seen < REFRESH) return;
    seen = Date.now();
    config.today = now().slice(0, 10);
    // The facility's clocks were changed while the page was open: the now-line is drawn with the offset of then.
    if (config.offset !== drawnOffset) location.reload();
    else refresh();
  }
  setInterval(look, 5000);
  document.addEventListener("visibilitychange", look);

  show({ keep: false });
})();
