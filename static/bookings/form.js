// The booking form: long lists of people can be searched, and the end moves along with the start. On its own page
// and, once the calendar has opened it, in the dialog.
(() => {
  "use strict";

  const pad = (number) => String(number).padStart(2, "0");
  // Read and written as UTC only to count minutes: the facility's wall clock is what both fields show.
  const minutes = (field) => Date.parse(`${field.value}Z`) / 60000;
  const write = (field, value) => {
    const time = new Date(value * 60000);
    field.value =
      `${time.getUTCFullYear()}-${pad(time.getUTCMonth() + 1)}-${pad(time.getUTCDate())}` +
      `T${pad(time.getUTCHours())}:${pad(time.getUTCMinutes())}`;
  };

  function setUp(root) {
    for (const select of root.querySelectorAll("select[data-search]")) {
      if (window.TomSelect && !select.tomselect && select.options.length > 8) {
        new window.TomSelect(select, {
          plugins: select.multiple ? ["remove_button"] : [],
          maxOptions: 500,
          // At once: whoever types a name and presses Enter means the one they see, not the one before.
          refreshThrottle: 0,
          allowEmptyOption: true,
        });
      }
    }

    const start = root.querySelector("#id_start");
    const end = root.querySelector("#id_end");
    if (!start || !end || start.dataset.movesEnd) return;
    start.dataset.movesEnd = "yes";
    let length = minutes(end) - minutes(start);
    start.addEventListener("change", () => {
      if (start.value && length > 0) write(end, minutes(start) + length);
    });
    end.addEventListener("change", () => {
      length = minutes(end) - minutes(start);
    });
  }

  /** What the calendar wished for in vain (the address's fragment) stands in the form, once. */
  function takeWishes() {
    const wishes = new URLSearchParams(location.hash.slice(1));
    for (const name of ["microscope", "start", "end"]) {
      const field = document.querySelector(`form #id_${name}`);
      const wish = wishes.get(name);
      if (!field || !wish) continue;
      field.value = name === "microscope" ? wish : wish.slice(0, 16);
      field.dispatchEvent(new Event("change", { bubbles: true }));
    }
    if (wishes.has("start")) history.replaceState(history.state, "", location.pathname + location.search);
  }

  setUp(document);
  // After every script is there, so that what listens to the fields hears of it.
  window.addEventListener("load", takeWishes);
  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.target.id === "dialog-content") setUp(event.target);
  });
})();
