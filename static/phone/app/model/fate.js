/** What becomes of a question whose asking ended in an error. */

import { AgentError, CoralmuxError, RelayRefused } from "../../core/errors.js";

/** @typedef {import("./message.js").Failure} Failure */
/** @typedef {import("./banner.js").Pause} Pause */

/**
 * `again`: it goes back to those that wait, under the same id. `pause`: so do all, until a time.
 * `recall`: the agent has it, and may remember its answer. `failed`: the user must decide.
 * @typedef {{kind: "again"} | {kind: "pause", pause: Pause} | {kind: "recall"}
 *   | {kind: "failed", failure: Failure}} Fate
 */

// Times that a question goes out although its agent reports that it never came.
const TRIES = 3;

// Milliseconds, where the relay does not say when; and the longest that it is believed.
const RATE_PAUSE = 10_000;
const RATE_PAUSE_MAX = 120_000;
const QUOTA_PAUSE_MAX = 32 * 24 * 3_600_000;

/** Errors that say that the question did not get there, and that waiting helps. */
const UNDELIVERED = ["NotConnected", "PeerOffline", "PairingRefused", "Stopped", "StoreError"];

/** Errors that end an answer which the agent may go on with. */
const CUT_OFF = ["ConnectionLost", "MessageLost", "ReplyIncomplete"];

/**
 * @param {unknown} error
 * @param {{version: 1 | 2, heard: boolean, tries: number, now: number}} facts `heard`: something
 *   of the answer came; `tries`: how often the question went out
 * @returns {Fate}
 */
export function fateOf(error, { version, heard, tries, now }) {
  const failed = /** @type {Fate} */ ({ kind: "failed", failure: failureOf(error) });
  if (!(error instanceof CoralmuxError)) return failed;
  // What the agent remembers of it would come in the clear in version 1.
  if (heard) return version === 2 && CUT_OFF.includes(error.name) ? { kind: "recall" } : failed;
  if (UNDELIVERED.includes(error.name)) return { kind: "again" };
  // Version 2 takes each id once, so that sending again is safe.
  if (error.name === "ConnectionLost") return version === 2 ? { kind: "again" } : failed;
  if (error.name === "MessageLost") return tries < TRIES ? { kind: "again" } : failed;
  if (error instanceof AgentError && error.code === "DUPLICATE") return { kind: "recall" };
  if (error instanceof RelayRefused) {
    const pause = pauseOf(error.code, error.retryAfterMs, now);
    if (pause) return { kind: "pause", pause };
  }
  return failed;
}

/**
 * @param {string} code of the relay's refusal
 * @param {number | null} retryAfterMs
 * @param {number} now Unix milliseconds
 * @returns {Pause | null} null where waiting does not help
 */
export function pauseOf(code, retryAfterMs, now) {
  if (code === "RATE_LIMITED") {
    const wait = Math.min(retryAfterMs ?? RATE_PAUSE, RATE_PAUSE_MAX);
    return { kind: "rate-limit", until: now + wait, code };
  }
  if (code === "DAILY_QUOTA_EXCEEDED" || code === "MONTHLY_QUOTA_EXCEEDED") {
    const date = new Date(now);
    const [year, month, day] = [date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate()];
    const reset =
      code === "DAILY_QUOTA_EXCEEDED"
        ? Date.UTC(year, month, day + 1)
        : Date.UTC(year, month + 1, 1);
    const wait = Math.min(retryAfterMs ?? reset - now, QUOTA_PAUSE_MAX);
    return { kind: "quota", until: now + wait, code };
  }
  return null;
}

/**
 * @param {unknown} error
 * @returns {Failure}
 */
export function failureOf(error) {
  if (!(error instanceof CoralmuxError)) return { name: "Error" };
  const { name } = error;
  // The library's own words are for programs; an agent's are for people.
  if (error instanceof AgentError) return { name, code: error.code, text: error.message };
  return "code" in error ? { name, code: String(error.code) } : { name };
}

/**
 * Why a pairing is over, so that nothing that waits will ever be sent.
 * @param {{kind: string, failure?: string}} state of the library's Phone
 * @returns {Failure | null}
 */
export function endOf({ kind, failure }) {
  if (kind === "lost") return { name: "SecretLost" };
  if (kind === "revoked" || kind === "unauthorized") return { name: "Stopped" };
  // An agent that does not answer may be busy, and is tried again.
  return kind === "refused" && failure !== "NO_ANSWER" ? { name: "PairingRefused" } : null;
}
