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
  "NotConnected",
  "PairingRefused",
  "PeerOffline",
  "RATE_LIMITED",
  "ReplyIncomplete",
  "RequestTimeout",
  "Stopped",
  "StoreError",
  "UNSUPPORTED",
]);

/**
 * @param {import("../model/message.js").Failure} failure
 * @returns {string} the agent's own words where it has some
 */
export function failureText({ name, code, text }) {
  if (text) return text;
  const known = KNOWN.find((word) => word === code) ?? KNOWN.find((word) => word === name);
  return t(known ? `chat.failed.${known}` : "chat.failed.other");
}
