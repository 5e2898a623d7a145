/** What an agent remembers of a conversation. */

import { Message } from "./message.js";

/** @typedef {{role: string, content: string, timestamp: unknown}} Entry */

/**
 * Messages for what is not here yet.
 * @param {Entry[]} entries oldest first
 * @param {Message[]} here
 * @returns {Message[]}
 */
export function merged(entries, here) {
  const said = here.map(({ role, text }) => ({ role, text }));
  const first = here[0]?.at ?? Number.POSITIVE_INFINITY;
  const messages = entries
    .filter(({ role, content }) => roleOf(role) && content)
    .map(({ role, content, timestamp }) => ({
      role: /** @type {"user" | "agent"} */ (roleOf(role)),
      text: content,
      at: time(timestamp),
    }))
    .filter(({ at }) => at === null || at < first);
  const fresh = [];
  // From the newest: what is here was said last.
  for (const message of messages.reverse()) {
    const known = said.findLastIndex(
      ({ role, text }) => role === message.role && text === message.text,
    );
    if (known >= 0) said.splice(known, 1);
    else fresh.push(message);
  }
  let last = here[0]?.at ?? Date.now();
  return fresh
    .map(({ role, text, at }) => {
      last = Math.min(at ?? last, last);
      return new Message({ id: crypto.randomUUID(), role, text, at: last, state: "done" });
    })
    .reverse();
}

/**
 * The answer to a question, if the agent remembers both.
 * @param {Entry[]} entries oldest first
 * @param {string} question
 * @param {number} [repeated] how often the same was asked after it
 * @returns {string | null}
 */
export function answerTo(entries, question, repeated = 0) {
  const same = entries.flatMap(({ role, content }, index) =>
    role === "user" && content === question ? [index] : [],
  );
  const asked = same.at(-1 - repeated);
  const next = asked === undefined ? undefined : entries[asked + 1];
  return next?.content && roleOf(next.role) === "agent" ? next.content : null;
}

/** @param {string} role */
function roleOf(role) {
  if (role === "user") return "user";
  return role === "assistant" || role === "agent" ? "agent" : null;
}

/**
 * Unix milliseconds of what an agent may give: those, or seconds, or a date.
 * @param {unknown} timestamp
 * @returns {number | null}
 */
function time(timestamp) {
  if (typeof timestamp === "string") return Date.parse(timestamp) || null;
  if (typeof timestamp !== "number" || !Number.isFinite(timestamp) || timestamp <= 0) return null;
  return timestamp < 1e11 ? timestamp * 1000 : timestamp;
}
