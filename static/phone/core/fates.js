/** What becomes of messages that were sent: a refusal or a report of loss names one. */

/** @typedef {import("./insistence.js").Fate} Fate */

// Messages whose fate may still become known.
const MOST = 8192;

/** Who is to be told, by the id of the message. */
export class Fates {
  /** @type {Map<string, Fate>} */
  #fates = new Map();

  /**
   * @param {string} id
   * @param {Fate} fate
   */
  add(id, fate) {
    this.#fates.set(id, fate);
    for (const oldest of this.#fates.keys()) {
      if (this.#fates.size <= MOST) break;
      this.#fates.delete(oldest);
    }
  }

  /**
   * It is known, and told once.
   * @param {string} id
   * @param {Error} error
   */
  tell(id, error) {
    const fate = this.#fates.get(id);
    this.#fates.delete(id);
    fate?.(error);
  }

  clear() {
    this.#fates.clear();
  }
}
