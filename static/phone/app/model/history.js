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
 * @param {Entry[]} entries oldest first, maybe only the newest of them
 * @param {Message} question
 * @param {readonly Message[]} here the newest messages of its conversation, as many
 * @returns {string | null}
 */
export function answerTo(entries, question, here) {
  const asked = here.filter(
    ({ role, text, state }) => role === "user" && text === question.text && state !== "waiting",
  );
  const place = asked.indexOf(question);
  if (place < 0) return null;
  const remembered = entries.flatMap(({ role, content }, index) =>
    role === "user" && content === question.text ? [index] : [],
  );
  const found = remembered.at(place - asked.length);
  const next = found === undefined ? undefined : entries[found + 1];
  if (!next?.content || roleOf(next.role) !== "agent") return null;
  // An agent may remember a question with its answer only: until then the one found is one that
  // was asked before.
  const earlier = asked.slice(0, place).map((message) => here[here.indexOf(message) + 1]?.text);
  const all = remembered.length >= asked.length;
  return all || !earlier.includes(next.content) ? next.content : null;
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
