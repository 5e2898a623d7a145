/** Why there is no connection, in sentences that say what to do about it. */

import { CloseCode } from "./codes.js";

/** @type {Record<number, string>} */
const BY_CODE = {
  [CloseCode.NORMAL]: "The relay closed the connection.",
  [CloseCode.PROTOCOL_ERROR]:
    "The relay could not read what this phone sent. If this repeats, update both.",
  [CloseCode.NOT_UTF8]: "The relay found something on the way that is no text. Update both ends.",
  [CloseCode.TOO_LARGE]:
    "This phone sent a message that is larger than the relay takes. Send less at a time.",
  [CloseCode.RELAY_ERROR]: "The relay failed. Its operator finds the reason in its log.",
  [CloseCode.RESTARTING]: "The relay restarts.",
  [CloseCode.TRY_LATER]: "The relay takes no more connections just now.",
  [CloseCode.UNAUTHORIZED]: "The relay does not take this token. Check it, or pair again.",
  [CloseCode.REPLACED]:
    "Another device or window connected with this pairing, and took the place of this one. " +
    "Only one can be connected at a time.",
  [CloseCode.REVOKED]: "This pairing was revoked or has expired. Pair again.",
  [CloseCode.AUTH_TIMEOUT]: "The relay waited for the token in vain. The network may be too slow.",
  [CloseCode.TOO_SLOW]:
    "The relay gave this connection up: it was too slow to read, or silent for too long.",
  [CloseCode.TOO_MANY_FAILURES]:
    "The relay saw too many failed attempts from this network, and lets it wait.",
};

export const BROKE = "The connection to the relay broke. Check the network if this repeats.";
export const UNREACHABLE =
  "The relay cannot be reached. Check whether this device is online, and the relay's address.";
export const SILENCE =
  "Nothing came from the relay any more, not even the answer to a ping. Check the network if " +
  "this repeats.";
export const NO_AUTH_ANSWER =
  "The relay did not answer the token in time. It is overloaded, or is no CoralMux relay.";
export const FLOODED = "The relay sent more than this phone can take in. It will try again.";
export const CLOSED = "The phone is closed.";

/**
 * What the relay's close code means. Codes from 3000 that Daphne raised count as theirs.
 * @param {number} code
 */
export function ofCode(code) {
  if (code === 1006) return BROKE;
  return BY_CODE[code] ?? BY_CODE[code - 3000] ?? `The relay closed the connection (${code}).`;
}
