/** Tells a screen reader what becomes of messages, once it is known; not each word of an answer. */

import { t } from "../i18n.js";
import { announce } from "./announcer.js";
import { failureText } from "./failures.js";

/** @typedef {import("../model/message.js").Message} Message */

// Characters of an answer that are said by itself; all of it can be read in the list.
const SPOKEN = 1_000;

/**
 * @param {string} name the agent's
 * @param {Message[]} messages those that are there already
 * @returns {(message: Message) => void} to be told of each message that comes or changes
 */
export function speaker(name, messages) {
  const awaited = new WeakSet(messages.filter(({ settled }) => !settled));
  return (message) => {
    if (!message.settled) awaited.add(message);
    else if (awaited.delete(message)) {
      const words = wordsOf(message);
      if (words) announce(message.role === "agent" ? `${name}: ${words}` : words);
    }
  };
}

/** @param {Message} message that is settled */
function wordsOf({ role, text, state, error, pictures, links }) {
  const failure = error ? failureText(error) : "";
  // What the user wrote is known; that it was answered is heard by the answer.
  if (role === "user") return failure;
  const files = [...pictures.map(({ name }) => name), ...links.map(({ name, url }) => name || url)];
  const stopped = state === "cancelled" ? t("chat.cancelled") : "";
  const said = [text.slice(0, SPOKEN).trim(), files.join(", "), failure, stopped].filter(Boolean);
  return said.join(" ") || t("chat.wordless");
}
