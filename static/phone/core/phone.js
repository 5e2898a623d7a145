/** The phone's side of a pairing: asks one agent, or the several behind it. */

import { Answer } from "./answer.js";
import { maxInlineBytes } from "./attachments.js";
import { Channel } from "./channel.js";
import { webCrypto } from "./crypto.js";
import { newId } from "./envelope.js";
import { ConnectionLost, NotConnected, PeerOffline } from "./errors.js";
import { Exchanges } from "./exchange.js";
import { FAILURES } from "./failures.js";
import { PairingLink } from "./link.js";
import { groupMessage, Queries } from "./queries.js";
import { Requests } from "./requests.js";
import { stateOf } from "./state.js";
import { Transfers } from "./transfers.js";
import { Turns } from "./turns.js";
import { TimedOut, within } from "./waiting.js";

/**
 * What an answer needs of its phone.
 * @typedef {object} Means
 * @property {Channel} channel
 * @property {Transfers} transfers
 * @property {Exchanges} exchanges
 * @property {Turns} turns
 * @property {(options: {timeout: number, signal?: AbortSignal}) => Promise<Agent>} ready
 */

/**
 * Who answers. `verified` if the pairing's secret proves it; `caps` are names of abilities.
 * @typedef {{name: string, version: string, caps: readonly string[], protocol: number,
 *   verified: boolean}} Agent
 */

/**
 * A file to send, or one that came. `type` is its MIME type; what says to be a picture is one.
 * @typedef {{name: string, type: string, data: Uint8Array | Blob}} Attachment
 */

/**
 * @typedef {object} AskOptions
 * @property {string} [agentId] which of the agents behind the pairing
 * @property {Attachment[]} [attachments]
 * @property {string} [model]
 * @property {Record<string, unknown>} [options]
 * @property {{role: string, content: string}[]} [conversation] turns that the agent may not know
 * @property {string} [id] of a question that is sent again
 * @property {number} [timeout] the longest silence in milliseconds, Infinity for no limit
 * @property {(attachment: Attachment, sent: number, total: number) => void} [onProgress] in bytes
 */

/**
 * @typedef {object} PhoneOptions
 * @property {string} [name] what the agent is told, as who asks
 * @property {import("./memory.js").Store} [store] keeps the pairing's secret; without one the
 *   secret that the agent hands over is lost with this object, and a new link is needed then
 * @property {1 | 2} [atLeast] 2 for a pairing that has had a secret: where neither the link nor
 *   the store has it, that is SecretLost, and nothing goes out in the clear by version 1
 * @property {import("./crypto.js").CryptoProvider} [crypto]
 * @property {typeof globalThis.WebSocket} [WebSocket]
 * @property {Partial<import("./backoff.js").Timers>} [timers]
 * @property {string} [version] of the program, told to the relay and the agent
 */

// Milliseconds. An answer may have to think, so what counts is the silence between two pieces.
const SILENCE_MS = 300_000;
const READY_MS = 30_000;

const VERSION = "0.1.0";

/**
 * Talk to the agent of a pairing.
 *
 *     const phone = new Phone(link, { store });
 *     phone.connect();
 *     for await (const delta of phone.ask("Hello")) console.log(delta);
 *
 * Events, each with a `detail`: "state" {state}; "hint" {code, retryAfterMs, ref}, a refusal of
 * the relay, told in the clear; "group-message" {roomId, message}; "progress" {fileId, name,
 * received, total}, a file on its way here.
 */
export class Phone extends Queries {
  #crypto;
  #channel;
  #exchanges;
  #transfers;
  #turns;
  #means;
  #requests;
  /** @type {import("./state.js").State} */
  #state = { kind: "closed" };
  #online = false;
  #agentOnline = false;
  #cause = "";
  /** @type {number | null} */
  #retryAt = null;
  /** @type {Set<Answer>} */
  #answers = new Set();

