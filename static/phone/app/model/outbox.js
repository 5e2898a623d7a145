/**
 * The questions of a pairing that wait to be sent, and those that wait for their answers.
 *
 * They go out in the order in which they were written, each once it is kept: one after another in
 * version 1, and in version 2 one behind the other while answers run side by side. One that is not
 * known to have arrived goes back to its place.
 */

import { halt, listen, queue } from "./entry.js";
import { failureOf, fateOf } from "./fate.js";
import { Recall } from "./recall.js";

/** @typedef {import("./message.js").Message} Message */
/** @typedef {import("./conversation.js").Conversation} Conversation */

/** @typedef {import("./entry.js").Entry} Entry */

// Milliseconds until a question goes out again where the relay says that the agent is away
// although it is not: it reads slowly. Doubled each time.
const UNTAKEN = 1000;
const UNTAKEN_MAX = 30_000;

// Milliseconds that a browser's timer can wait.
const LONGEST = 2 ** 31 - 1;

export class Outbox {
  /** @type {import("./banner.js").Pause | null} what keeps questions back */
  pause = null;
  /** @type {Entry[]} those that wait, in order */
  #waiting = [];
  /** @type {Set<Entry>} those on their way, or with the agent */
  #asking = new Set();
  #running = false;
  /** @type {import("./message.js").Failure | null} why nothing goes out any more */
  #over = null;
  /** until when nothing goes out, Unix milliseconds */
  #quiet = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #phone;
  #onChange;

  /**
   * @param {() => import("../../core/index.js").Phone | null} phone
   * @param {() => void} onChange told when `pause` or `open` change
   */
  constructor(phone, onChange) {
    this.#phone = phone;
    this.#onChange = onChange;
  }

