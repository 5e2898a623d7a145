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
 * Nothing of a message is on its way any more.
 * @param {Message} message
 * @param {import("./message.js").State} state
 */
export function halt(message, state) {
  message.state = state;
  message.tool = null;
  message.pictures = message.pictures.filter(({ coming }) => !coming);
  for (const picture of message.pictures) picture.progress = undefined;
}

/**
 * Puts an entry before those that stand behind it in its conversation. Clocks are set; places stay.
 * @param {Entry} entry
 * @param {Entry[]} waiting
 */
export function queue(entry, waiting) {
  const { messages } = entry.conversation;
  const place = messages.indexOf(entry.question);
  const next = waiting.findIndex(
    ({ conversation, question }) =>
      conversation === entry.conversation && messages.indexOf(question) > place,
  );
  waiting.splice(next < 0 ? waiting.length : next, 0, entry);
}

/**
 * Shows what comes of an answer as it comes.
 * @param {Entry} entry
 * @param {Answer} asking
 */
export function listen(entry, asking) {
  const { conversation } = entry;
  const on = (/** @type {string} */ type, /** @type {(detail: any) => void} */ work) => {
    asking.addEventListener(type, (event) => {
      if (!entry.answer || entry.stopped || entry.dropped) return;
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
