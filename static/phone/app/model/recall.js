/**
 * An answer whose end was not seen, from the memory of the agent that goes on with it.
 *
 * The agent is asked at once, then ever more rarely, and whenever it comes back; in all for about
 * five minutes of the time that it is there.
 */

import { AgentError } from "../../core/errors.js";
import { answerTo } from "./history.js";

/** @typedef {import("./message.js").Message} Message */
/** @typedef {import("./conversation.js").Conversation} Conversation */

// Milliseconds until the agent is asked again: doubled each time, up to the longest.
const FIRST = 1000;
const LONGEST = 30_000;
const TIMES = 15;

// Entries of the agent's memory among which an answer is looked for.
const ENTRIES = 40;

export class Recall {
  #phone;
  #conversation;
  #question;
  #asked = 0;
  #asking = false;
  #over = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #onEnd;

  /**
   * @param {() => import("../../core/index.js").Phone | null} phone
   * @param {Conversation} conversation
   * @param {Message} question
   * @param {(text: string | null) => void} onEnd told once: the answer, null where there is none
   */
  constructor(phone, conversation, question, onEnd) {
    this.#phone = phone;
    this.#conversation = conversation;
    this.#question = question;
    this.#onEnd = onEnd;
  }

  /** Asks now, if the agent is there; else it is asked once this is called again. */
  async ask() {
    clearTimeout(this.#timer);
    const phone = this.#phone();
    if (this.#over || this.#asking || phone?.state.kind !== "ready") return;
    this.#asking = true;
    this.#asked += 1;
    try {
      const { agentId, messages } = this.#conversation;
      const entries = await phone.history({ agentId, limit: ENTRIES });
      const answer = answerTo(entries, this.#question, messages.slice(-ENTRIES));
      if (answer !== null || this.#asked >= TIMES) this.#end(answer);
    } catch (error) {
      const never = error instanceof AgentError && error.code === "UNSUPPORTED";
      if (never || this.#asked >= TIMES) this.#end(null);
    } finally {
      this.#asking = false;
    }
    if (this.#over) return;
    const wait = Math.min(FIRST * 2 ** (this.#asked - 1), LONGEST);
    this.#timer = setTimeout(() => this.ask(), wait);
  }

  /** Nobody wants it any more. */
  close() {
    this.#over = true;
    clearTimeout(this.#timer);
  }

  /** @param {string | null} answer */
  #end(answer) {
    if (this.#over) return;
    this.close();
    this.#onEnd(answer);
  }
}
