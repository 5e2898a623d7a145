/** Keeps a phone inside the frames that the relay allows. */

// Of n frames a second that are announced 0.9 n are used, and one second's worth at once: our
// clock and the relay's differ, and frames bunch up on the way.
const SHARE = 0.9;

// A relay that announces nothing counts every message of a phone: 30 a minute.
const UNANNOUNCED = { rate: (30 / 60) * SHARE, burst: 25 };

/** A token bucket. Times are in milliseconds of a clock that never goes back. */
export class Pacer {
  #rate = UNANNOUNCED.rate;
  #burst = UNANNOUNCED.burst;
  #level = UNANNOUNCED.burst;
  #stamp = 0;

  /**
   * Take over the limit of a new connection; what was used stays used.
   * @param {number | null} framesPerSecond 0 is no limit, null: nothing was announced
   * @param {number} now
   */
  announce(framesPerSecond, now) {
    this.#advance(now);
    const used = this.#burst - this.#level;
    if (framesPerSecond === null) {
      ({ rate: this.#rate, burst: this.#burst } = UNANNOUNCED);
    } else {
      this.#rate = framesPerSecond === 0 ? Infinity : framesPerSecond * SHARE;
      this.#burst = framesPerSecond === 0 ? Infinity : framesPerSecond;
    }
    this.#level = Number.isFinite(this.#burst) ? Math.max(0, this.#burst - used) : Infinity;
  }

  /**
   * Milliseconds until a frame may go.
   * @param {number} now
   */
  delay(now) {
    this.#advance(now);
    return this.#level >= 1 ? 0 : Math.ceil(((1 - this.#level) / this.#rate) * 1000);
  }

  /**
   * Count a frame that goes. It may leave a debt, which later frames wait for.
   * @param {number} now
   */
  sent(now) {
    this.#advance(now);
    this.#level -= 1;
  }

  /** @param {number} now */
  #advance(now) {
    const gained = ((now - this.#stamp) / 1000) * this.#rate;
    this.#stamp = now;
    if (gained > 0) this.#level = Math.min(this.#burst, this.#level + gained);
  }
}
