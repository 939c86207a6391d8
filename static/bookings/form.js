// The booking form: long lists of people can be searched, and the end moves along with the start.
(() => {
  for (const select of document.querySelectorAll("select[data-search]")) {
    if (window.TomSelect && select.options.length > 8) {
      new window.TomSelect(select, {
        plugins: select.multiple ? ["remove_button"] : [],
        maxOptions: 500,
        // At once: whoever types a name and presses Enter means the one they see, not the one before.
        refreshThrottle: 0,
        allowEmptyOption: true,
      });
    }
  }

  const start = document.getElementById("id_start");
  const end = document.getElementById("id_end");
  if (!start || !end) return;

  const pad = (number) => String(number).padStart(2, "0");
  // Read and written as UTC only to count minutes: the facility's wall clock is what both fields show.
  const minutes = (field) => Date.parse(`${field.value}Z`) / 60000;
  const write = (field, value) => {
    const time = new Date(value * 60000);
    field.value =
      `${time.getUTCFullYear()}-${pad(time.getUTCMonth() + 1)}-${pad(time.getUTCDate())}` +
      `T${pad(time.getUTCHours())}:${pad(time.getUTCMinutes())}`;
  };
  let length = minutes(end) - minutes(start);
  start.addEventListener("change", () => {
    if (start.value && length > 0) write(end, minutes(start) + length);
  });
  end.addEventListener("change", () => {
    length = minutes(end) - minutes(start);
  });
})();