  /**
   * How many questions of each conversation wait or are under way.
   * @returns {Map<Conversation, number>}
   */
  get open() {
    const counts = new Map();
    for (const { conversation } of [...this.#waiting, ...this.#asking]) {
      counts.set(conversation, (counts.get(conversation) ?? 0) + 1);
    }
    return counts;
  }

  /** @param {Message} message */
  has(message) {
    return this.#find(message) !== undefined;
  }

  /**
   * @param {Conversation} conversation
   * @param {Message} question
   * @param {Promise<void>} kept when it is kept
   */
  add(conversation, question, kept) {
    queue({ conversation, question, kept, tries: 0 }, this.#waiting);
    this.#onChange();
    this.run();
  }

  /**
   * An answer that was cut off when the page was left: the agent may remember all of it.
   * @param {Conversation} conversation
   * @param {Message} question
   * @param {Message} answer
   */
  recall(conversation, question, answer) {
    /** @type {Entry} */
    const entry = {
      conversation,
      question,
      answer,
      kept: Promise.resolve(),
      tries: 0,
      heard: true,
    };
    this.#asking.add(entry);
    this.#onChange();
    this.#recall(entry, { name: "ConnectionLost" }, answer.text);
  }

  /** There is a new session: sends what waits, unless a pause keeps it back. */
  wake() {
    this.#over = null;
    // The relay refuses anew what it does not want yet.
    if (this.pause?.kind === "rate-limit") this.hold(null);
    if (!this.pause) this.#quiet = 0;
    for (const { recall } of this.#asking) recall?.ask();
    this.run();
  }

  /**
   * The pairing is over: what waits, and what is written from now on, fails.
   * @param {import("./message.js").Failure} failure
   */
  end(failure) {
    this.#over = failure;
    this.run();
  }

  /** Sends what waits, if the agent is there. Safe to call at any time. */
  async run() {
    const over = this.#over;
    if (over) {
      const recalled = [...this.#asking].filter(({ recall }) => recall);
      for (const entry of [...recalled, ...this.#waiting]) {
        this.#fail(entry, over, entry.answer?.text ?? "");
      }
    }
    if (this.#running) return;
    this.#running = true;
    try {
      for (let entry = this.#next(); entry; entry = this.#next()) {
        this.#waiting.splice(this.#waiting.indexOf(entry), 1);
        this.#asking.add(entry);
        await this.#send(entry);
      }
    } finally {
      this.#running = false;
    }
  }

  /**
   * Ends an answer, or keeps a question from being sent.
   * @param {Message} message the question or its answer
   */
  stop(message) {
    const entry = this.#find(message);
    if (!entry) return;
    if (entry.recall) {
      this.#end(entry, entry.answer?.text ?? "", "cancelled", []);
      return;
    }
    entry.stopped = true;
    const { asking, answer, conversation, question } = entry;
    if (!asking) {
      this.#stopped(entry);
      return;
    }
    asking.cancel();
    // Kept before the agent knows it: the page may be left, and this be asked again.
    const said = answer?.text;
    halt(question, said ? "done" : "cancelled");
    conversation.update(question);
    if (!answer || !said) return;
    halt(answer, "cancelled");
    conversation.update(answer);
  }

  /**
   * A message is deleted: nothing comes of it any more, and what belongs to it stays as it is.
   * What waits behind it goes out with the next `run`.
   * @param {Message} message
   */
  drop(message) {
    const entry = this.#find(message);
    if (!entry) return;
    const { conversation, question, answer, asking } = entry;
    this.#forget(entry);
    asking?.cancel();
    halt(message, "cancelled");
    const other = message === question ? answer : question;
    if (!other) return;
    if (other === answer && !other.text) {
      conversation.remove(other);
      return;
    }
    halt(other, "cancelled");
    conversation.update(other);
  }

  /**
   * Sends nothing for a while.
   * @param {import("./banner.js").Pause | null} pause null ends it
   */
  hold(pause) {
    this.pause = pause;
    this.#rest(pause?.until ?? 0);
    this.#onChange();
  }

  /** Sends nothing any more. */
  close() {
    this.#onChange = () => {};
    clearTimeout(this.#timer);
    this.#waiting = [];
    for (const entry of this.#asking) {
      entry.dropped = true;
      entry.recall?.close();
    }
    this.#asking.clear();
  }

  /** @returns {Entry | undefined} what can go out now */
  #next() {
    const phone = this.#phone();
    if (phone?.state.kind !== "ready" || Date.now() < this.#quiet) return undefined;
    if (phone.version === 1 && [...this.#asking].some(({ recall }) => !recall)) return undefined;
    // Older ones may still be read.
    const [first] = this.#waiting;
    return first?.conversation.loaded ? first : undefined;
  }

  /**
   * Sends a question, and returns when it went out or failed.
   * @param {Entry} entry
   */
  async #send(entry) {
    const { conversation, question } = entry;
    const phone = this.#phone();
    question.state = "sending";
    question.error = null;
    // Persisted before it is sent; what cannot be kept is sent all the same.
    await Promise.all([entry.kept, conversation.update(question)]);
    if (entry.dropped || !phone) return;
    let attachments;
    try {
      attachments = await conversation.album.attachments(question, phone);
    } catch (error) {
      if (entry.dropped) return;
      // A picture that cannot be read, or made small enough: trying again does not help.
      await this.#fail(entry, failureOf(error), "");
      return;
    }
    if (question.pictures.some((picture) => picture.scaled)) conversation.update(question);
    if (entry.dropped) return;
    entry.tries += 1;
    entry.heard = false;
    const asking = phone.ask(question.text, {
      agentId: conversation.agentId,
      id: question.wireId,
      attachments,
      onProgress: (attachment, sent, total) => {
        const picture = question.pictures[attachments.indexOf(attachment)];
        if (entry.stopped || entry.dropped) return;
        picture.progress = sent < total ? sent / total : undefined;
        conversation.grow(question);
      },
    });
    entry.asking = asking;
    const sent = new Promise((resolve) => {
      asking.addEventListener("sent", () => {
        resolve(undefined);
        if (entry.dropped) return;
        if (!entry.stopped) question.state = "sent";
        entry.answer = conversation.begin(question);
        conversation.update(question);
      });
    });
    listen(entry, asking);
    const over = asking.finished.then(
      (end) => this.#answered(entry, end),
      (error) => this.#failed(entry, error),
    );
    await Promise.race([sent, over]);
  }

  /**
   * @param {Entry} entry
   * @param {{text: string, attachments: any[], cancelled: boolean}} end
   */
  async #answered(entry, { text, attachments, cancelled }) {
    if (entry.dropped) return;
    if (!entry.answer) {
      // Before it went out.
      await this.#stopped(entry);
      return;
    }
    const state = cancelled || entry.stopped ? "cancelled" : "done";
    await this.#end(entry, text, state, attachments);
  }

  /**
   * @param {Entry} entry
   * @param {string} text
   * @param {import("./message.js").State} state
   * @param {any[]} attachments
   * @param {import("./message.js").Failure | null} [failure]
   */
  async #end(entry, text, state, attachments, failure = null) {
    const { conversation, question } = entry;
    entry.answer ??= conversation.begin(question);
    const { answer } = entry;
    const files = attachments.filter((one) => one.data);
    answer.links = attachments.filter((one) => one.url).map(({ url, name }) => ({ url, name }));
    answer.text = text;
    const pictures = await Promise.all(files.map((file) => conversation.album.received(file)));
    // It may have been deleted meanwhile.
    if (entry.dropped) return;
    answer.pictures = pictures;
    answer.error = failure;
    halt(answer, state);
    question.state = "done";
    this.#forget(entry);
    conversation.update(question);
    await conversation.ended(answer);
    this.run();
  }

  /**
   * The user has ended it, whatever the agent has heard of that.
   * @param {Entry} entry
   */
  async #stopped(entry) {
    const { conversation, question, answer, asking } = entry;
    if (answer && asking && (asking.text || asking.attachments.length)) {
      await this.#end(entry, asking.text, "cancelled", asking.attachments);
      return;
    }
    this.#forget(entry);
    if (answer) conversation.remove(answer);
    halt(question, "cancelled");
    await conversation.update(question);
    this.run();
  }

  /**
   * @param {Entry} entry
   * @param {unknown} error
   */
  async #failed(entry, error) {
    if (entry.dropped) return;
    if (entry.stopped) {
      await this.#stopped(entry);
      return;
    }
    const phone = this.#phone();
    const version = phone?.version === 1 ? 1 : 2;
    const { heard = false, tries } = entry;
    const fate = fateOf(error, { version, heard, tries, now: Date.now() });
    if (fate.kind === "pause") this.hold(fate.pause);
    if (fate.kind === "again" || fate.kind === "pause") {
      if (phone?.state.kind === "ready" && fate.kind === "again") {
        const wait = Math.min(UNTAKEN * 2 ** (tries - 1), UNTAKEN_MAX);
        this.#rest(Math.max(this.#quiet, Date.now() + wait));
      }
      this.#back(entry);
      return;
    }
    const said = error instanceof Error && "text" in error ? String(error.text) : null;
    const text = said ?? entry.asking?.text ?? "";
    if (fate.kind === "recall") this.#recall(entry, failureOf(error), text);
    else await this.#fail(entry, failureOf(error), text);
  }

  /**
   * Asks the agent what it remembers of an answer, which is under way meanwhile.
   * @param {Entry} entry
   * @param {import("./message.js").Failure} failure where it remembers nothing
   * @param {string} text what came of it
   */
  #recall(entry, failure, text) {
    const { conversation, question } = entry;
    entry.answer ??= conversation.begin(question);
    entry.recall = new Recall(this.#phone, conversation, question, (whole) => {
      if (whole === null) this.#fail(entry, failure, text);
      else this.#end(entry, whole, "done", entry.asking?.attachments ?? []);
    });
    entry.recall.ask();
    this.run();
  }

  /**
   * @param {Entry} entry
   * @param {import("./message.js").Failure} failure
   * @param {string} text what came of the answer
   */
  async #fail(entry, failure, text) {
    // Once the agent has said something, the failure is its answer's; before, the question's.
    if (entry.heard || failure.name === "AgentError") {
      await this.#end(entry, text, "failed", entry.asking?.attachments ?? [], failure);
      return;
    }
    const { conversation, question, answer } = entry;
    this.#forget(entry);
    if (answer) await conversation.remove(answer);
    halt(question, "failed");
    question.error = failure;
    await conversation.update(question);
    this.run();
  }

  /**
   * Puts a question back to those that wait.
   * @param {Entry} entry
   */
  #back(entry) {
    const { conversation, question, answer } = entry;
    this.#asking.delete(entry);
    entry.asking = undefined;
    entry.answer = undefined;
    halt(question, "waiting");
    entry.kept = conversation.update(question);
    queue(entry, this.#waiting);
    if (answer) conversation.remove(answer);
    this.run();
  }

  /** @param {Message} message */
  #find(message) {
    const found = (/** @type {Entry} */ { question, answer }) =>
      question === message || answer === message;
    return this.#waiting.find(found) ?? [...this.#asking].find(found);
  }

  /** @param {Entry} entry */
  #forget(entry) {
    entry.dropped = true;
    entry.recall?.close();
    this.#asking.delete(entry);
    this.#waiting = this.#waiting.filter((other) => other !== entry);
    this.#onChange();
  }

  /** @param {number} until Unix milliseconds */
  #rest(until) {
    this.#quiet = until;
    clearTimeout(this.#timer);
    const wait = Math.min(Math.max(0, until - Date.now()), LONGEST);
    this.#timer = setTimeout(() => {
      if (Date.now() < this.#quiet) this.#rest(this.#quiet);
      else if (this.pause) this.hold(null);
      else this.run();
    }, wait);
  }
}
