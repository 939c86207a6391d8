// Keeps the dashboard as it is on the server: asks every half minute while the page is seen, and at once when it
// is seen again. Only parts that have changed are replaced, and none that somebody is using.
(() => {
  "use strict";

  const PERIOD = 30000;
  const board = document.getElementById("dashboard");
  if (!board) return;
  const known = new Map();
  const parts = (root) => root.querySelectorAll("[data-part]");
  let timer = null;
  let asking = false;

  parts(board).forEach((part) => known.set(part.dataset.part, part.outerHTML));

  function inUse(part) {
    return part.contains(document.activeElement) || part.querySelector(".dropdown-menu.show, details[open]");
  }

  async function refresh() {
    if (asking || document.hidden || document.querySelector("#dialog.show")) return;
    asking = true;
    try {
      const answer = await fetch(`${board.dataset.url}?live`, { headers: { "X-Requested-With": "fetch" } });
      if (answer.redirected) return window.location.reload(); // logged out meanwhile
      if (answer.ok) show(await answer.text());
      board.classList.toggle("is-stale", !answer.ok);
    } catch {
      board.classList.add("is-stale");
    } finally {
      asking = false;
    }
  }

  function show(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    const names = [...parts(fresh)].map((part) => part.dataset.part);
    const mine = [...parts(board)].map((part) => part.dataset.part);
    if (names.join() !== mine.join()) return window.location.reload(); // a microscope came or went
    parts(fresh).forEach((part) => {
      const name = part.dataset.part;
      const old = board.querySelector(`[data-part="${CSS.escape(name)}"]`);
      const text = part.outerHTML;
      if (known.get(name) === text || inUse(old)) return;
      known.set(name, text);
      old.replaceWith(document.importNode(part, true));
    });
  }

  function plan() {
    clearInterval(timer);
    timer = null;
    if (document.hidden) return;
    refresh();
    timer = setInterval(refresh, PERIOD);
  }

  document.addEventListener("visibilitychange", plan);
  if (!document.hidden) timer = setInterval(refresh, PERIOD);
})();
