/** Version 1 takes one question at a time: its answers do not say what they answer. */

import { RequestTimeout } from "./errors.js";
import { Change, TimedOut, within } from "./waiting.js";

// Milliseconds of silence after which an answer that nobody listens to counts as ended, and how
// long the next question waits for one that is overdue.
const SILENCE_MS = 300_000;
const LATE_MS = 2_000;

/** Whose turn it is to ask. In version 2 it is everybody's. */
export class Turns {
  #channel;
  #exchanges;
  #taken = false;
  #change = new Change();
  /** @type {import("./exchange.js").Exchange | null} */
  #abandoned = null;
  #patience = SILENCE_MS;

  /**
   * @param {{version: number}} channel
   * @param {import("./exchange.js").Exchanges} exchanges
   */
  constructor(channel, exchanges) {
    this.#channel = channel;
    this.#exchanges = exchanges;
  }

  /**
   * Wait for a turn; call what it returns at the end of it.
   *
   * Rejects with Interrupted, or with RequestTimeout where the agent goes on answering a question
   * that nobody listens to any more.
   * @param {AbortSignal} [signal]
   * @returns {Promise<() => void>}
   */
  async take(signal) {
    if (this.#channel.version === 2) return () => {};
    while (this.#taken) await this.#change.next(signal);
    this.#taken = true;
    const release = () => {
      this.#taken = false;
      this.#change.notify();
    };
    try {
      if (this.#abandoned) await this.#endOf(this.#abandoned, signal);
      return release;
    } catch (error) {
      release();
      throw error;
    }
  }

  /**
   * Nobody listens to this answer any more. Its rest still comes in version 1, and is not to be
   * taken for the next one's: the next question waits for its end. One that is overdue may be
   * lost as well, and is waited for only a little longer.
   * @param {import("./exchange.js").Exchange} exchange
   * @param {{overdue?: boolean}} [how]
   */
  abandon(exchange, { overdue = false } = {}) {
    if (this.#channel.version === 2) return;
    this.#abandoned = exchange;
    this.#exchanges.abandon(exchange);
    this.#patience = overdue ? LATE_MS : SILENCE_MS;
    if (overdue) exchange.touched = performance.now();
  }

  /**
   * @param {import("./exchange.js").Exchange} exchange
   * @param {AbortSignal} [signal]
   */
  async #endOf(exchange, signal) {
    const until = performance.now() + SILENCE_MS;
    while (exchange.unanswered) {
      const now = performance.now();
      const silentAt = exchange.touched + this.#patience;
      if (now >= silentAt) break;
      if (now >= until) {
        throw new RequestTimeout(
          "The agent still answers the question before, which nobody listens to any more, and " +
            "version 1 can cancel none. Ask again when it is done.",
        );
      }
      try {
        await within(Math.min(silentAt, until) - now, (stop) => exchange.touch(stop), signal);
      } catch (error) {
        if (!(error instanceof TimedOut)) throw error;
      }
    }
    this.#exchanges.close(exchange);
    this.#abandoned = null;
  }
}
