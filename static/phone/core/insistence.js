/** Messages that must arrive: sent again, under the same id, where they were refused or lost. */

import { ConnectionLost, PeerOffline, RelayRefused } from "./errors.js";

/** @typedef {(error: Error) => void} Fate */

// Milliseconds that a message which must arrive waits for its next try: a minute's allowance comes
// back, a day's quota is no use waiting for.
const PATIENCE_MS = 60_000;

// Milliseconds until it is sent again where the relay says that the agent is away, and the session
// lives on: it says so of one that reads slowly, too.
const OFFLINE_MS = [1_000, 5_000, 15_000];

// Times that a message goes out where nobody is away.
const TRIES = 3;

/** The messages of one channel that must arrive; they belong to its session. */
export class Insistence {
  #send;
  /** @type {Set<ReturnType<typeof setTimeout>>} */
  #timers = new Set();

  /**
   * @param {(type: string, payload: Record<string, unknown>,
   *   how: {id: string, onFailure: Fate}) => Promise<string>} send
   */
  constructor(send) {
    this.#send = send;
  }

  /**
   * Send it, and see to it that it arrives. `patient`: also where the agent is away for a moment.
   * @param {string} type
   * @param {Record<string, unknown>} payload
   * @param {{id: string, patient: boolean}} how
   */
  send(type, payload, { id, patient }) {
    const waits = patient ? [...OFFLINE_MS] : [];
    let left = TRIES;
    /** @param {Error} error */
    const refused = (error) => {
      if (error instanceof ConnectionLost) return;
      if (error instanceof PeerOffline) {
        const wait = waits.shift();
        if (wait !== undefined) this.#later(wait, attempt);
        return;
      }
      left -= 1;
      const after = error instanceof RelayRefused ? error.retryAfterMs : 0;
      if (left > 0 && after !== null && after <= PATIENCE_MS) this.#later(after, attempt);
    };
    const attempt = () => {
      // Without a session there is nobody to insist with.
      this.#send(type, payload, { id, onFailure: refused }).catch(() => {});
    };
    attempt();
  }

  /** The session is over, and told to all: nothing is sent again. */
  end() {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  /**
   * @param {number} ms
   * @param {() => void} work
   */
  #later(ms, work) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      work();
    }, ms);
    this.#timers.add(timer);
  }
}
