/** A new version of the page: fetched by the service worker, used when the user says so. */

/** Its event: "change", when a new version is ready. */
export class Update extends EventTarget {
  /** @type {ServiceWorkerRegistration | null} */
  #registration = null;
  /** Whether the new version is in use, in another tab. */
  #elsewhere = false;
  #applying = false;

  /** Whether there is a new version to be used. */
  get ready() {
    // The first worker of a browser waits for nobody: there is no older page.
    const waits = this.#registration?.waiting && navigator.serviceWorker.controller;
    return this.#elsewhere || Boolean(waits);
  }

  /**
   * Installs the service worker, which keeps the page for use without a network.
   *
   * @param {string} url
   * @returns {Promise<void>} never rejects: without the worker the page works while there is a
   *   network
   */
  async watch(url) {
    if (!navigator.serviceWorker) return;
    let controlled = Boolean(navigator.serviceWorker.controller);
    navigator.serviceWorker.addEventListener("controllerchange", () => {
      if (this.#applying) {
        location.reload();
        return;
      }
      this.#elsewhere = controlled;
      controlled = true;
      this.#tell();
    });
    try {
      const registration = await navigator.serviceWorker.register(url, {
        scope: location.pathname,
        updateViaCache: "none",
      });
      this.#registration = registration;
      this.#follow(registration.installing);
      registration.addEventListener("updatefound", () => this.#follow(registration.installing));
      this.#tell();
    } catch {
      // A certificate that the browser does not trust, for one.
    }
  }

  /** Asks the server whether there is a new version. */
  async check() {
    await this.#registration?.update().catch(() => {});
  }

  /** Loads the new version. */
  apply() {
    const worker = this.#registration?.waiting;
    this.#applying = true;
    if (worker) worker.postMessage({ type: "activate" });
    else location.reload();
  }

  /** @param {ServiceWorker | null} worker */
  #follow(worker) {
    worker?.addEventListener("statechange", this.#tell);
  }

  #tell = () => {
    this.dispatchEvent(new CustomEvent("change"));
  };
}
