/** One pairing: a connection that comes back, and what is known of its agent. */

import { Phone } from "../../core/index.js";
import { PairingLink } from "../../core/link.js";
import { Pictures } from "../storage/pictures.js";
import { bannerOf } from "./banner.js";
import { Conversation } from "./conversation.js";
import { endOf, pauseOf } from "./fate.js";
import { Outbox } from "./outbox.js";
import { Place } from "./place.js";
import { usageOf } from "./usage.js";

/** @typedef {import("../../core/queries.js").AgentProfile} AgentProfile */

/**
 * What is remembered of the conversation with one agent: answers that were not seen, whether
 * something waits, whether the agent was asked for what it remembers, and what was said last.
 * @typedef {{unread: number, open: boolean, fetched: boolean, last: Last | null}} Chat
 */

/** @typedef {{text: string, at: number, role: "user" | "agent"}} Last the beginning of its text */

/**
 * What is kept of a pairing, sealed.
 * @typedef {object} PairingRecord
 * @property {string} relay
 * @property {string} token
 * @property {1 | 2} version
 * @property {string} name the user's
 * @property {string} agentName the agent's
 * @property {boolean} verified
 * @property {number} addedAt
 * @property {string} agentId
 * @property {AgentProfile[]} agents
 * @property {{[agentId: string]: Chat}} chats
 */

/**
 * What a pairing needs; the phonebook has it.
 * @typedef {object} Means
 * @property {import("../storage/database.js").Storage} storage
 * @property {import("../../core/crypto.js").CryptoProvider} crypto
 * @property {typeof globalThis.WebSocket} WebSocket
 * @property {LockManager | undefined} locks
 * @property {(pairing: Pairing) => void} onForgotten
 */

// Characters of the last message that a list shows.
const PREVIEW = 160;

