/** What a pairing has used of its bandwidth. */

const DAY_MS = 24 * 3_600_000;

/** @typedef {{dayBytes: number | null, monthBytes: number | null}} Used null: the relay did not say */

/**
 * What the relay said when it took us in, and what went over the connection since. As at the
 * relay, days and months begin at 0:00 UTC, with nothing.
 */
export class Tally {
  #dayBytes;
  #monthBytes;
  #day;
  #month;

  /**
   * @param {import("./greeting.js").Greeting | null} greeting
   * @param {number} now Unix milliseconds, as everywhere here
   */
  constructor(greeting, now) {
    this.#dayBytes = greeting?.dailyUsedBytes ?? null;
    this.#monthBytes = greeting?.monthlyUsedBytes ?? null;
    this.#day = Math.floor(now / DAY_MS);
    this.#month = new Date(now).getUTCMonth();
  }

  /**
   * @param {number} bytes that were sent or received
   * @param {number} now
   */
  add(bytes, now) {
    this.#turn(now);
    if (this.#dayBytes !== null) this.#dayBytes += bytes;
    if (this.#monthBytes !== null) this.#monthBytes += bytes;
  }

  /**
   * @param {number} now
   * @returns {Used}
   */
  at(now) {
    this.#turn(now);
    return { dayBytes: this.#dayBytes, monthBytes: this.#monthBytes };
  }

  /** @param {number} now */
  #turn(now) {
    const day = Math.floor(now / DAY_MS);
    if (day === this.#day) return;
    this.#day = day;
    if (this.#dayBytes !== null) this.#dayBytes = 0;
    const month = new Date(now).getUTCMonth();
    if (month === this.#month) return;
    this.#month = month;
    if (this.#monthBytes !== null) this.#monthBytes = 0;
  }
}
