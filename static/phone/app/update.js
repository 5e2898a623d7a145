/** A new version of the page: fetched by the service worker, used when the user says so. */

/** Its event: "change", when a new version is ready. */
export class Update extends EventTarget {
  /** @type {ServiceWorkerRegistration | null} */
  #registration = null;

  /** Whether a new version waits to be used. */
  get ready() {
    // The first worker of a browser waits for nobody: there is no older page.
    return Boolean(this.#registration?.waiting && navigator.serviceWorker.controller);
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
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), {
      once: true,
    });
    this.#registration?.waiting?.postMessage({ type: "activate" });
  }

  /** @param {ServiceWorker | null} worker */
  #follow(worker) {
    worker?.addEventListener("statechange", this.#tell);
  }

  #tell = () => {
    this.dispatchEvent(new CustomEvent("change"));
  };
}
