/** A pairing whose phone and storage do what a test says, and when. */

import { Chats } from "../../../static/phone/app/model/chats.js";
import { Outbox } from "../../../static/phone/app/model/outbox.js";
import { newRecord } from "../../../static/phone/app/model/record.js";

// Of all storages, those that are not done.
let steps = 0;

async function step(milliseconds) {
  steps += 1;
  await pause(milliseconds);
  steps -= 1;
}

/** Keeps everything in memory; each step takes `delay` milliseconds. */
export class Storage {
  kept = new Map();
  delay = 0;
  reads = 0;
  /** @type {((name: string) => void) | null} called before a write, to have it fail */
  onWrite = null;

  async digits() {
    return "d";
  }

  async names(prefix) {
    await step(this.delay);
    return [...this.kept.keys()].filter((name) => name.startsWith(prefix)).sort();
  }

  async read(name) {
    this.reads += 1;
    await step(this.delay);
    const text = this.kept.get(name);
    return text ? JSON.parse(text) : null;
  }

  async write(name, value) {
    const text = JSON.stringify(value);
    await step(this.delay);
    this.onWrite?.(name);
    this.kept.set(name, text);
  }

  async writeBytes(name, bytes) {
    await step(this.delay);
    this.onWrite?.(name);
    this.kept.set(name, `"${bytes.length}"`);
  }

  async readBytes() {
    return null;
  }

  async remove(...names) {
    await step(this.delay);
    for (const name of names) this.kept.delete(name);
  }

  memory() {
    return { load: async () => null, save: async () => {} };
  }

  /** The pages of a conversation, oldest first: each a list of messages. */
  put(...pages) {
    pages.forEach((messages, index) => {
      const number = index.toString(36).padStart(6, "0");
      this.kept.set(`page:p:d:${number}`, JSON.stringify(messages));
    });
  }

  /** The texts of what is kept of a conversation, oldest first. */
  get texts() {
    const names = [...this.kept.keys()].filter((name) => name.startsWith("page:")).sort();
    return names.flatMap((name) => JSON.parse(this.kept.get(name)).map(({ text }) => text));
  }
}

/** An answer, as the library's Phone gives it. */
class Asking extends EventTarget {
  text = "";
  attachments = [];

  constructor(question, { id }) {
    super();
    this.question = question;
    this.id = id;
    this.finished = new Promise((resolve, reject) => {
      this.end = (cancelled = false) => {
        resolve({ text: this.text, attachments: this.attachments, cancelled });
      };
      this.fail = reject;
    });
  }

  cancel() {
    this.cancelled = true;
  }

  sent() {
    this.dispatchEvent(new CustomEvent("sent", { detail: {} }));
  }

  say(delta) {
    this.text += delta;
    this.dispatchEvent(new CustomEvent("delta", { detail: { delta } }));
  }
}

export class Phone {
  /** @type {Asking[]} */
  asked = [];
  histories = 0;
  maxInlineBytes = 1_000_000;

  constructor(kind = "ready", version = 2) {
    this.state = { kind };
    this.version = version;
  }

  ask(question, options) {
    const asking = new Asking(question, options);
    this.asked.push(asking);
    return asking;
  }

  async history() {
    this.histories += 1;
    return [];
  }

  async agents() {
    return [];
  }

  /** The questions that went out. */
  get questions() {
    return this.asked.map(({ question }) => question);
  }
}

/** What conversations and outbox need of a Pairing. */
export class Pairing extends EventTarget {
  id = "p";
  elsewhere = false;
  /** @type {Promise<void> | null} */
  starting = null;
  troubles = [];
  saves = 0;
  name = "Agent";
  agentName = "Agent";
  pictures = { save: async () => {}, load: async () => null, remove: async () => {} };

  constructor(storage, phone, record = newRecord({ relay: "", token: "", secret: "s" }, "")) {
    super();
    this.storage = storage;
    this.phone = phone;
    this.version = phone.version;
    this.record = record;
    this.outbox = this.newOutbox();
    this.chats = new Chats(this);
  }

  newOutbox() {
    return new Outbox(
      () => this.phone,
      () => this.chats?.waiting(),
    );
  }

  /** The conversation with whoever answers, whose memory is not asked. */
  get conversation() {
    this.chats.about("").fetched = true;
    return this.chats.with("");
  }

  trouble = (error) => this.troubles.push(error);

  live(conversation) {
    return this.chats.with(conversation.agentId);
  }

  async save() {
    this.saves += 1;
    this.dispatchEvent(new CustomEvent("change"));
  }
}

/** @param {number} milliseconds */
export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Until nothing goes on any more, at the storage at least, however busy the machine is. */
export async function quiet(milliseconds = 20) {
  await pause(milliseconds);
  for (let still = 0, turns = 0; still < 5 && turns < 2_000; turns += 1) {
    await pause(1);
    still = steps ? 0 : still + 1;
  }
}

/** "user question done" and so on. */
export function told({ messages }) {
  return messages.map(({ role, text, state }) => `${role} ${text || "-"} ${state}`);
}
