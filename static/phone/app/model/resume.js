/** What was on its way in a conversation when the page was left. */

/** @typedef {import("./message.js").Message} Message */

export class Unsettled {
  /** How many questions of that kind were read so far. */
  questions = 0;
  #conversation;
  #pairing;
  /** @type {Message[]} answers whose questions are not read yet */
  #early = [];

  /**
   * @param {import("./conversation.js").Conversation} conversation
   * @param {{outbox: import("./outbox.js").Outbox, version: 1 | 2}} pairing
   */
  constructor(conversation, pairing) {
    this.#conversation = conversation;
    this.#pairing = pairing;
  }

  /**
   * Goes on with it, or tells that it has failed.
   * @param {Message[]} older messages that were read
   */
  resume(older) {
    const left = [...older.filter(({ settled }) => !settled), ...this.#early];
    const questions = left.filter(({ role }) => role === "user");
    this.questions += questions.length;
    this.#early = [];
    for (const answer of left) if (answer.role === "agent") this.#answer(answer);
    for (const question of questions) this.#question(question);
  }

  /**
   * Nothing more is to come of an answer whose question is not read yet, nor of that one.
   * @param {Message} answer
   * @returns {boolean} whether it is one
   */
  giveUp(answer) {
    if (!this.#early.includes(answer)) return false;
    this.#early = this.#early.filter((other) => other !== answer);
    answer.state = "cancelled";
    return true;
  }

  /** @param {Message} answer */
  #answer(answer) {
    const conversation = this.#conversation;
    const { outbox, version } = this.#pairing;
    const question = conversation.messages.find(({ id }) => id === answer.refId);
    if (!question && conversation.hasOlder) {
      this.#early.push(answer);
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

  /** @param {Message} question */
  #question(question) {
    const conversation = this.#conversation;
    const { outbox, version } = this.#pairing;
    if (outbox.has(question)) return;
    const answered = conversation.messages.some(
      ({ refId, settled }) => refId === question.id && settled,
    );
    if (answered) {
      // The page of its answer was kept, and its own was not.
      question.state = "done";
    } else if (question.state === "waiting" || version === 2) {
      question.state = "waiting";
      outbox.add(conversation, question, Promise.resolve());
    } else {
      // Version 1 would be asked twice.
      question.state = "failed";
      question.error = { name: "ConnectionLost" };
    }
    conversation.update(question);
  }
}