/** Its events: "change" (anything of what it knows), "banner" (`banner` is another one). */
export class Pairing extends EventTarget {
  /** Whether another tab serves this pairing. */
  elsewhere = false;
  #record;
  #means;
  /** @type {Phone | null} */
  #phone = null;
  /** @type {Map<string, Conversation>} by agent */
  #conversations = new Map();
  #place;
  /** @type {Promise<void> | null} until what is kept was read after the other tab's last write */
  #starting = null;
  /** @type {Promise<void> | null} */
  #saving = null;
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
    this.#record = record;
    this.#means = means;
    this.storage = means.storage;
    this.pictures = new Pictures(means.storage, id);
    this.outbox = this.#newOutbox();
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
    return this.#record.token;
  }

  /** Host and port of the relay. */
  get relay() {
    return new URL(this.#record.relay).host;
  }

  /** The user's name for it, else the agent's. */
  get name() {
    return this.#record.name || this.agentName;
  }

  /** What the agent calls itself; "Agent" before it has. */
  get agentName() {
    return this.#record.agentName || "Agent";
  }

  /** Of the agent's program; "" while it is not there. */
  get agentVersion() {
    return this.#phone?.agent?.version ?? "";
  }

  /** Whether the agent has proved that it holds the link's secret. */
  get verified() {
    return this.#record.verified;
  }

  /** The version of the protocol: 2 by link, 1 by token alone. */
  get version() {
    return this.#record.version;
  }

  /** Unix milliseconds. */
  get addedAt() {
    return this.#record.addedAt;
  }

  /** Answers that were not seen, in all conversations. */
  get unread() {
    return Object.values(this.#record.chats).reduce((sum, { unread }) => sum + unread, 0);
  }

  /**
   * What was said last, to whichever agent.
   * @returns {Last | null}
   */
  get lastMessage() {
    const all = Object.values(this.#record.chats).map(({ last }) => last);
    return all.reduce((one, other) => ((other?.at ?? 0) > (one?.at ?? 0) ? other : one), null);
  }

  /** Whether the agent is there, and messages go through. */
  get online() {
    return this.#phone?.state.kind === "ready";
  }

  get banner() {
    return this.#banner;
  }

  /** @returns {import("./usage.js").Usage | null} */
  get usage() {
    const greeting = this.#phone?.greeting;
    return greeting ? usageOf(greeting, this.#phone?.traffic ?? 0) : null;
  }

  /**
   * The agents among which one can choose, none where there is one only. The id "" stands for
   * whoever answers, where something was said before the agents were known.
   * @returns {AgentProfile[]}
   */
  get agents() {
    const { agents, chats } = this.#record;
    if (agents.length < 2) return [];
    if (!chats[""]?.last) return agents;
    const anyone = {
      id: "",
      name: this.agentName,
      description: null,
      avatarUrl: null,
      model: null,
    };
    return [anyone, ...agents];
  }

  /** The chosen agent. */
  get agentId() {
    return this.#record.agentId;
  }

  /** The conversation with the chosen agent; its messages are read when it is first asked for. */
  get conversation() {
    const conversation = this.#conversation(this.agentId);
    conversation.load();
    this.#fetch(conversation);
    return conversation;
  }

  // What can be done with it.

  /** Takes the pairing from other tabs, and is connected from now on. */
  connect() {
    if (this.#place.taken || this.elsewhere || this.#forgotten) return;
    this.#serve();
  }

  /** Leaves the relay. */
  close() {
    this.#phone?.close();
    this.#place.close();
    this.#update();
  }

  /** Takes the place back, from another tab or another device. */
  here() {
    if (this.elsewhere) this.#serve();
    else this.#phone?.reconnect();
  }

  /** Comes back at once. */
  now() {
    this.#phone?.reconnect();
  }

  /** Back from the background: finds out whether the connection lives, or comes back. */
  awake() {
    const kind = this.#phone?.state.kind;
    if (kind === "waiting") this.#phone?.reconnect();
    else if (kind !== "replaced") this.#phone?.checkAlive();
    this.#update();
  }

  /** @param {string} name "" for the agent's own */
  async rename(name) {
    if (this.elsewhere) this.here();
    await this.#starting;
    this.#record.name = name.trim();
    await this.#save();
  }

  /**
   * Ends the pairing here and deletes all that is kept of it: secrets, messages, pictures.
   * @returns {Promise<void>} rejects with StoreError
   */
  async forget() {
    this.#forgotten = true;
    this.#stop();
    this.#place.close();
    // Another tab that serves it hears of this, and nothing that it writes is kept any more.
    await this.storage.wipe(this.id);
    this.#means.onForgotten(this);
  }

  /**
   * Chooses the agent that `conversation` is with.
   * @param {string} id
   */
  chooseAgent(id) {
    if (id === this.agentId) return;
    this.#record.agentId = id;
    this.#save();
  }

  /**
   * Asks which agents there are.
   * @returns {Promise<void>} never rejects: an agent that does not say is alone
   */
  async refreshAgents() {
    const agents = await this.#phone?.agents().catch(() => null);
    if (!agents) return;
    const { chats, agentId } = this.#record;
    this.#record.agents = agents;
    const gone = agentId !== "" && !agents.some(({ id }) => id === agentId);
    const undecided = agentId === "" && agents.length > 1 && !chats[""]?.last;
    if (gone || undecided) this.#record.agentId = agents.length > 1 ? agents[0].id : "";
    await this.#save();
  }

  /**
   * Deletes what was said here with all of its agents; they may remember it.
   * @returns {Promise<void>} never rejects
   */
  async clear() {
    if (this.elsewhere) this.here();
    await this.#starting;
    for (const conversation of this.#all) {
      await conversation.load();
      await conversation.clear();
    }
  }

  /**
   * What was said with all of its agents, as Markdown.
   * @param {{me?: string, date?: (at: number) => string}} [words]
   * @returns {Promise<{name: string, text: string}>} of a file
   */
  async export(words) {
    const files = [];
    for (const conversation of this.#all) {
      await conversation.load();
      if (conversation.messages.length) files.push(await conversation.export(words));
    }
    const [{ name }] = files.length ? files : [await this.conversation.export(words)];
    return { name, text: files.map(({ text }) => text).join("\n") };
  }

  /** The conversations with all agents that something was said to. */
  get #all() {
    return Object.keys(this.#record.chats).map((agentId) => this.#conversation(agentId));
  }

  /** Writes what waits to be: the page is left. */
  async flush() {
    await Promise.all([...this.#conversations.values()].map((one) => one.flush()));
  }

  /**
   * Until what is kept can be read: another tab writes it before it lets the pairing go.
   * @returns {Promise<void> | null}
   */
  get starting() {
    return this.#starting;
  }

  /** Another tab serves it. */
  leave() {
    this.elsewhere = true;
    this.#update();
  }

  // For conversations.

  /**
   * @param {string} agentId
   * @returns {Chat}
   */
  chat(agentId) {
    this.#record.chats[agentId] ??= { unread: 0, open: false, fetched: false, last: null };
    return this.#record.chats[agentId];
  }

  /** @param {string} agentId */
  nameOf(agentId) {
    const agent = agentId && this.#record.agents.find(({ id }) => id === agentId);
    return agent ? agent.name || this.name : this.name;
  }

  /**
   * The conversation that is written to. Where another tab serves the pairing this one takes its
   * place, and reads everything anew.
   * @param {Conversation} conversation
   * @returns {Conversation}
   */
  live(conversation) {
    if (this.elsewhere) this.here();
    return this.#conversation(conversation.agentId);
  }

  /**
   * Something was said, or deleted, or seen.
   * @param {Conversation} conversation
   */
  noted({ agentId, messages, loaded }) {
    const last = messages.findLast(({ text, pictures }) => text || pictures.length);
    const chat = this.chat(agentId);
    if (last) chat.last = { text: last.text.slice(0, PREVIEW), at: last.at, role: last.role };
    else if (loaded) chat.last = null;
    this.#save();
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

  /** Another tab wants it: ends what goes on, and writes what is known of it. */
  async #settle() {
    this.outbox.close();
    this.#phone?.close();
    await Promise.all([this.flush(), this.#saving]);
  }

  /** What another tab wrote is read anew. */
  #renew() {
    for (const conversation of this.#conversations.values()) conversation.close();
    this.#conversations.clear();
    this.outbox = this.#newOutbox();
  }

  async #start() {
    try {
      this.#record = (await this.storage.read(`pairing:${this.id}`)) ?? this.#record;
    } catch (error) {
      this.trouble(error);
    }
    if (this.#forgotten || !this.#place.taken) return;
    const { relay, token, chats } = this.#record;
    const { crypto, WebSocket } = this.#means;
    const phone = new Phone(new PairingLink({ relay, token }), {
      store: this.storage.memory(this.id),
      crypto,
      WebSocket,
    });
    this.#phone = phone;
    phone.addEventListener("state", () => {
      if (phone === this.#phone) this.#stateChanged(phone);
    });
    phone.addEventListener("hint", (event) => {
      const { code, retryAfterMs } = /** @type {CustomEvent} */ (event).detail;
      const pause = pauseOf(code, retryAfterMs, Date.now());
      if (phone === this.#phone && pause?.kind === "quota") this.outbox.hold(pause);
    });
    phone.connect();
    for (const [agentId, { open }] of Object.entries(chats)) {
      if (open) this.#conversation(agentId).load();
    }
    this.#outboxChanged();
  }

  #stop() {
    this.outbox.close();
    for (const conversation of this.#conversations.values()) conversation.close();
    const phone = this.#phone;
    this.#phone = null;
    phone?.close();
  }

  /** @param {Phone} phone */
  #stateChanged(phone) {
    if (phone.state.kind === "ready") {
      this.#wasReady = true;
      this.#endQuota(phone);
      this.#introduce(phone);
      this.outbox.wake();
      this.refreshAgents();
      for (const conversation of this.#conversations.values()) this.#fetch(conversation);
    }
    const failure = endOf(phone.state);
    if (failure) this.outbox.end(failure);
    this.#update();
  }

  /** @param {Phone} phone */
  #introduce({ agent }) {
    if (!agent) return;
    this.#record.agentName = agent.name;
    this.#record.verified = agent.verified;
    this.#save();
  }

  /**
   * A quota that was raised, or begun anew, keeps nothing back.
   * @param {Phone} phone
   */
  #endQuota({ greeting }) {
    if (this.outbox.pause?.kind !== "quota" || !greeting) return;
    const { dailyQuotaBytes, dailyUsedBytes, monthlyQuotaBytes, monthlyUsedBytes } = greeting;
    const left = (/** @type {number | null} */ quota, /** @type {number | null} */ used) =>
      !quota || (used ?? 0) < quota;
    if (left(dailyQuotaBytes, dailyUsedBytes) && left(monthlyQuotaBytes, monthlyUsedBytes)) {
      this.outbox.hold(null);
    }
  }

  /** @param {Conversation} conversation */
  async #fetch(conversation) {
    const phone = this.#phone;
    const chat = this.chat(conversation.agentId);
    if (chat.fetched || phone?.state.kind !== "ready") return;
    chat.fetched = true;
    try {
      const { agentId } = conversation;
      await conversation.fetch((limit) => phone.history({ agentId, limit }));
    } catch (error) {
      // It may be asked again where it could not say anything; one that offers no history is not.
      chat.fetched = error instanceof Error && error.name === "AgentError";
    }
    this.#save();
  }

  /** @param {string} agentId */
  #conversation(agentId) {
    let conversation = this.#conversations.get(agentId);
    if (!conversation) {
      conversation = new Conversation(this, agentId);
      this.#conversations.set(agentId, conversation);
    }
    return conversation;
  }

  #newOutbox() {
    return new Outbox(
      () => this.#phone,
      () => this.#outboxChanged(),
    );
  }

  #outboxChanged() {
    const open = this.outbox.conversations;
    let changed = false;
    for (const [agentId, conversation] of this.#conversations) {
      const chat = this.chat(agentId);
      changed ||= chat.open !== open.has(conversation);
      chat.open = open.has(conversation);
    }
    if (changed) this.#save();
    this.#update();
  }

  /** Keeps what is known, and tells that it changed. */
  async #save() {
    this.dispatchEvent(new CustomEvent("change"));
    if (this.elsewhere || this.#forgotten) return;
    this.#saving ??= Promise.resolve().then(async () => {
      this.#saving = null;
      try {
        await this.storage.write(`pairing:${this.id}`, this.#record);
        if (this.#trouble !== "full") return;
        this.#trouble = null;
        this.#update();
      } catch (error) {
        this.trouble(error);
      }
    });
    await this.#saving;
  }

  #update() {
    const banner = bannerOf({
      state: this.#phone?.state ?? { kind: "closed" },
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
