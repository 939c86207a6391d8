/* Says how many particles the chosen classes have while they are being chosen. */
(() => {
  "use strict";
  const form = document.getElementById("classes-form");
  if (!form) return;
  const words = form.querySelector("[data-chosen]");
  const boxes = [...form.querySelectorAll("input[name=selected]")];
  const total = boxes.reduce((sum, box) => sum + Number(box.dataset.particles), 0);
  const saved = boxes.map((box) => box.checked).join();
  form.addEventListener("change", () => {
    const chosen = boxes.filter((box) => box.checked);
    const particles = chosen.reduce((sum, box) => sum + Number(box.dataset.particles), 0);
    const percent = total ? (100 * particles) / total : 0;
    const share = percent.toFixed(percent > 0 && percent < 9.95 ? 1 : 0);
    const open = boxes.map((box) => box.checked).join() === saved ? "" : " Not saved yet.";
    words.textContent = `${chosen.length} good: ${particles.toLocaleString("en-GB")} particles (${share}%).${open}`;
  });
})();
