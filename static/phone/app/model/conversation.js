/** What was said between the user and one agent. */

import { Pages } from "../storage/pages.js";
import { Album, check } from "./album.js";
import { Draft } from "./draft.js";
import { merged } from "./history.js";
import { markdownOf } from "./markdown_file.js";
import { Message } from "./message.js";
import { paced } from "./pace.js";
import { Reading } from "./reading.js";
import { Unsettled } from "./resume.js";
import { found } from "./search.js";

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
  album;
  #pairing;
  #pages;
  #draft;
  #reading;
  #unsettled;
  #closed = false;
  /** How often all was deleted. */
  #cleared = 0;
  #clearing = false;
  /** @type {Message[]} those whose pictures go once it is certain that they are gone */
  #gone = [];
  /** Until all messages that are new are kept. */
  #appending = Promise.resolve();
  /** @type {Promise<void> | null} */
  #loading = null;
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
    this.#draft = new Draft(pairing.storage, pairing.trouble);
    const steps = { open: () => this.#open(), page: () => this.#readPage() };
    this.#reading = new Reading(this.#pages, steps, pairing.trouble);
    this.#unsettled = new Unsettled(this, pairing);
    this.album = new Album(pairing);
  }

  /** Whether there are messages before those in `messages`. */
  get hasOlder() {
    return this.#pages.hasOlder;
  }

  /** Whether all that was to be read could be. */
  get whole() {
    return this.#pages.whole;
  }

  /** Whether this tab serves the pairing, and this is where its conversation goes on. */
  get #lives() {
    const { chats, elsewhere } = this.#pairing;
    return !this.#closed && !elsewhere && chats.open.includes(this);
  }

  /** Answers that ended and were not seen. */
  get unread() {
    return this.#pairing.chats.about(this.agentId).unread;
  }

  /** What was typed and not sent. */
  get draft() {
    return this.#draft.text;
  }

  set draft(text) {
    this.#draft.text = text;
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
   * Reads the page before, goes on with what waits there, and tells "older".
   * @returns {Promise<void>} never rejects
   */
  loadOlder() {
    return this.#reading.older();
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
    for (const picture of pictures) check(picture, this.#pairing.version);
    const message = new Message({
      id: crypto.randomUUID(),
      role: "user",
      text,
      state: "waiting",
      pictures: pictures.map((picture) => this.album.picture(picture)),
    });
    this.draft = "";
    this.chosen = [];
    this.#pairing.outbox.add(this, message, this.#append(message));
    if (pictures.length) this.album.measure(message).then(() => this.update(message));
    return message;
  }

  /**
   * Asks again: a question that was not answered, or the question of an answer that failed, which
   * goes. The agent gets it as a new question.
   * @param {Message} message
   */
  retry(message) {
    if (this.#pairing.live(this) !== this) return;
    const question = message.role === "user" ? message : this.#find(message.refId);
    const { outbox } = this.#pairing;
    if (!question || (outbox.has(question) && !question.settled)) return;
    // It was stopped, and the agent may not know that yet.
    outbox.drop(question);
    for (const answer of this.messages.filter((other) => other.refId === question.id)) {
      this.remove(answer);
    }
    question.wireId = crypto.randomUUID();
    question.error = null;
    question.state = "waiting";
    outbox.add(this, question, this.update(question));
  }

  /**
   * Ends an answer, or keeps a question that waits from being sent.
   * @param {Message} message the question or its answer
   */
  stop(message) {
    if (this.#lives && this.#unsettled.giveUp(message)) this.update(message);
    else this.#pairing.outbox.stop(message);
  }

  /**
   * Deletes a message here; the agent may remember it.
   * @param {Message} message
   * @returns {Promise<void>} never rejects
   */
  async remove(message) {
    if (this.#pairing.live(this) !== this) return;
    this.#unsettled.giveUp(message);
    // Once an answer is gone, nothing tells that its question is not to be asked again.
    const { refId } = message;
    if (refId && this.#reading.goesOn && !this.#find(refId)) await this.#readAll();
    if (!this.#lives || !this.messages.includes(message)) return;
    this.#pairing.outbox.drop(message);
    this.messages = this.messages.filter((other) => other !== message);
    this.#tell("remove", { message });
    this.#pairing.chats.noted(this);
    this.#pairing.outbox.run();
    await this.#pages.remove(message);
    await this.album.forget([message]);
  }

  /**
   * Deletes all messages here; the agent may remember them.
   * @returns {Promise<boolean>} whether all are gone; never rejects
   */
  async clear() {
    if (this.#pairing.live(this) !== this) return false;
    this.#clearing = true;
    await this.#readAll();
    this.#clearing = false;
    if (!this.#lives) return false;
    this.#cleared += 1;
    this.#pairing.chats.about(this.agentId).fetched = true;
    this.#gone.push(...this.messages);
    for (const message of this.messages) {
      this.#unsettled.giveUp(message);
      this.#pairing.outbox.drop(message);
    }
    this.messages = [];
    this.#tell("change");
    this.markRead();
    this.#pairing.chats.noted(this);
    this.#pairing.outbox.run();
    const gone = await this.#pages.clear();
    if (gone) await this.album.forget(this.#gone.splice(0));
    return gone;
  }

  /**
   * Reads the whole conversation and finds a text in it, upper or lower case.
   * @param {string} text
   * @returns {Promise<{message: Message, index: number}[]>} oldest first; `index` is where in the
   *   message's text the first of them begins
   */
  async search(text) {
    if (!text) return [];
    await this.#readAll();
    return found(this.messages, text);
  }

  /**
   * The whole conversation as Markdown.
   * @param {import("./markdown_file.js").Words} [words]
   * @returns {Promise<import("./markdown_file.js").MarkdownFile>}
   */
  async export(words) {
    await this.#readAll();
    return markdownOf(this.messages, this.#pairing.chats.nameOf(this.agentId), words);
  }

  /** The user has seen all that is here. */
  markRead() {
    const chat = this.#pairing.chats.about(this.agentId);
    if (!chat.unread) return;
    chat.unread = 0;
    this.#tell("change");
    this.#pairing.chats.noted(this);
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
    this.#pairing.chats.about(this.agentId).unread += 1;
    this.#tell("change", { message: answer });
    this.#pairing.chats.noted(this);
    await this.album.keep(answer);
    await this.#pages.keep(answer);
  }

  /**
   * Puts what the agent remembers in front of what is here.
   * @param {(limit: number) => Promise<{role: string, content: string, timestamp: unknown}[]>} ask
   */
  async fetch(ask) {
    const cleared = this.#cleared;
    await this.load();
    // What it remembers belongs in front of all that is here.
    if (this.hasOlder || !this.#pages.whole) return;
    this.fetching = true;
    this.#tell("change");
    try {
      const entries = await ask(HISTORY);
      if (!this.#lives || cleared !== this.#cleared) return;
      const older = merged(entries, this.messages);
      if (!older.length) return;
      this.messages = [...older, ...this.messages];
      await this.#pages.replace(this.messages);
      this.#tell("older", { messages: older });
      this.#pairing.chats.noted(this);
    } finally {
      this.fetching = false;
      this.#tell("change");
    }
  }

  /** Writes what waits to be written. */
  async flush() {
    await this.#appending;
    await Promise.all([this.#pages.flush(), this.#draft.flush()]);
  }

  /**
   * Writes again what could not be kept.
   * @returns {Promise<boolean>} whether all of it is kept now
   */
  async keepAgain() {
    if (this.loaded && !this.#pages.opened) await this.#read();
    else if (this.loaded) await this.#draft.openAgain();
    const kept = await Promise.all([
      this.album.keepAgain(),
      this.#pages.keepAgain(),
      this.#draft.flush(),
    ]);
    if (this.#pages.opened && kept[1]) await this.album.forget(this.#gone.splice(0));
    // A page that could not be read is read when the phone is opened anew.
    return kept.every(Boolean) && (this.#pages.whole || !this.loaded);
  }

  /**
   * Goes on with what was typed, and with the pictures that were chosen.
   * @param {Conversation} before
   */
  inherit(before) {
    this.#draft.inherit(before.#draft);
    this.chosen = before.chosen;
  }

  /** Writes nothing any more, and gives back what its pictures take. */
  close() {
    this.#closed = true;
    this.#draft.close();
    this.#pages.close();
    for (const { pictures } of this.messages) {
      for (const picture of pictures) picture.release();
    }
  }

  async #load() {
    await this.#pairing.starting;
    await this.#read();
    this.loaded = true;
    this.#tell("change");
    if (!this.#lives) return;
    this.#pairing.chats.waiting();
    this.#pairing.outbox.run();
  }

  /** Reads the newest messages, and those before them in which something waits. */
  #read() {
    const { open } = this.#pairing.chats.about(this.agentId);
    return this.#reading.newest(() => this.#lives && this.#unsettled.questions < open);
  }

  async #readAll() {
    await this.load();
    await this.#reading.rest();
  }

  /** @param {string | undefined} wanted an id */
  #find(wanted) {
    return this.messages.find(({ id }) => id === wanted);
  }

  async #open() {
    const { id, storage } = this.#pairing;
    const digits = await storage.digits(id, this.agentId);
    await this.#pages.open(`page:${id}:${digits}:`);
    await this.#draft.open(`draft:${id}:${digits}`);
  }

  async #readPage() {
    /** @type {Message[]} */
    let older = [];
    try {
      older = await this.#pages.older((record) => Message.from(record, this.#pairing.pictures));
    } catch (error) {
      this.#pairing.trouble(error);
    }
    this.messages = [...older, ...this.messages];
    if (older.length) this.#tell("older", { messages: older });
    if (!this.#lives || this.#clearing) return;
    this.#unsettled.resume(older);
    if (this.loaded) this.#pairing.chats.waiting();
  }

  /**
   * @param {Message} message
   * @returns {Promise<void>} when it is kept
   */
  #append(message) {
    const question = this.#find(message.refId);
    const at = question ? this.messages.indexOf(question) + 1 : this.messages.length;
    this.messages = this.messages.toSpliced(at, 0, message);
    this.#tell("append", { message });
    if (message.role === "user") this.#pairing.chats.noted(this);
    // In this order they are read again, however long the pictures of one take.
    this.#appending = this.#appending.then(() => this.#keepNew(message));
    return this.#appending;
  }

  /** @param {Message} message */
  async #keepNew(message) {
    await this.load();
    // What could not be read then may be read now.
    if (!this.#pages.opened) await this.#read();
    await this.album.keep(message);
    // It may have been deleted meanwhile.
    if (!this.messages.includes(message)) return;
    const question = this.#find(message.refId);
    await this.#pages.append(message, question);
  }

  /**
   * @param {string} event
   * @param {object} [detail]
   */
  #tell(event, detail = {}) {
    this.dispatchEvent(new CustomEvent(event, { detail }));
  }
}
