/** How what comes is read that nobody vouches for: what is not as it should be is no message. */

import * as base64 from "./base64.js";
import { MAX_COUNTER, MAX_RETRY_AFTER_MS } from "./codes.js";
import { InvalidMessage } from "./envelope.js";

/** @typedef {import("./envelope.js").Payload} Payload */
/** @typedef {import("./session_events.js").PeerInfo} PeerInfo */

/** A key exchange in the clear. @typedef {{v: number, step: number, hs: string, noise: Uint8Array, pubkey: string}} KeyExchange */
/** A `chat.error` in the clear. @typedef {{code: string, message: string, ref: string, retryAfterMs: number | null}} ErrorPayload */

const PROTOCOL = 2;
const NAME_CHARACTERS = 64;
const CAPS = 32;
const REF_CHARACTERS = 64;

/**
 * @param {Payload} payload
 * @returns {KeyExchange | null}
 */
export function keyExchange({ v = 1, step = -1, hs = "", noise = "", pubkey = "" }) {
  if (!Number.isInteger(v) || !Number.isInteger(step)) {
    return null;
  }
  if (typeof hs !== "string" || typeof noise !== "string" || typeof pubkey !== "string") {
    return null;
  }
  try {
    return { v, step, hs, noise: base64.decode(noise), pubkey };
  } catch {
    return null;
  }
}

/**
 * @param {Payload} payload
 * @returns {ErrorPayload | null}
 */
export function errorPayload({ code, message = "", ref = "", retry_after_ms: wait = null }) {
  if (typeof code !== "string" || typeof message !== "string" || typeof ref !== "string") {
    return null;
  }
  // Anybody may write an integer here that no arithmetic survives; Infinity is one of those.
  if (wait !== null && (typeof wait !== "number" || Math.trunc(wait) !== wait)) {
    return null;
  }
  const retryAfterMs = wait === null ? null : Math.min(Math.max(wait, 0), MAX_RETRY_AFTER_MS);
  return { code, message, ref, retryAfterMs };
}

/**
 * Who the other end says it is.
 * @param {Payload} payload
 * @returns {PeerInfo}
 * @throws {InvalidMessage}
 */
export function peerInfo({ name, version, caps = [] }) {
  const listed = Array.isArray(caps) && caps.every((cap) => typeof cap === "string");
  if (typeof name !== "string" || typeof version !== "string" || !listed) {
    throw new InvalidMessage("The other end does not say who it is");
  }
  return {
    name: printable(name),
    version: printable(version),
    caps: caps.slice(0, CAPS),
    protocol: PROTOCOL,
    verified: true,
  };
}

/**
 * So much of a text as neither hides nor turns what is beside it.
 * @param {string} text
 * @param {number} [most] characters
 */
export function printable(text, most = NAME_CHARACTERS) {
  const seen = text.replace(/(?! )[\p{C}\p{Z}]/gu, "");
  return [...seen.slice(0, 2 * most)].slice(0, most).join("");
}

/** @param {string} id */
export function ref(id) {
  return { ref: [...id].slice(0, REF_CHARACTERS).join("") };
}

/** @param {unknown} value @returns {value is number} */
export function isCounter(value) {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) < MAX_COUNTER;
}