  /**
   * Throws LinkError.
   * @param {string | PairingLink} link
   * @param {PhoneOptions} [options]
   */
  constructor(
    link,
    {
      name = "Phone",
      store,
      atLeast = 1,
      crypto = webCrypto,
      WebSocket = globalThis.WebSocket,
      timers,
      version = VERSION,
    } = {},
  ) {
    super();
    this.#crypto = crypto;
    this.#channel = new Channel(typeof link === "string" ? PairingLink.parse(link) : link, {
      name,
      version,
      store,
      atLeast,
      crypto,
      WebSocket,
      timers,
      onMessage: (message) => this.#message(message),
      onEvent: (event) => this.#event(event),
      onChange: () => this.#update(),
    });
    this.#exchanges = new Exchanges(this.#channel);
    this.#turns = new Turns(this.#channel, this.#exchanges);
    this.#transfers = new Transfers(this.#channel, crypto, (progress) => this.#progress(progress));
    /** @type {Means} */
    this.#means = {
      channel: this.#channel,
      transfers: this.#transfers,
      exchanges: this.#exchanges,
      turns: this.#turns,
      ready: (options) => this.ready(options),
    };
    this.#requests = new Requests(this.#means, crypto, () => this.#absent());
  }

  /** What there is, and why. A change is told by "state". */
  get state() {
    return this.#state;
  }

  /**
   * Who answers, once that is known.
   * @returns {Agent | null}
   */
  get agent() {
    return this.#channel.peer;
  }

  /** The version of the protocol: 2 with a secret, 1 by token alone. Known once connected. */
  get version() {
    return this.#channel.version;
  }

  /** What the relay said when it took us in last: quotas, limits, its name. */
  get greeting() {
    return this.#channel.wire.greeting;
  }

  /** What is used of the bandwidth, nearly as the relay counts. */
  get used() {
    return this.#channel.wire.tally.at(Date.now());
  }

  /** Bytes that pictures may have together in one question to an agent of version 1. */
  get maxInlineBytes() {
    return maxInlineBytes(this.#channel.wire.maxMessageBytes);
  }

  /** Be connected, until `close` or until the relay does not want this phone any more. */
  connect() {
    this.#channel.start();
    this.#update();
  }

  /** Leave the relay; whatever still waits for an answer is told. */
  close() {
    this.#channel.close();
  }

  /** Come back at once; also after another device has taken this one's place. */
  reconnect() {
    this.#channel.reconnect();
  }

  /** Back from the background: find out within 3 s whether the connection lives, else come back. */
  checkAlive() {
    this.#channel.checkAlive();
  }

  /**
   * Wait until the agent is there and messages go through; who it is.
   *
   * Rejects with PairingRefused, Stopped, StoreError, SecretLost, PeerOffline (the agent is not there) or
   * NotConnected (the relay is not). `timeout` is in milliseconds.
   * @param {{timeout?: number, signal?: AbortSignal}} [options]
   * @returns {Promise<Agent>}
   */
  async ready({ timeout = READY_MS, signal } = {}) {
    try {
      await within(timeout, (stop) => this.#channel.waitReady(stop), signal);
    } catch (error) {
      throw error instanceof TimedOut ? this.#absent() : error;
    }
    if (this.agent === null) throw new NotConnected("The agent left again.");
    return this.agent;
  }

  /**
   * Ask a question; see Answer. It is sent when the agent is there, after its attachments.
   * @param {string} text
   * @param {AskOptions} [options]
   * @returns {Answer}
   */
  ask(
    text,
    { id = newId(this.#crypto), attachments = [], timeout = SILENCE_MS, onProgress, ...more } = {},
  ) {
    const { agentId, model, options, conversation } = more;
    const fields = { agent_id: agentId, model, options, conversation };
    const said = Object.entries(fields).filter(([, value]) => value && !isEmpty(value));
    const answer = new Answer(this.#means, {
      text,
      id,
      attachments,
      more: Object.fromEntries(said),
      timeout,
      onProgress,
    });
    this.#answers.add(answer);
    const over = () => this.#answers.delete(answer);
    answer.finished.then(over, over);
    return answer;
  }

  /**
   * @template T
   * @param {string} type
   * @param {Record<string, unknown>} payload
   * @param {string} result
   * @param {number} timeout
   * @param {(payload: Record<string, unknown>) => T} parse
   * @returns {Promise<T>}
   */
  request(type, payload, result, timeout, parse) {
    return this.#requests.ask(type, payload, result, timeout, parse);
  }

  /** Why there is no session. */
  #absent() {
    if (this.#online && this.#agentOnline) {
      return new PeerOffline(
        "The agent is connected, and has not exchanged keys with this phone: it may be busy, or " +
          "something on the way keeps them back. Ask again; if this repeats, restart the agent.",
      );
    }
    if (this.#online) {
      return new PeerOffline("The agent is not connected to the relay. Start it, and ask again.");
    }
    return new NotConnected(this.#cause || "The relay has not answered yet.");
  }

  // What comes.

  /** @param {import("./channel.js").Opened} message */
  async #message(message) {
    if (message.type.startsWith("file.")) {
      await this.#transfers.receive(message);
      return;
    }
    if (this.#exchanges.put(message)) return;
    if (message.type === "chat.done") {
      this.#transfers.drop(message.payload.attachments);
    } else if (message.type === "group.message") {
      this.#dispatch("group-message", groupMessage(message.payload));
    }
  }

  /** @param {import("./transfers.js").Progress} progress */
  #progress(progress) {
    this.#dispatch("progress", progress);
    // A file does not say which answer it belongs to; mostly there is one.
    const [answer] = this.#answers;
    if (this.#answers.size === 1) answer.progress(progress);
  }

  /** @param {import("./channel.js").ChannelEvent} event */
  #event(event) {
    switch (event.kind) {
      case "connecting":
        this.#retryAt = null;
        break;
      case "connected":
        this.#online = true;
        this.#agentOnline = event.greeting.paired;
        this.#cause = "";
        break;
      case "status":
        this.#agentOnline = event.online;
        break;
      case "disconnected":
      case "stopped":
        this.#online = this.#agentOnline = false;
        this.#cause = event.cause;
        this.#retryAt = event.kind === "disconnected" ? Date.now() + event.retryIn : null;
        break;
      case "closed":
        this.#online = this.#agentOnline = false;
        this.#retryAt = null;
        this.#transfers.close();
        this.#exchanges.failAll((id) => new ConnectionLost(event.cause, { ids: [id] }));
        break;
      case "established":
        this.#transfers.established();
        break;
      case "ended": {
        this.#transfers.ended();
        const text =
          `${FAILURES[event.failure]} Whether the message was understood is not known; ` +
          "it can be sent again under the same id.";
        this.#exchanges.failAll((id) => new ConnectionLost(text, { ids: [id] }));
        break;
      }
      case "hint":
        // A relay of version 1 does not say which message it refuses; there is one question at
        // a time, and this one is not known to have got there.
        if (!event.ref && this.version === 1) this.#exchanges.refuseUnanswered(event);
        this.#dispatch("hint", {
          code: event.code,
          retryAfterMs: event.retryAfterMs ?? null,
          ref: event.ref,
        });
        break;
      case "ignored":
        // Version 1: the end that somebody waits for will not come any more.
        if (event.type === "chat.done") this.#exchanges.failUntaken(event.why);
        break;
    }
  }

  #update() {
    const { ready, running, failure } = this.#channel;
    const next = stateOf({
      running,
      ready,
      failure,
      online: this.#online,
      agentOnline: this.#agentOnline,
      retryAt: this.#retryAt,
      cause: this.#cause,
    });
    if (JSON.stringify(next) === JSON.stringify(this.#state)) return;
    this.#state = next;
    this.#dispatch("state", { state: next });
  }

  /**
   * @param {string} type
   * @param {object} detail
   */
  #dispatch(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** @param {unknown} value */
function isEmpty(value) {
  return typeof value === "object" && value !== null && Object.keys(value).length === 0;
}
