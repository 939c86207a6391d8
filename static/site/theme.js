/* Sets the theme before anything is painted; loaded blocking in the head for that reason alone. */
(() => {
  "use strict";
  const KEY = "emhub-theme";
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;

  /** What the person chose in this browser: "light", "dark" or "auto". */
  function chosen() {
    try {
      const value = localStorage.getItem(KEY);
      return value === "light" || value === "dark" ? value : "auto";
    } catch {
      return "auto"; // Storage is forbidden: follow the system.
    }
  }

  function apply() {
    const choice = chosen();
    const theme = choice === "auto" ? (system.matches ? "dark" : "light") : choice;
    root.dataset.themeChoice = choice;
    if (root.dataset.bsTheme !== theme) {
      root.dataset.bsTheme = theme;
      document.dispatchEvent(new CustomEvent("emhub:theme", { detail: { theme } }));
    }
  }

  function choose(choice) {
    try {
      if (choice === "auto") localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, choice);
    } catch {
      root.dataset.bsTheme = choice === "auto" ? (system.matches ? "dark" : "light") : choice;
    }
    apply();
  }

  apply();
  system.addEventListener("change", apply);
  // Another tab changed it.
  window.addEventListener("storage", (event) => event.key === KEY && apply());
  // A page from the back-forward cache was painted with the theme of then.
  window.addEventListener("pageshow", apply);
  window.emhubTheme = { chosen, choose };
})();
