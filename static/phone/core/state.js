/** What a phone tells of its connection: one word, and what belongs to it. */

import { PairingRefused, SecretLost, Stopped, StoreError } from "./errors.js";

/**
 * @typedef {"closed" | "connecting" | "waiting" | "agent-offline" | "handshaking" | "ready"
 *   | "replaced" | "revoked" | "unauthorized" | "refused" | "storage" | "lost"} Kind
 */

/**
 * `kind` is what there is:
 *
 * - closed: `connect` was not called, or `close` was
 * - connecting: to the relay
 * - waiting: for the next attempt, at `retryAt`
 * - agent-offline: the relay is there, the agent is not
 * - handshaking: both are there, and exchange keys
 * - ready: messages go through
 * - replaced: another device took the place; `reconnect` takes it back
 * - revoked, unauthorized: the relay does not take the token; nothing helps but a new pairing
 * - refused: the agent does not take the pairing's secret, or does not answer (`failure`); it is
 *   tried again every minute, and by `reconnect`
 * - storage: the store failed, so a secret could not be read, or a new one not be kept; `connect`
 *   tries again
 * - lost: the store does not have the pairing's secret any more; nothing helps but a new pairing
 *
 * @typedef {object} State
 * @property {Kind} kind
 * @property {number} [retryAt] when the next attempt begins, in Unix milliseconds
 * @property {string} [cause] why it is so, in a sentence
 * @property {string} [failure] SECRET_REFUSED, NO_VERSION_2, NO_VERSION_1 or NO_ANSWER
 */

/**
 * @typedef {object} Facts
 * @property {boolean} running
 * @property {boolean} online at the relay
 * @property {boolean} agentOnline says the relay
 * @property {boolean} ready
 * @property {Error | null} failure
 * @property {number | null} retryAt
 * @property {string} cause
 */

/** @type {Record<number, Kind>} */
const STOPPED = { 4002: "replaced", 4003: "revoked" };

/**
 * @param {Facts} facts
 * @returns {State}
 */
export function stateOf({ running, online, agentOnline, ready, failure, retryAt, cause }) {
  if (failure instanceof SecretLost) return { kind: "lost", cause: failure.message };
  if (failure instanceof StoreError) return { kind: "storage", cause: failure.message };
  if (failure instanceof Stopped) {
    return { kind: STOPPED[failure.code] ?? "unauthorized", cause: failure.message };
  }
  if (!running) return { kind: "closed" };
  if (!online) {
    if (retryAt !== null) return { kind: "waiting", retryAt, cause };
    return cause ? { kind: "connecting", cause } : { kind: "connecting" };
  }
  if (ready) return { kind: "ready" };
  if (failure instanceof PairingRefused) {
    return { kind: "refused", failure: failure.failure, cause: failure.message };
  }
  return { kind: agentOnline ? "handshaking" : "agent-offline" };
}
