/* The run's micrographs as columns of equal length in the order of their exposures, merged from the server's blocks.

   The first block may be a choice of many rows (`complete` is false then); what changes later, and what a closer look
   brings, is added to it. */
(() => {
  "use strict";
  const live = window.EMhubLive;
  const PLAIN = ["id", "exposure", "number", "acquired", "reported", "flags", "angle"];
  const PICTURE = 1;
  const SPECTRUM = 2;

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
      this.complete = true;
      this.medians = null;
      /** Image numbers may have moved: older exposures came in between. */
      this.stale = false;
    }

    get length() {
      return this.id.length;
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

    /** 1 for the micrograph's picture, plus 2 for its power spectrum. */
    pictures(row) {
      return this.flags[row] & (PICTURE | SPECTRUM);
    }

    /** Take a block; answers the ids it holds and how many of them are new. */
    merge(block) {
      if (block.reset) {
        this.clear();
        this.complete = block.complete;
        this.medians = block.medians;
      }
      const known = this.length;
      const newest = known ? this.exposure[known - 1] : -Infinity;
      let ordered = true;
      block.id.forEach((id, from) => {
        let to = this.place.get(id);
        if (to === undefined) {
          to = this.length;
          if (to > 0 && block.exposure[from] < this.exposure[to - 1]) ordered = false;
          if (!block.closer && block.exposure[from] < newest) this.stale = !this.complete;
          this.place.set(id, to);
        }
        for (const name of PLAIN) this[name][to] = block[name] ? block[name][from] : null;
        for (const key of this.keys) this.series[key][to] = block.series[key] ? block.series[key][from] : null;
      });
      this.total = block.total;
      if (!ordered) {
        const order = this.exposure.map((_, row) => row).sort((a, b) => this.exposure[a] - this.exposure[b]);
        for (const column of this.#all()) column.splice(0, column.length, ...order.map((row) => column[row]));
        this.place = new Map(this.id.map((id, row) => [id, row]));
      }
      if (this.complete) this.number = this.id.map((_, row) => row + 1);
      return { touched: new Set(block.id), fresh: this.length - known };
    }

    #all() {
      return [...PLAIN.map((name) => this[name]), ...this.keys.map((key) => this.series[key])];
    }
  }

  live.Columns = Columns;
})();
