/** What was on its way when the page was left. */

/** @typedef {import("./message.js").Message} Message */

/**
 * Goes on with it, or tells that it has failed.
 * @param {import("./conversation.js").Conversation} conversation
 * @param {Message[]} messages that are not settled
 * @param {{outbox: import("./outbox.js").Outbox, version: 1 | 2}} pairing
 * @returns {Message[]} answers whose questions are not read yet
 */
export function resume(conversation, messages, { outbox, version }) {
  const early = [];
  for (const answer of messages.filter(({ role }) => role === "agent")) {
    const question = conversation.messages.find(({ id }) => id === answer.refId);
    if (!question && conversation.hasOlder) {
      early.push(answer);
    } else if (!answer.text) {
      conversation.remove(answer);
    } else if (question && !question.settled && version === 2) {
      outbox.recall(conversation, question, answer);
    } else {
      answer.state = "failed";
      answer.error = { name: "ConnectionLost" };
      conversation.update(answer);
    }
  }
  for (const question of messages.filter(({ role }) => role === "user")) {
    if (outbox.has(question)) continue;
    if (question.state === "waiting" || version === 2) {
      question.state = "waiting";
      outbox.add(conversation, question, Promise.resolve());
    } else {
      // Version 1 would be asked twice.
      question.state = "failed";
      question.error = { name: "ConnectionLost" };
    }
    conversation.update(question);
  }
  return early;
}
