/** What was said between the user and one agent. */

import { AttachmentError } from "../../core/errors.js";
import { Pages } from "../storage/pages.js";
import { merged } from "./history.js";
import { Message, Picture } from "./message.js";
import { paced } from "./pace.js";
import { measure, SCALABLE_BYTES, SENDABLE_BYTES } from "./scaling.js";

// Milliseconds after the last key until a draft is kept.
const DRAFT = 400;

// Messages of the agent's memory that are asked for when a conversation is new here.
const HISTORY = 100;

/**
 * In a tab that does not serve the pairing it is for reading: `send` takes the place back, and
 * `retry`, `remove` and `clear` do that and nothing else. `pairing.conversation` is another one
 * then.
 *
 * Its events: "change" {message?} (no message: many, or something else, such as `unread`),
 * "append" {message}, "remove" {message}, "older" {messages} (they came in front).
 * A message that is streaming changes at most every 16 ms.
 */
export class Conversation extends EventTarget {
  /** @type {Message[]} oldest first; those that were read from storage so far */
  messages = [];
  /** Whether the newest messages are here. */
  loaded = false;
  /** @type {{name: string, type: string, data: Blob}[]} pictures that were chosen and not sent */
  chosen = [];
  /** Whether the agent's memory is being asked. */
  fetching = false;
  #pairing;
  #pages;
  #draftName = "";
  #draft = "";
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #draftTimer;
  /** @type {Set<Promise<void>>} new messages that are not kept yet */
  #appending = new Set();
  /** @type {Promise<void> | null} */
  #loading = null;
  /** @type {Promise<void> | null} */
  #older = null;
  #changed = paced((/** @type {Message} */ message) => this.#tell("change", { message }));

  /**
   * @param {import("./pairing.js").Pairing} pairing
   * @param {string} agentId "" for whoever answers
   */
  constructor(pairing, agentId) {
    super();
    this.agentId = agentId;
    this.#pairing = pairing;
    this.#pages = new Pages(pairing.storage, pairing.trouble);
  }

  /** Whether there are messages before those in `messages`. */
  get hasOlder() {
    return this.#pages.hasOlder;
  }

  /** Answers that ended and were not seen. */
  get unread() {
    return this.#pairing.chat(this.agentId).unread;
  }

  /** What was typed and not sent. */
  get draft() {
    return this.#draft;
  }

