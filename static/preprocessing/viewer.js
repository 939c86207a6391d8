/* One micrograph with its power spectrum and values: the newest while following, or the one the reader chose. */
(() => {
  "use strict";
  const live = window.EMhubLive;
  const { format, make, write, known } = live;
  const KEPT = 60;
  const RECENT = 50;
  const NO_PICTURE = { micrograph: "No picture of this micrograph yet", psd: "No power spectrum of it yet" };
  const BAR_NM = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

  class Viewer {
    /**
     * `address(id)` is where a micrograph's details are; `changed(id)` is told which one is shown; `around(number)`
     * brings the columns every micrograph near this number, for of a long session they have a choice only.
     */
    constructor(root, { address, changed, around }) {
      Object.assign(this, { root, address, changed, around });
      this.following = true;
      this.id = null;
      this.number = null; // Its image number, as far as that is known.
      this.stepping = false;
      this.details = new Map();
      this.part = (name) => root.querySelector(`[data-viewer="${name}"]`);
      const { width, height } = this.part("micrograph").dataset;
      if (width && height) this.#shape(width, height);
      this.part("older").addEventListener("click", () => this.step(-1));
      this.part("newer").addEventListener("click", () => this.step(1));
      this.part("follow").addEventListener("click", () => this.follow());
      document.addEventListener("keydown", (event) => this.#key(event));
    }

    /** The frame has the micrograph's shape before any picture is there. */
    #shape(width, height) {
      this.part("micrograph").style.aspectRatio = `${width} / ${height}`;
    }

    /** Take the run's geometry and columns; `touched` are the ids that changed. */
    update(run, columns, touched) {
      this.run = run;
      this.columns = columns;
      this.root.hidden = columns.length === 0;
      for (const id of touched) this.details.delete(id);
      let pictures = 0;
      for (let row = 0; row < columns.length; row++) pictures |= columns.pictures(row);
      this.pictures = pictures;
      this.part("micrograph").closest("figure").hidden = !(pictures & 1);
      this.part("psd").closest("figure").hidden = !(pictures & 2);
      if (run.width && run.height && !this.part("micrograph").querySelector("img")) this.#shape(run.width, run.height);
      const newest = this.#newest();
      if (newest === null) return;
      if (this.following && newest !== this.id) this.#choose(newest);
      else if (touched.has(this.id)) this.#load();
      this.#where();
    }

    /** The reader picks a micrograph: it stays until they return to the newest. */
    select(id) {
      this.following = id === this.#newest();
      this.#choose(id);
      this.#where();
    }

    /** To the micrograph before (-1) or after (1) this one, whether the charts draw it or not. */
    async step(by) {
      if (!this.columns || this.columns.length === 0 || this.stepping) return;
      const from = this.id;
      let next = this.#beside(by);
      if (next === undefined && known(this.number)) {
        this.stepping = true;
        await this.around(this.number);
        this.stepping = false;
        // Meanwhile the reader may have chosen another.
        if (this.id === from) next = this.#beside(by);
      }
      if (known(next)) this.select(next);
    }

    /** Its neighbour's id; null at the end, undefined where the columns do not have it. */
    #beside(by) {
      const { columns } = this;
      const row = columns.row(this.id);
      if (row < 0) return undefined;
      const to = row + by;
      if (to < 0 || to >= columns.length) return null;
      const adjacent = columns.complete || columns.number[to] - columns.number[row] === by;
      return adjacent ? columns.id[to] : undefined;
    }

    follow() {
      this.following = true;
      const newest = this.#newest();
      if (newest !== null) this.#choose(newest);
      this.#where();
    }

    /**
     * The newest that has all the kinds of pictures and the fit that the run sends, for these come a moment after
     * one another and a following reader wants the whole; where none of the last ones has, the newest with a
     * picture, or the newest of all.
     */
    #newest() {
      const { columns } = this;
      const { id, series } = columns;
      const last = id.length - 1;
      if (last < 0) return null;
      const sent = this.pictures;
      const fitted = columns.any("ctf_resolution");
      for (let row = last; row >= 0 && row > last - RECENT; row--) {
        const whole = (columns.pictures(row) & sent) === sent;
        if (whole && (!fitted || series.ctf_resolution[row] !== null)) return id[row];
      }
      for (let row = last; row >= 0; row--) if (columns.pictures(row) & 1) return id[row];
      return id[last];
    }

    #key(event) {
      const busy = event.target.closest("input, select, textarea, [contenteditable], .dropdown-menu, [role=dialog]");
      if (busy || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || this.root.hidden) return;
      if (event.key === "ArrowLeft") this.step(-1);
      else if (event.key === "ArrowRight") this.step(1);
      else return;
      event.preventDefault();
    }

    #choose(id) {
      this.id = id;
      this.number = null;
      this.changed(id);
      this.#load();
    }

    #where() {
      const row = this.columns.row(this.id);
      const newest = this.columns.number[this.columns.length - 1];
      if (row >= 0) this.number = this.columns.number[row];
      const there = known(this.number);
      write(this.part("number"), there ? format.integer(this.number) : format.DASH);
      write(this.part("total"), format.integer(this.columns.total));
      this.part("older").disabled = !there || this.number <= 1;
      this.part("newer").disabled = !there || this.number >= newest;
      const newer = there ? newest - this.number : 0;
      const chip = this.part("follow");
      chip.classList.toggle("live-chip-on", !this.following);
      chip.setAttribute("aria-pressed", String(this.following));
      const text = newer > 0 ? `${format.integer(newer)} newer` : "Follow";
      write(this.part("follow-text"), this.following ? "Following" : text);
      chip.title = this.following ? "The newest finished micrograph is shown as it comes." : "Show the newest and follow it.";
    }

    async #load() {
      const id = this.id;
      const kept = this.details.get(id);
      if (kept) return this.#show(kept);
      if (this.loading) this.loading.abort();
      const loading = (this.loading = new AbortController());
      try {
        const response = await fetch(this.address(id), { signal: loading.signal, redirect: "manual" });
        if (!response.ok) throw new Error(`The server answered ${response.status}.`);
        const detail = await response.json();
        this.details.set(id, detail);
        if (this.details.size > KEPT) this.details.delete(this.details.keys().next().value);
        if (this.id === id) this.#show(detail);
      } catch (error) {
        if (loading.signal.aborted) return;
        // The connection's own message is the poller's; here only: what is shown is not what was asked for.
        write(this.part("name"), "This micrograph could not be read.");
        this.part("name").title = String(error);
        const again = () => this.id === id && !this.details.has(id) && this.#load();
        setTimeout(() => document.visibilityState === "visible" && again(), 3000);
      }
    }

    #show(detail) {
      const name = this.part("name");
      write(name, detail.name.split("/").pop());
      name.title = detail.name;
      this.#values(detail);
      this.#picture("micrograph", detail.picture, `Micrograph ${detail.name}`);
      this.#picture("psd", detail.psd, `Power spectrum of ${detail.name}`);
      if (this.columns.row(detail.id) < 0) this.#place(detail);
    }

    /** Chosen where the columns do not have it: its number, and then the charts' mark and its neighbours. */
    async #place(detail) {
      if (!known(detail.number)) return;
      this.number = detail.number;
      this.#where();
      await this.around(detail.number);
      if (this.id === detail.id) this.#where();
    }

    #values(detail) {
      const list = this.part("values");
      const rows = [];
      for (const { key, label, text, unit } of [...detail.values, ...detail.facts.map(asValue)]) {
        const value = make("dd", { "data-value": key, className: text === null ? "live-unknown" : "" });
        value.append(text === null ? format.DASH : text);
        if (text === null) value.title = "Not known yet: the pipeline has not sent it for this micrograph.";
        else if (unit) value.append(unit === "°" ? "" : " ", make("span", { className: "live-unit", text: unit }));
        rows.push(make("div", {}, [make("dt", { text: label }), value]));
      }
      list.replaceChildren(...rows);
    }

    async #picture(kind, source, alt) {
      const frame = this.part(kind);
      const asked = (frame.dataset.asked = source || "");
      const none = frame.querySelector(".live-none");
      const old = frame.querySelector("img");
      if (!source) {
        if (old) old.remove();
        write(none, NO_PICTURE[kind]);
        none.hidden = false;
        this.#bar(frame, kind);
        return;
      }
      if (old && old.getAttribute("src") === source) return;
      const image = make("img", { src: source, alt, decoding: "async" });
      if (!old) {
        write(none, "Loading…");
        none.hidden = false;
      }
      try {
        // Decoded before it is shown: the old picture stays until the new one is there.
        await image.decode();
      } catch {
        if (frame.dataset.asked === asked) {
          if (old) old.remove();
          write(none, "The picture could not be loaded.");
          none.hidden = false;
        }
        return;
      }
      if (frame.dataset.asked !== asked) return;
      none.hidden = true;
      for (const other of frame.querySelectorAll("img")) other.remove();
      frame.prepend(image);
      if (kind === "micrograph") this.#shape(image.naturalWidth, image.naturalHeight);
      this.#bar(frame, kind);
    }

    /** A bar of about a fifth of the width, where pixel size and width are known. */
    #bar(frame, kind) {
      const bar = frame.querySelector(".live-bar");
      if (!bar) return;
      const { pixel_size: pixel, width } = this.run;
      bar.hidden = kind !== "micrograph" || !known(pixel) || !known(width) || !frame.querySelector("img");
      if (bar.hidden) return;
      const across = (pixel * width) / 10;
      const length = BAR_NM.filter((nm) => nm <= across / 4).pop() || BAR_NM[0];
      bar.style.width = `${(100 * length) / across}%`;
      write(bar.querySelector("span"), length >= 1000 ? `${length / 1000} µm` : `${length} nm`);
    }
  }

  const asValue = ({ key, label, text, at, unit }) =>
    known(at) ? { key, label, text: format.clock(at), unit: "" } : { key, label, text, unit };

  live.Viewer = Viewer;
})();
