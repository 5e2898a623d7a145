/**
 * When to come back after a connection ended: a pure table, without clock or socket.
 *
 * Every end of a connection, or of an attempt at one, has a close code (PROTOCOL.md; 1006 where
 * none came, which is what browsers say of most). The code has one of five rules:
 *
 *     again     a pause of random length, whose ceiling grows with every failure
 *     soon      a short pause once, then as `again`: the relay said that it restarts
 *     later     as `again` on top of at least some seconds: the relay asked for it
 *     replaced  another device took the place: wait to be asked
 *     stop      never: the token is wrong, revoked or expired
 *
 * What grew shrinks again only when a connection was logged in and stayed for a while, so that a
 * relay which takes everybody in and drops them is not hammered.
 */

import { CloseCode } from "./codes.js";

/**
 * Every number of a connection, in milliseconds (`growth` is a factor).
 * @typedef {object} Timers
 * @property {number} open from the first packet to the WebSocket's answer
 * @property {number} auth from `auth` to `auth.ok`
 * @property {number} ping of silence until we ask
 * @property {number} pingPatience until the connection is given up where nothing comes then
 * @property {number} alivePatience the same for `checkAlive`, where a person waits
 * @property {number} close for what is posted to be written, and for the close code
 * @property {number} firstPause a pause is anywhere between 0 and a ceiling that grows
 * @property {number} growth
 * @property {number} longestPause
 * @property {number} stable a connection that stayed so long was a good one
 * @property {number} restartPause after 1012
 * @property {number} laterPause at least, after 1013 and 4029 without `retry_after_ms`
 * @property {number} longestRetryAfter believed of a relay's `retry_after_ms`
 */

/** @type {Readonly<Timers>} */
export const DEFAULT_TIMERS = Object.freeze({
  open: 10_000,
  auth: 10_000,
  ping: 25_000,
  // The relay may stop reading for 8 s to slow us, and answers only then.
  pingPatience: 10_000,
  alivePatience: 3_000,
  close: 2_000,
  firstPause: 1_000,
  growth: 1.5,
  longestPause: 60_000,
  stable: 10_000,
  restartPause: 1_000,
  laterPause: 5_000,
  longestRetryAfter: 24 * 3_600_000,
});

/** @typedef {"again" | "soon" | "later" | "replaced" | "stop"} Rule */

// A relay under plain Daphne can send no code below 3000 but 1000: it adds 3000.
const DAPHNE = 3000;

/** @type {Record<number, Rule>} */
const RULES = {
  [CloseCode.RESTARTING]: "soon",
  [CloseCode.RESTARTING + DAPHNE]: "soon",
  [CloseCode.TRY_LATER]: "later",
  [CloseCode.TRY_LATER + DAPHNE]: "later",
  [CloseCode.TOO_MANY_FAILURES]: "later",
  [CloseCode.REPLACED]: "replaced",
  [CloseCode.UNAUTHORIZED]: "stop",
  [CloseCode.REVOKED]: "stop",
};

/**
 * The rule of a close code; codes that nobody knows mean "connect again".
 * @param {number} code
 * @returns {Rule}
 */
export function ruleOf(code) {
  return RULES[code] ?? "again";
}

/**
 * `again`: come back in `ms`, and not before `notBefore` even if the user asks to. `stop`: do not
 * come back; unless `final`, the user may ask for it.
 * @typedef {{kind: "again", ms: number, notBefore: number} | {kind: "stop", final: boolean}} Verdict
 */

/** A phone's record of failures. `now` is in milliseconds of a clock that never goes back. */
export class Backoff {
  #timers;
  #random;
  /** @type {number | null} */
  #openedAt = null;
  #ceiling;
  /** @type {number | null} */
  #failingSince = null;
  #restarting = false;

  /**
   * @param {Timers} [timers]
   * @param {() => number} [random] from 0 to 1
   */
  constructor(timers = DEFAULT_TIMERS, random = Math.random) {
    this.#timers = timers;
    this.#random = random;
    this.#ceiling = timers.firstPause;
  }

  /** Forget the failures: the user asked to come back. */
  reset() {
    this.#ceiling = this.#timers.firstPause;
    this.#failingSince = null;
    this.#restarting = false;
  }

  /**
   * A connection was logged in.
   * @param {number} now
   */
  opened(now) {
    this.#openedAt = now;
  }

  /**
   * The verdict on an end with this close code, or on an attempt that failed (1006).
   * @param {number} now
   * @param {number} code
   * @param {number | null} [retryAfter] where the relay named a time
   * @returns {Verdict}
   */
  failed(now, code, retryAfter = null) {
    if (this.#openedAt !== null && now - this.#openedAt >= this.#timers.stable) this.reset();
    this.#openedAt = null;
    const rule = ruleOf(code);
    if (rule === "stop") return { kind: "stop", final: true };
    if (rule === "replaced") return { kind: "stop", final: false };
    const told = Math.min(retryAfter ?? 0, this.#timers.longestRetryAfter);
    const atLeast = rule === "later" && retryAfter === null ? this.#timers.laterPause : told;
    return { kind: "again", ms: atLeast + this.#jitter(now, rule), notBefore: told };
  }

  /**
   * @param {number} now
   * @param {Rule} rule
   */
  #jitter(now, rule) {
    const { firstPause, growth, longestPause, restartPause } = this.#timers;
    this.#failingSince ??= now;
    if (rule === "soon" && !this.#restarting) {
      this.#restarting = true;
      return this.#random() * restartPause;
    }
    // Where the dice fell low several times the ceiling has outgrown the outage. No pause is
    // longer than the outage so far (and a second), so that one of four seconds, a restart, never
    // costs more than five seconds after it.
    const ceiling = Math.min(this.#ceiling, firstPause + (now - this.#failingSince));
    this.#ceiling = Math.min(this.#ceiling * growth, longestPause);
    return this.#random() * ceiling;
  }
}