  set draft(text) {
    this.#draft = text;
    clearTimeout(this.#draftTimer);
    this.#draftTimer = setTimeout(() => this.#keepDraft(), DRAFT);
  }

  /**
   * Reads the newest messages, and goes on with those that wait; once.
   * @returns {Promise<void>} never rejects: the pairing's banner tells
   */
  load() {
    this.#loading ??= this.#load();
    return this.#loading;
  }

  /**
   * Reads the page before, and tells "older".
   * @returns {Promise<void>} never rejects
   */
  loadOlder() {
    this.#older ??= this.#loadOlder().finally(() => {
      this.#older = null;
    });
    return this.#older;
  }

  /**
   * Puts a question at the end, and sends it as soon as the agent is there.
   * @param {string} text
   * @param {{name: string, type: string, data: Blob}[]} [pictures]
   * @returns {Message}
   * Throws AttachmentError (code TOO_LARGE or NOT_A_PICTURE) and does nothing then.
   */
  send(text, pictures = []) {
    const live = this.#pairing.live(this);
    if (live !== this) return live.send(text, pictures);
    const limit = this.#pairing.version === 2 ? SENDABLE_BYTES : SCALABLE_BYTES;
    for (const { type, data } of pictures) {
      if (!type.startsWith("image/")) {
        throw new AttachmentError("This is no picture. Only pictures can be sent.", {
          code: "NOT_A_PICTURE",
        });
      }
      if (data.size > limit) {
        throw new AttachmentError(
          `This picture is too large: at most ${limit / 1e6} MB can be sent. Send a smaller one.`,
          { code: "TOO_LARGE" },
        );
      }
    }
    const message = new Message({
      id: crypto.randomUUID(),
      role: "user",
      text,
      state: "waiting",
      pictures: pictures.map(({ name, type, data }) => this.#picture(name, type, data)),
    });
    this.draft = "";
    this.chosen = [];
    this.#pairing.outbox.add(this, message, this.#append(message));
    this.#measure(message);
    return message;
  }

  /**
   * Asks again: a question that was not answered, or the question of an answer that failed, which
   * goes. The agent gets it as a new question.
   * @param {Message} message
   */
  retry(message) {
    if (this.#pairing.live(this) !== this) return;
    const question =
      message.role === "user" ? message : this.messages.find((other) => other.id === message.refId);
    if (!question || this.#pairing.outbox.has(question)) return;
    for (const answer of this.messages.filter((other) => other.refId === question.id)) {
      this.remove(answer);
    }
    question.wireId = crypto.randomUUID();
    question.error = null;
    question.state = "waiting";
    this.#pairing.outbox.add(this, question, this.update(question));
  }

  /**
   * Ends an answer, or keeps a question that waits from being sent.
   * @param {Message} message the question or its answer
   */
  stop(message) {
    this.#pairing.outbox.stop(message);
  }

  /**
   * Deletes a message here; the agent may remember it.
   * @param {Message} message
   * @returns {Promise<void>} never rejects
   */
  async remove(message) {
    if (this.#pairing.live(this) !== this) return;
    if (!this.messages.includes(message)) return;
    this.#pairing.outbox.drop(message);
    this.messages = this.messages.filter((other) => other !== message);
    this.#tell("remove", { message });
    this.#pairing.noted(this);
    await this.#pages.remove(message);
    await this.#forgetPictures([message]);
  }

  /**
   * Deletes all messages here; the agent may remember them.
   * @returns {Promise<void>} never rejects
   */
  async clear() {
    if (this.#pairing.live(this) !== this) return;
    while (this.hasOlder) await this.loadOlder();
    const messages = this.messages;
    for (const message of messages) this.#pairing.outbox.drop(message);
    this.messages = [];
    this.#tell("change");
    this.markRead();
    this.#pairing.noted(this);
    await this.#pages.replace([]);
    await this.#forgetPictures(messages);
  }

  /**
   * Reads the whole conversation and finds a text in it, upper or lower case.
   * @param {string} text
   * @returns {Promise<{message: Message, index: number}[]>} oldest first; `index` is where in the
   *   message's text the first of them begins
   */
  async search(text) {
    const wanted = text.normalize("NFC").toLocaleLowerCase();
    if (!wanted) return [];
    while (this.hasOlder) await this.loadOlder();
    return this.messages
      .map((message) => ({
        message,
        index: message.text.normalize("NFC").toLocaleLowerCase().indexOf(wanted),
      }))
      .filter(({ index }) => index >= 0);
  }

  /**
   * The whole conversation as Markdown.
   * @param {{me?: string, date?: (at: number) => string}} [words]
   * @returns {Promise<{name: string, text: string}>} of a file
   */
  async export({ me = "You", date = (at) => new Date(at).toISOString() } = {}) {
    while (this.hasOlder) await this.loadOlder();
    const agent = this.#pairing.nameOf(this.agentId);
    const parts = this.messages.map(({ role, text, at, pictures, links }) => {
      const files = pictures.map(({ name }) => `*${name}*`);
      const addresses = links.map(({ url }) => `<${url}>`);
      const heading = `**${role === "user" ? me : agent}**, ${date(at)}`;
      return [heading, text, ...files, ...addresses].filter(Boolean).join("\n\n");
    });
    const name = `${agent.replace(/[^\p{L}\p{N} _-]/gu, "").trim() || "conversation"}.md`;
    return { name, text: `${[`# ${agent}`, ...parts].join("\n\n")}\n` };
  }

  /** The user has seen all that is here. */
  markRead() {
    const chat = this.#pairing.chat(this.agentId);
    if (!chat.unread) return;
    chat.unread = 0;
    this.#tell("change");
    this.#pairing.noted(this);
  }

  // For the outbox and the pairing.

  /**
   * An answer that begins, behind its question.
   * @param {Message} question
   * @returns {Message}
   */
  begin(question) {
    const answer = new Message({
      id: crypto.randomUUID(),
      role: "agent",
      state: "streaming",
      refId: question.id,
    });
    this.#append(answer);
    return answer;
  }

  /**
   * An answer that is streaming has changed: it is told and kept when there is time.
   * @param {Message} answer
   */
  grow(answer) {
    this.#changed(answer);
    this.#pages.keepSoon(answer);
  }

  /**
   * A message has changed: it is told and kept now.
   * @param {Message} message
   * @returns {Promise<void>} when it is kept, or the banner tells why not
   */
  update(message) {
    this.#changed(message);
    return this.#pages.keep(message);
  }

  /**
   * An answer has ended, well or not.
   * @param {Message} answer
   */
  async ended(answer) {
    this.#pairing.chat(this.agentId).unread += 1;
    this.#tell("change", { message: answer });
    this.#pairing.noted(this);
    await this.#keepPictures(answer);
    await this.#pages.keep(answer);
  }

  /**
   * @param {string} name
   * @param {string} type MIME
   * @param {Blob} data
   * @returns {Promise<Picture>}
   */
  async received(name, type, data) {
    const picture = this.#picture(name, type, data);
    Object.assign(picture, await measure(picture));
    return picture;
  }

  /**
   * A file of an answer that is on its way.
   * @param {Message} answer
   * @param {string} name
   * @param {number} size bytes
   * @param {number} progress 0 to 1
   */
  receiving(answer, name, size, progress) {
    let picture = answer.pictures.find((one) => one.name === name && one.coming);
    if (!picture) {
      picture = this.#picture(name, "image/*", new Blob([]));
      picture.size = size;
      picture.coming = true;
      answer.pictures = [...answer.pictures, picture];
    }
    picture.progress = progress;
    this.#changed(answer);
  }

  /**
   * Puts what the agent remembers in front of what is here.
   * @param {(limit: number) => Promise<{role: string, content: string, timestamp: unknown}[]>} ask
   */
  async fetch(ask) {
    await this.load();
    if (this.hasOlder) return;
    this.fetching = true;
    this.#tell("change");
    try {
      const entries = await ask(HISTORY);
      const older = merged(entries, this.messages);
      if (!older.length) return;
      this.messages = [...older, ...this.messages];
      await this.#pages.replace(this.messages);
      this.#tell("older", { messages: older });
      this.#pairing.noted(this);
    } finally {
      this.fetching = false;
      this.#tell("change");
    }
  }

  /** Writes what waits to be written. */
  async flush() {
    await Promise.all(this.#appending);
    await Promise.all([this.#pages.flush(), this.#draftTimer && this.#keepDraft()]);
  }

  /** Writes nothing any more, and gives back what its pictures take. */
  close() {
    clearTimeout(this.#draftTimer);
    this.#draftTimer = undefined;
    this.#pages.close();
    for (const { pictures } of this.messages) {
      for (const picture of pictures) picture.release();
    }
  }

  async #load() {
    await this.#pairing.starting;
    try {
      const { id, storage } = this.#pairing;
      const digits = await storage.digits(id, this.agentId);
      this.#draftName = `draft:${id}:${digits}`;
      await this.#pages.open(`page:${id}:${digits}:`);
      this.#draft ||= (await storage.read(this.#draftName)) ?? "";
    } catch (error) {
      this.#pairing.trouble(error);
    }
    do await this.#loadOlder();
    while (this.hasOlder && this.#unsettled());
    this.loaded = true;
    this.#tell("change");
    if (!this.#pairing.elsewhere) this.#resume();
    this.#pairing.outbox.run();
  }

  /** What was on its way when the page was left goes on, or is told to have failed. */
  #resume() {
    const unsettled = this.messages.filter(({ settled }) => !settled);
    const { outbox, version } = this.#pairing;
    for (const message of unsettled.filter(({ role }) => role === "agent")) {
      const question = unsettled.find(({ id }) => id === message.refId);
      if (message.text && question) {
        outbox.recall(this, question, message);
      } else if (message.text) {
        message.state = "failed";
        message.error = { name: "ConnectionLost" };
        this.update(message);
      } else {
        this.remove(message);
      }
    }
    for (const question of unsettled.filter(({ role }) => role === "user")) {
      if (outbox.has(question)) continue;
      if (question.state === "waiting" || (version === 2 && question.state !== "done")) {
        question.state = "waiting";
        outbox.add(this, question, Promise.resolve());
      } else if (question.state !== "done") {
        // Version 1 would be asked twice.
        question.state = "failed";
        question.error = { name: "ConnectionLost" };
      }
      this.update(question);
    }
  }

  async #loadOlder() {
    try {
      const older = await this.#pages.older((record) =>
        Message.from(record, this.#pairing.pictures),
      );
      this.messages = [...older, ...this.messages];
      if (older.length) this.#tell("older", { messages: older });
    } catch (error) {
      this.#pairing.trouble(error);
    }
  }

  /** Whether the oldest message that is here may have others before it that wait. */
  #unsettled() {
    return this.messages.some(({ settled }) => !settled);
  }

  /**
   * @param {Message} message
   * @returns {Promise<void>} when it is kept
   */
  #append(message) {
    const question = this.messages.find(({ id }) => id === message.refId);
    const at = question ? this.messages.indexOf(question) + 1 : this.messages.length;
    this.messages = this.messages.toSpliced(at, 0, message);
    this.#tell("append", { message });
    if (message.role === "user") this.#pairing.noted(this);
    const appending = this.#keepNew(message).finally(() => this.#appending.delete(appending));
    this.#appending.add(appending);
    return appending;
  }

  /** @param {Message} message */
  async #keepNew(message) {
    await this.load();
    await this.#keepPictures(message);
    // It may have been deleted meanwhile.
    if (!this.messages.includes(message)) return;
    const question = this.messages.find(({ id }) => id === message.refId);
    await this.#pages.append(message, question);
  }

  /**
   * @param {string} name
   * @param {string} type
   * @param {Blob} data
   */
  #picture(name, type, data) {
    const fields = { id: crypto.randomUUID(), name, type, size: data.size };
    return new Picture(fields, this.#pairing.pictures, data);
  }

  /** @param {Message} message */
  async #measure(message) {
    if (!message.pictures.length) return;
    await Promise.all(
      message.pictures.map(async (picture) => Object.assign(picture, await measure(picture))),
    );
    await this.update(message);
  }

  /** @param {Message} message */
  async #keepPictures({ pictures }) {
    await Promise.all(pictures.map((picture) => picture.keep().catch(this.#pairing.trouble)));
  }

  /** @param {Message[]} messages */
  async #forgetPictures(messages) {
    const pictures = messages.flatMap((message) => message.pictures);
    for (const picture of pictures) picture.release();
    if (!pictures.length) return;
    await this.#pairing.pictures.remove(pictures.map(({ id }) => id)).catch(this.#pairing.trouble);
  }

  async #keepDraft() {
    clearTimeout(this.#draftTimer);
    this.#draftTimer = undefined;
    await this.load();
    const { storage, trouble } = this.#pairing;
    const kept = this.#draft
      ? storage.write(this.#draftName, this.#draft)
      : storage.remove(this.#draftName);
    await kept.catch(trouble);
  }

  /**
   * @param {string} event
   * @param {object} [detail]
   */
  #tell(event, detail = {}) {
    this.dispatchEvent(new CustomEvent(event, { detail }));
  }
}
