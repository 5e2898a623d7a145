/** At most one tab serves a pairing: the one that asked for it last. */

// Milliseconds that the tab which serves it has to write what it knows, and let go.
const PATIENCE = 1000;

export class Place {
  #name;
  #locks;
  #tabs;
  /** When this tab asked: of two that ask each other, the later one has it. */
  #since = 0;
  /** @type {(() => void) | null} lets other tabs have it */
  #release = null;
  #onWanted;
  #onLost;

  /**
   * @param {string} id of the pairing
   * @param {LockManager | undefined} locks without them tabs are not told apart
   * @param {() => Promise<void>} onWanted another tab asks for it: ends what this tab does, and
   *   writes it
   * @param {() => void} onLost another tab has it
   */
  constructor(id, locks, onWanted, onLost) {
    this.#name = `coralmux:${id}`;
    this.#locks = locks;
    this.#tabs = new BroadcastChannel(this.#name);
    this.#onWanted = onWanted;
    this.#onLost = onLost;
    this.#tabs.onmessage = ({ data }) => this.#wanted(data);
  }

  /** Whether this tab serves the pairing, or is about to. */
  get taken() {
    return this.#release !== null;
  }

  /**
   * Takes the place from other tabs.
   * @param {() => Promise<void>} work done once it is had
   * @returns {Promise<void>} when that is done, or the place was lost; never rejects
   */
  take(work) {
    /** @type {() => void} */
    let release = () => {};
    const released = /** @type {Promise<void>} */ (
      new Promise((resolve) => {
        release = resolve;
      })
    );
    this.#release = release;
    const locks = this.#locks;
    if (!locks) return work();
    this.#since = Date.now() + Math.random();
    this.#tabs.postMessage(this.#since);
    return new Promise((started) => {
      let had = false;
      const hold = async () => {
        had = true;
        await work();
        started();
        await released;
      };
      locks
        .request(this.#name, { signal: AbortSignal.timeout(PATIENCE) }, hold)
        .catch((error) => {
          if (had || this.#release !== release) throw error;
          // The tab that serves it does not answer.
          return locks.request(this.#name, { steal: true }, hold);
        })
        .catch(() => {
          started();
          this.#lost(release);
        });
    });
  }

  /** Lets other tabs have it. */
  leave() {
    this.#release?.();
    this.#release = null;
  }

  /** Leaves it, and hears of nothing any more. */
  close() {
    this.leave();
    this.#tabs.close();
  }

  /** @param {number} since when another tab asked */
  async #wanted(since) {
    const release = this.#release;
    if (!release || since < this.#since) return;
    await this.#onWanted();
    this.#lost(release);
    release();
  }

  /** @param {() => void} release of the time that is over */
  #lost(release) {
    if (this.#release !== release) return;
    this.#release = null;
    this.#onLost();
  }
}
