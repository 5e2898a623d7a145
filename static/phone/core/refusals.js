/** What refusals mean, in our own words: those of a relay may be anybody's. */

import { AgentError, PeerOffline, RelayRefused } from "./errors.js";

/**
 * A relay's refusal of a message.
 * @typedef {{code: string, ref: string, retryAfterMs?: number | null}} Refusal
 */

/**
 * A relay's error for whoever sent the message.
 * @param {Refusal} hint
 * @returns {PeerOffline | RelayRefused}
 */
export function refusal({ code, ref, retryAfterMs = null }) {
  const ids = [ref];
  if (code === "PEER_OFFLINE") {
    return new PeerOffline(
      "The agent is not connected, or did not take the message. Send it again when it is back.",
      { ids },
    );
  }
  const again = retryAfterMs === null ? "later" : `in ${duration(retryAfterMs)}`;
  /** @type {Record<string, string>} */
  const texts = {
    RATE_LIMITED: `Too many messages for the relay. Send it again ${again}.`,
    DAILY_QUOTA_EXCEEDED: `The day's bandwidth of this pairing is used up. Send it again ${again}.`,
    MONTHLY_QUOTA_EXCEEDED: `The month's bandwidth of this pairing is used up. Send it again ${again}.`,
    MESSAGE_TOO_LARGE: "The message is too large for the relay. Send less at once.",
  };
  const text = texts[code] ?? "The relay did not take the message. Bring both ends up to date.";
  return new RelayRefused(text, { code, retryAfterMs, ids });
}

/**
 * What E2E_REQUIRED means to whoever sent the message sealed. A copy that a relay made in the
 * clear is answered so as well, while the message itself may have been taken.
 * @param {AgentError} error
 * @param {string} then what to do
 */
export function meddled(error, then) {
  return new AgentError(
    "A copy of this message came unsealed, so something on the way meddles. " +
      `Whether the message itself was taken is not known; ${then}`,
    { code: error.code, ids: error.ids },
  );
}

/** @param {number} ms */
function duration(ms) {
  const seconds = Math.ceil(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 120 ? `${minutes} minutes` : `${Math.ceil(minutes / 60)} hours`;
}
