/** Why a message failed, in words. */

import { t } from "../i18n.js";

/** Names and codes that have words of their own: `chat.failed.…`. */
const KNOWN = /** @type {const} */ ([
  "AttachmentError",
  "ConnectionLost",
  "DAILY_QUOTA_EXCEEDED",
  "DUPLICATE",
  "FileError",
  "InvalidAnswer",
  "MONTHLY_QUOTA_EXCEEDED",
  "MessageLost",
  "MessageTooLarge",
  "NOT_A_PICTURE",
  "NotConnected",
  "PairingRefused",
  "PeerOffline",
  "RATE_LIMITED",
  "ReplyIncomplete",
  "RequestTimeout",
  "SecretLost",
  "Stopped",
  "StoreError",
  "TOO_LARGE",
  "TOO_LARGE_INLINE",
  "UNSUPPORTED",
  "damaged",
]);

/**
 * @param {import("../model/message.js").Failure} failure
 * @returns {string} the agent's own words only where the page has none for its code
 */
export function failureText({ name, code, text }) {
  const known = KNOWN.find((word) => word === code);
  if (!known && text) return text;
  return t(`chat.failed.${known ?? KNOWN.find((word) => word === name) ?? "other"}`);
}
