/* What every page does by itself: theme buttons, living times, what htmx says while it works and when it fails. */
(() => {
  "use strict";

  // -- Theme --------------------------------------------------------------------------------------------
  const ICONS = { light: "sun", dark: "moon-stars", auto: "circle-half" };

  function showTheme() {
    const choice = window.emhubTheme.chosen();
    for (const button of document.querySelectorAll("[data-theme-choice][type=button]")) {
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === choice));
    }
    for (const icon of document.querySelectorAll("[data-theme-icon]")) {
      icon.className = `bi bi-${ICONS[choice]}`;
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-theme-choice]");
    if (!button) return;
    window.emhubTheme.choose(button.dataset.themeChoice);
    showTheme();
  });
  window.addEventListener("storage", showTheme);

  // -- Times that grow old while the page is open ----------------------------------------------------------
  // The words are those of people.words.relative; keep both alike.
  const MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

  function relative(seconds) {
    const size = Math.abs(seconds);
    if (size < 45) return "just now";
    let text;
    if (size < HOUR - 30) text = `${Math.max(1, Math.round(size / MINUTE))} min`;
    else if (size < DAY - HOUR / 2) text = `${Math.round(size / HOUR)} h`;
    else {
      const days = Math.round(size / DAY);
      text = days === 1 ? "1 day" : `${days} days`;
    }
    return seconds < 0 ? `in ${text}` : `${text} ago`;
  }

  function refreshTimes() {
    if (document.hidden) return;
    for (const time of document.querySelectorAll("time[data-relative]")) {
      const seconds = (Date.now() - Date.parse(time.dateTime)) / 1000;
      // Older than this the server writes a date, which does not age.
      if (Math.abs(seconds) > 14 * DAY) continue;
      const text = relative(seconds);
      if (time.textContent !== text) time.textContent = text;
    }
  }

  setInterval(refreshTimes, 20000);
  document.addEventListener("visibilitychange", refreshTimes);

  // -- htmx ----------------------------------------------------------------------------------------------
  const bar = () => document.getElementById("loading");
  let waiting = 0;

  function setWaiting(change) {
    waiting = Math.max(0, waiting + change);
    bar()?.classList.toggle("is-loading", waiting > 0);
  }

  function say(text) {
    const place = document.getElementById("messages");
    if (!place) return;
    const old = place.querySelector("[data-connection-note]");
    if (old) {
      old.querySelector("[data-text]").textContent = text;
      return;
    }
    const template = document.getElementById("connection-note");
    const note = template.content.cloneNode(true);
    note.querySelector("[data-text]").textContent = text;
    place.append(note);
  }

  document.addEventListener("htmx:beforeRequest", () => setWaiting(1));
  document.addEventListener("htmx:afterRequest", (event) => {
    setWaiting(-1);
    if (event.detail.successful) document.querySelector("[data-connection-note]")?.remove();
  });
  document.addEventListener("htmx:sendError", () => say("The site does not answer. Nothing was changed; try again in a moment."));
  document.addEventListener("htmx:timeout", () => say("The site took too long to answer. Try again in a moment."));
  document.addEventListener("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    if (status === 403) say("You may not do this. If you were logged out meanwhile, reload the page.");
    else if (status === 404) say("This is not there any more. Reload the page to see what is.");
    else if (status === 429) say("Too many requests at once. Wait a moment, then try again.");
    else if (status >= 500) say("Something went wrong at the site. It was noted; try again in a moment.");
    else say(`The site refused this (${status}). Reload the page and try again.`);
  });
  // The login has expired: go there, instead of putting the login page inside this one.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const login = document.body.dataset.login;
    if (!login || !event.detail.xhr.responseURL) return;
    if (new URL(event.detail.xhr.responseURL).pathname !== login) return;
    event.detail.shouldSwap = false;
    const here = location.pathname + location.search;
    location.assign(`${login}?next=${encodeURIComponent(here)}`);
  });

  // -- Forms -----------------------------------------------------------------------------------------------
  // A double click must not make two of anything. What htmx sends is prevented here and has its own way; whoever comes
  // back to the page, or waits in vain, can send the form again.
  const SENT_FOR = 8000;
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented || form.method !== "post") return;
    if (form.dataset.sent) event.preventDefault();
    else {
      form.dataset.sent = "yes";
      setTimeout(() => delete form.dataset.sent, SENT_FOR);
    }
  });
  window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  });
  // A form that answered with errors: begin where the first one is.
  document.addEventListener("DOMContentLoaded", () => {
    showTheme();
    refreshTimes();
    document.querySelector("main form .is-invalid")?.focus();
    // Tabs that scroll sideways on a phone begin with the page's own in sight.
    const tab = document.querySelector(".session-tabs .active");
    if (tab) tab.closest("ul").scrollLeft = tab.offsetLeft - tab.closest("ul").clientWidth / 2 + tab.offsetWidth / 2;
    for (const button of document.querySelectorAll("[data-copy-value]")) {
      button.hidden = !navigator.clipboard;
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(button.dataset.copyValue);
        const label = button.querySelector("[data-label]");
        const before = label.textContent;
        label.textContent = "Copied";
        setTimeout(() => { label.textContent = before; }, 2000);
      });
    }
  });
})();
