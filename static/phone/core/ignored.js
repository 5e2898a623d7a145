/** What must not be acted on is dropped, and that is told. */

/**
 * @param {string} why never what is in the message
 * @param {string} id
 * @returns {import("./session_events.js").Ignored}
 */
export function ignored(why, id) {
  return { kind: "ignored", why, id };
}
