/** A call at a time of the clock of `performance`, which can be put off and taken back. */

const LONGEST_MS = 2 ** 31 - 1;

/** See the module. It may ring too early, where timers do not reach so far. */
export class Alarm {
  #ring;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {() => void} ring */
  constructor(ring) {
    this.#ring = ring;
  }

  /** @param {number | null} deadline in milliseconds; null: never */
  set(deadline) {
    clearTimeout(this.#timer);
    if (deadline === null) return;
    const ms = Math.max(0, deadline - performance.now());
    this.#timer = setTimeout(this.#ring, Math.min(ms, LONGEST_MS));
  }
}
