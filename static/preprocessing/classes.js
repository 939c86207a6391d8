/* The newest 2D classification: a picture, particles, share and resolution of each class, most particles first. */
(() => {
  "use strict";
  const live = window.EMhubLive;
  const { format, make, write, known } = live;

  class Classes {
    constructor(root) {
      this.root = root;
      this.grid = root.querySelector("[data-classes]");
      this.title = root.querySelector("[data-classes-title]");
      this.figures = new Map();
    }

    show(block) {
      this.root.hidden = false;
      const shown = block.rows.length < block.count ? `the first ${format.integer(block.rows.length)} of ` : "";
      write(
        this.title,
        `${block.job}, iteration ${block.iteration}: ${shown}${format.integer(block.count)} classes, ` +
          `${format.integer(block.total)} particles`,
      );
      if (block.job !== this.job) {
        this.figures.forEach((figure) => figure.remove());
        this.figures = new Map();
        this.pictured = false;
      }
      this.job = block.job;
      this.pictured = this.pictured || block.rows.some((row) => row.image);
      this.grid.classList.toggle("live-no-pictures", !this.pictured);
      const kept = new Map();
      block.rows.forEach((row, place) => {
        const figure = this.figures.get(row.number) || this.#make(row);
        this.#fill(figure, row);
        kept.set(row.number, figure);
        // Moved only where the order changed: nothing flickers.
        if (this.grid.children[place] !== figure) this.grid.insertBefore(figure, this.grid.children[place] || null);
      });
      for (const [number, figure] of this.figures) if (!kept.has(number)) figure.remove();
      this.figures = kept;
    }

    #make(row) {
      return make("figure", { className: "live-class", "data-class": row.number }, [
        make("div", { className: "live-class-picture" }),
        make("figcaption", {}, [
          make("span", { "data-part": "particles" }),
          make("span", { className: "live-unit", "data-part": "share" }),
          make("span", { className: "live-unit", "data-part": "resolution" }),
        ]),
      ]);
    }

    #fill(figure, row) {
      const frame = figure.firstElementChild;
      const alt = `2D class ${row.number}`;
      const image = frame.querySelector("img");
      // Pictures come a moment after the numbers: until then the class's last one stays, paler.
      const former = !row.image && image !== null;
      if (!row.image && !image && !frame.hasChildNodes()) {
        frame.append(make("span", { className: "live-none", text: "No picture" }));
      } else if (row.image && (!image || image.getAttribute("src") !== row.image)) {
        const size = { width: 112, height: 112, loading: "lazy", decoding: "async" };
        if (image) image.src = row.image;
        else frame.replaceChildren(make("img", { src: row.image, alt, ...size }));
      }
      frame.classList.toggle("live-former", former);
      const part = (name) => figure.querySelector(`[data-part="${name}"]`);
      figure.title =
        `Class ${row.number}: ${format.integer(row.particles)} particles` +
        (former ? "; the picture is of an earlier iteration" : "");
      write(part("particles"), format.integer(row.particles));
      write(part("share"), known(row.share) ? format.percent(row.share) : "");
      write(part("resolution"), known(row.resolution) ? `${format.fixed(row.resolution, 1)} Å` : "");
    }
  }

  live.Classes = Classes;
})();
