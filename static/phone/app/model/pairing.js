/** One pairing: a connection that comes back, and what is known of its agent. */

import { Phone } from "../../core/index.js";
import { PairingLink } from "../../core/link.js";
import { Pictures } from "../storage/pictures.js";
import { bannerOf } from "./banner.js";
import { Chats } from "./chats.js";
import { endOf, pauseOf } from "./fate.js";
import { Outbox } from "./outbox.js";
import { Place } from "./place.js";
import { recordFrom } from "./record.js";
import { quotaLeft, usageOf } from "./usage.js";

/** @typedef {import("./record.js").PairingRecord} PairingRecord */

/**
 * What a pairing needs; the phonebook has it.
 * @typedef {object} Means
 * @property {import("../storage/database.js").Storage} storage
 * @property {import("../../core/crypto.js").CryptoProvider} crypto
 * @property {typeof globalThis.WebSocket} WebSocket
 * @property {LockManager | undefined} locks
 * @property {() => string} unnamed what an agent is called that has not said its name
 * @property {() => void} onKept what is known of a pairing was written
 * @property {(pairing: Pairing) => void} onForgotten
 */

/** Its events: "change" (anything of what it knows), "banner" (`banner` is another one). */
export class Pairing extends EventTarget {
  /** Whether another tab serves this pairing. */
  elsewhere = false;
  /** @type {Phone | null} */
  phone = null;
  #means;
  #place;
  /** @type {Promise<void> | null} until what is kept was read after the other tab's last write */
  #starting = null;
  #saving = Promise.resolve();
  #savingSoon = false;
  #settling = Promise.resolve();
  #wasReady = false;
  #forgotten = false;
  /** @type {import("./banner.js").Banner | null} */
  #banner = null;
  /** @type {string | null} */
  #trouble = null;

