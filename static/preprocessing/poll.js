/* Asks the server what changed, about once a second while the page is seen; says when it cannot. */
(() => {
  "use strict";
  const live = window.EMhubLive;
  const EVERY = 1000;
  const LONGEST = 15000;
  const TIMEOUT = 15000;

  /**
   * `address()` gives the next question, `accept(data)` takes an answer that changed something, `status(kind)` is
   * told "live", "lost", "login" or "gone". Quiet while hidden; asks at once when seen again.
   */
  class Poller {
    constructor({ address, accept, status }) {
      Object.assign(this, { address, accept, status });
      this.etag = null;
      this.failures = 0;
      this.timer = null;
      this.asking = null;
      this.stopped = false;
      this.heardAt = Date.now() / 1000;
      document.addEventListener("visibilitychange", () => this.#seen());
      window.addEventListener("online", () => this.#seen());
      window.addEventListener("pageshow", (event) => event.persisted && this.#seen());
    }

    start() {
      this.#ask();
    }

    /** Ask without waiting for the next turn; `anew`: for an answer whatever the reader has. */
    now(anew = false) {
      if (anew) this.etag = null;
      if (this.asking) this.again = true;
      else this.#later(0);
    }

    #seen() {
      if (document.visibilityState === "hidden") return clearTimeout(this.timer);
      // Also after a logout: people log in again in another tab.
      this.stopped = false;
      if (!this.asking) this.#later(0);
    }

    #later(wait) {
      clearTimeout(this.timer);
      if (!this.stopped && document.visibilityState === "visible") {
        this.timer = setTimeout(() => this.#ask(), wait);
      }
    }

    #stop(kind) {
      this.stopped = true;
      clearTimeout(this.timer);
      this.status(kind);
    }

    /** A fault of the page's own is no lost connection: it is reported as what it is, and the page goes on. */
    #take(data) {
      try {
        this.accept(data);
      } catch (error) {
        reportError(error);
      }
    }

    async #ask() {
      if (this.asking) return;
      const asking = (this.asking = new AbortController());
      const timeout = setTimeout(() => asking.abort("timeout"), TIMEOUT);
      let wait = EVERY;
      try {
        const headers = { Accept: "application/json" };
        if (this.etag) headers["If-None-Match"] = this.etag;
        const response = await fetch(this.address(), {
          headers,
          cache: "no-store",
          credentials: "same-origin",
          redirect: "manual",
          signal: asking.signal,
        });
        // Whoever is logged out is sent to the login page, which is no answer to this question.
        if (response.type === "opaqueredirect" || response.status === 401 || response.status === 403) {
          return this.#stop("login");
        }
        if (response.status === 404) return this.#stop("gone");
        if (response.status !== 304) {
          if (!response.ok) throw new Error(`The server answered ${response.status}.`);
          const data = await response.json();
          // Only now: an answer that could not be read must be asked for again.
          this.etag = response.headers.get("ETag");
          this.#take(data);
        }
        this.failures = 0;
        this.heardAt = Date.now() / 1000;
        this.status("live");
      } catch (error) {
        this.failures += 1;
        wait = Math.min(LONGEST, EVERY * 2 ** (this.failures - 1)) * (0.8 + 0.4 * Math.random());
        // One lost packet is no news.
        if (this.failures > 1 && document.visibilityState === "visible") this.status("lost");
        console.warn("Live data could not be read:", error);
      } finally {
        clearTimeout(timeout);
        this.asking = null;
        this.#later(this.again ? 0 : wait);
        this.again = false;
      }
    }
  }

  live.Poller = Poller;
})();
