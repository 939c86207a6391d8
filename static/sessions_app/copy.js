// Buttons that copy the text of the element they name, and say so.
(() => {
  "use strict";

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    const source = document.getElementById(button.dataset.copy);
    const text = source.textContent.trim();
    let done = false;
    try {
      await navigator.clipboard.writeText(text);
      done = true;
    } catch {
      // Plain http has no clipboard: select the text, so that one key copies it.
      const range = document.createRange();
      range.selectNodeContents(source);
      const selection = window.getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      done = document.execCommand("copy");
    }
    const label = button.querySelector("[data-copy-label]");
    label.textContent = done ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (label.textContent = "Copy"), 2500);
  });

  document.querySelectorAll("button[data-copy]").forEach((button) => (button.hidden = false));

  // The commands carry the person's account on the data server once it is typed; it stays in this browser.
  const account = document.getElementById("account");
  if (!account) return;
  const commands = [...document.querySelectorAll("[data-command]")];
  const write = () => {
    const name = account.value.trim().replace(/[^A-Za-z0-9._@-]/g, "") || account.placeholder;
    commands.forEach((command) => {
      command.textContent = command.dataset.command.replace(account.placeholder, name);
    });
  };
  try {
    account.value = window.localStorage.getItem("emhub-data-account") || "";
  } catch {
    /* no storage: typed again next time */
  }
  account.closest("[hidden]")?.removeAttribute("hidden");
  account.addEventListener("input", () => {
    write();
    try {
      window.localStorage.setItem("emhub-data-account", account.value.trim());
    } catch {
      /* as above */
    }
  });
  write();
})();
