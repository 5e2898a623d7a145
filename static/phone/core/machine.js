/** Which version a pairing speaks: the machine that is made for what is known of it. */

import { SecretLost } from "./errors.js";
import { LegacySession } from "./legacy.js";
import { PhoneSession } from "./session.js";

/** @typedef {PhoneSession | LegacySession} Machine */

// Abilities that both ends tell each other.
const CAPS = ["cancel", "files"];

/**
 * Version 2 with a secret, version 1 without. Throws SecretLost where `atLeast` forbids that.
 * @param {object} pairing
 * @param {string} pairing.token
 * @param {import("./session_events.js").Secrets | null} pairing.secrets
 * @param {string} pairing.name
 * @param {string} pairing.version of the program
 * @param {1 | 2} [pairing.atLeast]
 * @param {import("./crypto.js").CryptoProvider} pairing.crypto
 * @returns {Machine}
 */
export function machineFor({ token, secrets, name, version, atLeast = 1, crypto }) {
  if (secrets) {
    return new PhoneSession({ token, secrets, identity: { name, version, caps: CAPS }, crypto });
  }
  if (atLeast === 1) return new LegacySession({ crypto });
  throw new SecretLost(
    "The secret of this pairing is not here any more, and without it nothing is sent. Pair " +
      "again with a new link.",
  );
}

/** @param {Machine} machine */
export function versionOf(machine) {
  return machine instanceof PhoneSession ? 2 : 1;
}
