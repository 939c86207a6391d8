/* Small sums over columns with unknown (null) values. */
(() => {
  "use strict";
  const live = window.EMhubLive;

  /** Percentile by linear interpolation of sorted numbers; null where there are none. */
  function percentile(sorted, share) {
    if (!sorted.length) return null;
    const place = share * (sorted.length - 1);
    const below = Math.floor(place);
    const above = Math.min(below + 1, sorted.length - 1);
    return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
  }

  const sorted = (values) => values.filter((value) => value !== null).sort((a, b) => a - b);
  const median = (values) => percentile(sorted(values), 0.5);

  /** Where `value` belongs in ascending `list`. */
  function seat(list, value) {
    let low = 0;
    let high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle] < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Median of up to `width` known neighbours around each known value, fewer at the ends; null where unknown. */
  function runningMedian(values, width) {
    const rows = [];
    values.forEach((value, row) => value !== null && rows.push(row));
    const result = values.map(() => null);
    const half = Math.floor(width / 2);
    const window = [];
    let from = 0;
    let to = 0;
    rows.forEach((row, place) => {
      while (to < rows.length && to <= place + half) {
        const value = values[rows[to++]];
        window.splice(seat(window, value), 0, value);
      }
      while (from < place - half) window.splice(seat(window, values[rows[from++]]), 1);
      result[row] = percentile(window, 0.5);
    });
    return result;
  }

  /**
   * Micrographs per hour from their times (s): in the last hour before `until`, or over the `whole` run. The first
   * minute is left out, in which a pipeline that joins late sends all it has. Null before five minutes have
   * passed, when it would mean nothing.
   */
  function ratePerHour(times, until, whole) {
    if (times.length < 2) return null;
    const ordered = [...times].sort((a, b) => a - b);
    const end = whole ? ordered[ordered.length - 1] : until;
    if (end - ordered[0] < 300) return null;
    const from = whole ? ordered[0] + 60 : Math.max(ordered[0] + 60, end - 3600);
    return ((ordered.length - seat(ordered, from)) * 3600) / (end - from);
  }

  live.statistics = { percentile, sorted, median, runningMedian, ratePerHour };
})();
