// Opens links marked data-dialog in the page's dialog. What they lead to is a page of its own as well, so that
// without this script, in a new tab, or when something goes wrong, the link still works.
(() => {
  "use strict";

  const shell = () => document.getElementById("dialog");
  const content = () => document.getElementById("dialog-content");
  let opener = null;

  function open(link) {
    const dialog = shell();
    if (!dialog || !window.htmx || !window.bootstrap) return false;
    opener = link;
    window.htmx
      .ajax("GET", link.href, { target: "#dialog-content", swap: "innerHTML" })
      .then(() => {
        if (content().childElementCount) window.bootstrap.Modal.getOrCreateInstance(dialog).show();
      });
    return true;
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-dialog]");
    if (!link || event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    if (open(link)) event.preventDefault();
  });

  function focusFirst() {
    const first = content().querySelector(".is-invalid") || content().querySelector("[data-first]");
    if (first) first.focus();
  }

  document.addEventListener("shown.bs.modal", (event) => {
    if (event.target === shell()) focusFirst();
  });
  document.addEventListener("hidden.bs.modal", (event) => {
    if (event.target !== shell()) return;
    content().replaceChildren();
    // The dashboard may have redrawn the card meanwhile: find the same link again.
    const again = opener && (opener.isConnected ? opener : document.querySelector(`a[data-dialog][href="${opener.getAttribute("href")}"]`));
    if (again) again.focus();
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    if (content()?.contains(event.target) && shell().classList.contains("show")) focusFirst();
  });

  // An answer that is an error has a page of its own that says what to do.
  document.addEventListener("htmx:responseError", (event) => {
    if (!content() || !content().contains(event.detail.elt) && event.detail.target !== content()) return;
    if (event.detail.requestConfig.verb === "get") window.location.assign(event.detail.requestConfig.path);
    else complain("The site could not do this. Reload the page and try again.");
  });
  document.addEventListener("htmx:sendError", (event) => {
    if (content() && (content().contains(event.detail.elt) || event.detail.target === content())) {
      complain("The site cannot be reached. Nothing was saved; try again in a moment.");
    }
  });

  function complain(text) {
    const place = content() && content().querySelector("[data-complaint]");
    if (!place) return;
    place.textContent = text;
    place.hidden = false;
  }
})();
