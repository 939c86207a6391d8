/* A scale of colours from low to high that everyone tells apart, in grey too (the stops are those of viridis). */
(() => {
  "use strict";
  const live = (window.EMhubLive = window.EMhubLive || {});
  const STOPS = [
    [68, 1, 84],
    [71, 45, 123],
    [59, 82, 139],
    [44, 114, 142],
    [33, 145, 140],
    [40, 174, 128],
    [94, 201, 98],
    [173, 220, 48],
    [253, 231, 37],
  ];

  /** The colour of a share from 0 to 1. */
  function colour(share) {
    const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
    const below = Math.min(Math.floor(at), STOPS.length - 2);
    const part = at - below;
    const mixed = STOPS[below].map((value, each) => Math.round(value + (STOPS[below + 1][each] - value) * part));
    return `rgb(${mixed.join(" ")})`;
  }

  /** Ink that can be read on it. */
  const inkOn = (share) => (share > 0.55 ? "#111" : "#fff");

  /** The range that colours span: without the few wildest. */
  function span(values) {
    const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
    if (!sorted.length) return null;
    const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
    const [low, high] = sorted.length > 20 ? [at(0.03), at(0.97)] : [sorted[0], sorted[sorted.length - 1]];
    return { low, high, share: (value) => (high > low ? (value - low) / (high - low) : 0.5) };
  }

  live.colours = { colour, inkOn, span, css: `linear-gradient(to right, ${STOPS.map((each) => `rgb(${each.join(" ")})`).join(", ")})` };
})();
