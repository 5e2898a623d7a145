/** A question in the outbox, from the time that it waits to the end of its answer. */

/** @typedef {import("./message.js").Message} Message */
/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./recall.js").Recall} Recall */
/** @typedef {import("../../core/answer.js").Answer} Answer */

/**
 * @typedef {object} Entry
 * @property {Conversation} conversation
 * @property {Message} question
 * @property {Promise<void>} kept
 * @property {number} tries how often it went out
 * @property {Answer} [asking]
 * @property {Message} [answer]
 * @property {boolean} [heard] whether something of its answer came
 * @property {Recall} [recall] where the agent is asked what it remembers of its answer
 * @property {boolean} [stopped] the user wants no more of it
 * @property {boolean} [dropped] nobody wants it any more
 */

/**
 * Shows what comes of an answer as it comes.
 * @param {Entry} entry
 * @param {Answer} asking
 */
export function listen(entry, asking) {
  const { conversation } = entry;
  const on = (/** @type {string} */ type, /** @type {(detail: any) => void} */ work) => {
    asking.addEventListener(type, (event) => {
      if (!entry.answer || entry.dropped) return;
      entry.heard = true;
      work(/** @type {CustomEvent} */ (event).detail);
    });
  };
  on("delta", () => {
    const answer = /** @type {Message} */ (entry.answer);
    answer.text = asking.text;
    conversation.grow(answer);
  });
  on("tool", (tool) => {
    const answer = /** @type {Message} */ (entry.answer);
    answer.tool = tool;
    conversation.grow(answer);
  });
  on("progress", (progress) => {
    const answer = /** @type {Message} */ (entry.answer);
    conversation.album.receiving(answer, progress);
    conversation.grow(answer);
  });
}
