/** Finding a text in what was said. */

/** @typedef {import("./message.js").Message} Message */

/**
 * @param {readonly Message[]} messages
 * @param {string} text upper or lower case
 * @returns {{message: Message, index: number}[]} in their order; `index` is where in the message's
 *   text the first of them begins
 */
export function found(messages, text) {
  const wanted = plain(text);
  if (!wanted) return [];
  return messages
    .map((message) => ({ message, index: plain(message.text).indexOf(wanted) }))
    .filter(({ index }) => index >= 0);
}

/** @param {string} text */
function plain(text) {
  return text.normalize("NFC").toLocaleLowerCase();
}
