/* Numbers, times and elements, as the server's own pages write them. Loaded first; all parts share EMhubLive. */
(() => {
  "use strict";
  const live = (window.EMhubLive = window.EMhubLive || {});
  const DASH = "–";
  // The reader's own choice of 18:00 or 6:00 pm.
  const cycle = document.documentElement.dataset.hourCycle || "h23";
  const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
  const known = (value) => value !== null && value !== undefined && Number.isFinite(value);
  let zone = "UTC";
  const formats = {};

  function inZone(name, options) {
    formats[name] = formats[name] || new Intl.DateTimeFormat("en-GB", { timeZone: zone, ...options });
    return formats[name];
  }

  /** "23 Nov", in the facility's zone, of seconds since 1970. */
  function day(seconds) {
    return inZone("day", { day: "numeric", month: "short" }).format(seconds * 1000);
  }

  const format = {
    DASH,
    setZone(name) {
      zone = name;
    },
    day,
    integer: (value) => (known(value) ? whole.format(value) : DASH),
    /** Whole up to ten million, then "12.4 M". */
    count: (value) => (known(value) && value >= 1e7 ? `${format.fixed(value / 1e6, 1)} M` : format.integer(value)),
    fixed: (value, digits) =>
      known(value)
        ? value.toLocaleString("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits })
        : DASH,
    percent(share) {
      if (!known(share)) return DASH;
      if (share > 0 && share < 0.0005) return "<0.1%";
      return `${(100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : 0)}%`;
    },
    /** Bytes in powers of 1000, as disks are sold: ["1.8", "TB"]; null where unknown. */
    size(bytes) {
      if (!known(bytes)) return null;
      const units = ["B", "kB", "MB", "GB", "TB", "PB"];
      let unit = 0;
      while (bytes >= 999.5 && unit < units.length - 1) [bytes, unit] = [bytes / 1000, unit + 1];
      return [format.fixed(bytes, unit && bytes < 99.95 ? 1 : 0), units[unit]];
    },
    /** "14:02", with seconds where asked. */
    time(seconds, withSeconds = false) {
      const name = withSeconds ? "seconds" : "minutes";
      const options = { hour: cycle === "h12" ? "numeric" : "2-digit", minute: "2-digit", hourCycle: cycle };
      return inZone(name, withSeconds ? { ...options, second: "2-digit" } : options).format(seconds * 1000);
    },
    /** "14:02" today, "22 Nov 14:02" on another day. */
    clock(seconds, now = Date.now() / 1000) {
      const time = format.time(seconds);
      return day(seconds) === day(now) && now - seconds < 86400 ? time : `${day(seconds)} ${time}`;
    },
    /** The whole of it, for titles: "23 Nov 2026, 14:02:11 (Europe/Stockholm)". */
    exact(seconds) {
      const date = inZone("date", { day: "numeric", month: "short", year: "numeric" }).format(seconds * 1000);
      return `${date}, ${format.time(seconds, true)} (${zone})`;
    },
    /** "just now", "4 min ago", "2 h ago" as every page says it; older than a day as the clock says it. */
    ago(seconds, now = Date.now() / 1000) {
      const past = now - seconds;
      if (past < 45) return "just now";
      if (past < 3570) return `${Math.max(1, Math.round(past / 60))} min ago`;
      if (past < 84600) return `${Math.round(past / 3600)} h ago`;
      return format.clock(seconds, now);
    },
  };

  /** An element with a class, text, attributes and children. */
  function make(tag, { className, text, ...attributes } = {}, children = []) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined && text !== null) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  /** Writes only what differs, so that nothing flickers and screen readers stay quiet. */
  function write(element, text) {
    if (element && element.textContent !== text) element.textContent = text;
  }

  live.format = format;
  live.make = make;
  live.write = write;
  live.known = known;
})();