  /**
   * @param {string} id
   * @param {PairingRecord} record
   * @param {Means} means
   */
  constructor(id, record, means) {
    super();
    this.id = id;
    this.record = record;
    this.#means = means;
    this.storage = means.storage;
    this.pictures = new Pictures(means.storage, id);
    this.outbox = this.#newOutbox();
    this.chats = new Chats(this);
    this.#place = new Place(
      id,
      means.locks,
      () => this.#settle(),
      () => {
        this.#stop();
        this.leave();
      },
    );
  }

  // What it is.

  get token() {
    return this.record.token;
  }

  /** Host and port of the relay. */
  get relay() {
    return new URL(this.record.relay).host;
  }

  /** The user's name for it, else the agent's. */
  get name() {
    return this.record.name || this.agentName;
  }

  /** What the agent calls itself, once it has. */
  get agentName() {
    return this.record.agentName || this.#means.unnamed();
  }

  /** Of the agent's program; "" while it is not there. */
  get agentVersion() {
    return this.phone?.agent?.version ?? "";
  }

  /** Whether the agent has proved that it holds the link's secret. */
  get verified() {
    return this.record.verified;
  }

  /** The version of the protocol: 2 by link, 1 by token alone. */
  get version() {
    return this.record.version;
  }

  /** Unix milliseconds. */
  get addedAt() {
    return this.record.addedAt;
  }

  /** Answers that were not seen, in all conversations. */
  get unread() {
    return this.chats.unread;
  }

  /** What was said last, to whichever agent. */
  get lastMessage() {
    return this.chats.last;
  }

  /** Whether the agent is there, and messages go through. */
  get online() {
    return this.phone?.state.kind === "ready";
  }

  get banner() {
    return this.#banner;
  }

  /** @returns {import("./usage.js").Usage | null} */
  get usage() {
    return this.phone ? usageOf(this.phone.greeting, this.phone.used) : null;
  }

  /** The agents among which one can choose, none where there is one only. */
  get agents() {
    return this.chats.agents;
  }

  /** The chosen agent. */
  get agentId() {
    return this.record.agentId;
  }

  /** The conversation with the chosen agent; its messages are read when it is first asked for. */
  get conversation() {
    return this.chats.chosen;
  }

  // What can be done with it.

  /** Takes the pairing from other tabs, and is connected from now on. */
  connect() {
    if (this.#place.taken || this.elsewhere || this.#forgotten) return;
    this.#serve();
  }

  /** It is forgotten, here or in another tab: leaves the relay, and keeps nothing any more. */
  close() {
    this.#forgotten = true;
    this.#stop();
    this.#place.close();
    this.#update();
  }

  /** Takes the place back, from another tab or another device. */
  here() {
    if (this.elsewhere) this.#serve();
    else this.phone?.reconnect();
  }

  /** Comes back at once. */
  now() {
    if (this.#trouble !== null) this.save();
    // Where the storage failed it is not running any more.
    if (this.phone?.state.kind === "storage") this.phone.connect();
    else this.phone?.reconnect();
  }

  /** Back from the background: finds out whether the connection lives, or comes back. */
  awake() {
    const kind = this.phone?.state.kind;
    if (kind === "waiting" || kind === "storage") this.now();
    else if (kind !== "replaced") this.phone?.checkAlive();
    this.#update();
  }

  /** @param {string} name "" for the agent's own */
  async rename(name) {
    if (this.elsewhere) this.here();
    await this.#starting;
    this.record.name = name.trim();
    await this.save();
  }

  /**
   * Ends the pairing here and deletes all that is kept of it: secrets, messages, pictures.
   * @returns {Promise<void>} rejects with StoreError
   */
  async forget() {
    this.#forgotten = true;
    try {
      // Nothing is kept of it any more, whoever writes it: this tab, or another one that serves it.
      await this.storage.wipe(this.id);
    } catch (error) {
      this.#forgotten = false;
      throw error;
    }
    this.#means.onForgotten(this);
  }

  /**
   * Chooses the agent that `conversation` is with.
   * @param {string} id
   */
  chooseAgent(id) {
    if (id === this.agentId) return;
    this.record.agentId = id;
    this.save();
  }

  /**
   * Deletes what was said here with all of its agents; they may remember it.
   * @returns {Promise<boolean>} whether all is gone; never rejects
   */
  async clear() {
    if (this.elsewhere) this.here();
    await this.#starting;
    return await this.chats.clear();
  }

  /**
   * What was said with all of its agents, as Markdown.
   * @param {import("./markdown_file.js").Words} [words]
   * @returns {Promise<import("./markdown_file.js").MarkdownFile>}
   */
  async export(words) {
    return await this.chats.export(words);
  }

  /** Writes what waits to be: the page is left. */
  async flush() {
    await Promise.all(this.chats.open.map((one) => one.flush()));
  }

  /** Until what is kept can be read: another tab writes it before it lets the pairing go. */
  get starting() {
    return this.#starting;
  }

  /** Reads what the tab that serves it has written. */
  async refresh() {
    if (!this.elsewhere) return;
    const record = await this.storage.read(`pairing:${this.id}`).catch(() => null);
    if (!record || !this.elsewhere) return;
    this.#take(record);
    this.dispatchEvent(new CustomEvent("change"));
  }

  /** Another tab serves it. */
  leave() {
    this.elsewhere = true;
    this.#update();
  }

  // For conversations.

  /**
   * The conversation that is written to. Where another tab serves the pairing this one takes its
   * place, and reads everything anew.
   * @param {import("./conversation.js").Conversation} conversation
   */
  live(conversation) {
    if (this.elsewhere) this.here();
    return this.chats.with(conversation.agentId);
  }

  /**
   * Something could not be kept, or read: the banner tells.
   * @type {(error: unknown) => void}
   */
  trouble = (error) => {
    const code = error instanceof Error && "code" in error ? String(error.code) : "blocked";
    this.#trouble = code;
    this.#update();
  };

  // Its connection.

  #serve() {
    const wasElsewhere = this.elsewhere;
    this.elsewhere = false;
    if (wasElsewhere) this.#renew();
    this.#starting = this.#place.take(() => this.#start());
    this.#update();
  }

  /**
   * Another tab wants it: ends what goes on, and writes what is known of it. Who writes a message
   * meanwhile wants it back.
   */
  #settle() {
    this.outbox.close();
    this.phone?.close();
    this.leave();
    this.#settling = Promise.all([this.flush(), this.#saving]).then(() => {});
    return this.#settling;
  }

  /** What another tab wrote is read anew. */
  #renew() {
    const { chats } = this;
    this.chats = new Chats(this, chats);
    this.outbox = this.#newOutbox();
    this.#settling.then(() => chats.close());
  }

  /**
   * Which agent is looked at is this tab's own affair.
   * @param {any} kept
   */
  #take(kept) {
    this.record = { ...recordFrom(kept), agentId: this.agentId };
  }

  async #start() {
    try {
      const record = await this.storage.read(`pairing:${this.id}`);
      // Another tab has forgotten it, and says so to the phonebook.
      if (!record) return;
      this.#take(record);
    } catch (error) {
      this.trouble(error);
    }
    if (this.#forgotten || !this.#place.taken) return;
    const { relay, token, version } = this.record;
    const { crypto, WebSocket } = this.#means;
    const phone = new Phone(new PairingLink({ relay, token }), {
      store: this.storage.memory(this.id),
      atLeast: version,
      crypto,
      WebSocket,
    });
    this.phone = phone;
    phone.addEventListener("state", () => {
      if (phone === this.phone) this.#stateChanged(phone);
    });
    phone.addEventListener("hint", (event) => {
      const { code, retryAfterMs } = /** @type {CustomEvent} */ (event).detail;
      const pause = pauseOf(code, retryAfterMs, Date.now());
      if (phone === this.phone && pause?.kind === "quota") this.outbox.hold(pause);
    });
    phone.connect();
    this.chats.resume();
    this.#outboxChanged();
  }

  #stop() {
    this.outbox.close();
    for (const conversation of this.chats.open) conversation.close();
    const phone = this.phone;
    this.phone = null;
    phone?.close();
  }

  /** @param {Phone} phone */
  #stateChanged(phone) {
    if (phone.state.kind === "ready") {
      this.#wasReady = true;
      // It may have been raised, or begun anew.
      if (this.outbox.pause?.kind === "quota" && quotaLeft(phone.greeting)) this.outbox.hold(null);
      this.#introduce(phone);
      this.outbox.wake();
      this.chats.renew();
    }
    const failure = endOf(phone.state);
    if (failure) this.outbox.end(failure);
    this.#update();
  }

  /** @param {Phone} phone */
  #introduce({ agent }) {
    if (!agent) return;
    this.record.agentName = agent.name;
    this.record.verified = agent.verified;
    this.save();
  }

  #newOutbox() {
    return new Outbox(
      () => this.phone,
      () => this.#outboxChanged(),
    );
  }

  #outboxChanged() {
    this.chats.waiting();
    this.#update();
  }

  /** Keeps what is known, and tells that it changed. */
  async save() {
    this.dispatchEvent(new CustomEvent("change"));
    if (this.elsewhere || this.#forgotten) return;
    if (!this.#savingSoon) {
      this.#savingSoon = true;
      this.#saving = this.#saving.then(() => this.#write());
    }
    await this.#saving;
  }

  async #write() {
    this.#savingSoon = false;
    try {
      await this.storage.write(`pairing:${this.id}`, this.record);
      this.#means.onKept();
      if (this.#trouble !== null) await this.#keepAgain();
    } catch (error) {
      this.trouble(error);
    }
  }

  /** Something can be kept again: so is what could not be. */
  async #keepAgain() {
    const kept = await Promise.all(this.chats.open.map((one) => one.keepAgain()));
    if (this.#trouble === "damaged" || !kept.every(Boolean)) return;
    this.#trouble = null;
    this.#update();
  }

  #update() {
    const banner = bannerOf({
      state: this.phone?.state ?? { kind: "closed" },
      elsewhere: this.elsewhere,
      wasReady: this.#wasReady,
      network: globalThis.navigator?.onLine !== false,
      pause: this.outbox.pause,
      trouble: this.#trouble,
    });
    if (JSON.stringify(banner) !== JSON.stringify(this.#banner)) {
      this.#banner = banner;
      this.dispatchEvent(new CustomEvent("banner"));
    }
    this.dispatchEvent(new CustomEvent("change"));
  }
}
