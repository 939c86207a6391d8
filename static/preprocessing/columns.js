/* The run's micrographs as columns of equal length in the order of their exposures, merged from the server's deltas. */
(() => {
  "use strict";
  const live = window.EMhubLive;
  const PLAIN = ["id", "exposure", "acquired", "reported", "pictures"];

  class Columns {
    constructor(keys) {
      this.keys = keys;
      this.clear();
    }

    clear() {
      for (const name of PLAIN) this[name] = [];
      this.series = Object.fromEntries(this.keys.map((key) => [key, []]));
      this.place = new Map();
      this.total = 0;
      this.limit = Infinity;
    }

    get length() {
      return this.id.length;
    }

    /** The image number of a row: its rank in the whole run, also where only the newest are here. */
    number(row) {
      return Math.max(this.total, this.length) - this.length + row + 1;
    }

    row(id) {
      return this.place.has(id) ? this.place.get(id) : -1;
    }

    any(key) {
      return this.series[key].some((value) => value !== null);
    }

    /** Seconds since 1970: acquired where known, else first reported. */
    time(row) {
      return this.acquired[row] ?? this.reported[row];
    }

    /** Take a delta; answers the ids it holds. Rows older than the oldest kept are not taken up. */
    merge(block) {
      if (block.reset) this.clear();
      this.limit = block.limit;
      const all = this.#all();
      const full = this.length >= block.limit;
      const oldest = full ? this.exposure[0] : -Infinity;
      let ordered = true;
      block.id.forEach((id, from) => {
        let to = this.place.get(id);
        if (to === undefined) {
          if (block.exposure[from] < oldest) return;
          to = this.length;
          if (to > 0 && block.exposure[from] < this.exposure[to - 1]) ordered = false;
          this.place.set(id, to);
        }
        for (const name of PLAIN) this[name][to] = block[name][from];
        for (const key of this.keys) this.series[key][to] = block.series[key][from];
      });
      this.total = block.total;
      if (!ordered) {
        const order = this.exposure.map((_, row) => row).sort((a, b) => this.exposure[a] - this.exposure[b]);
        for (const column of all) column.splice(0, column.length, ...order.map((row) => column[row]));
      }
      const surplus = this.length - this.limit;
      if (surplus > 0) for (const column of all) column.splice(0, surplus);
      if (!ordered || surplus > 0) this.place = new Map(this.id.map((id, row) => [id, row]));
      return new Set(block.id);
    }

    #all() {
      return [...PLAIN.map((name) => this[name]), ...this.keys.map((key) => this.series[key])];
    }
  }

  live.Columns = Columns;
})();
