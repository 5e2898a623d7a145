/**
 * A channel: the messages of one pairing, end-to-end encrypted, over a connection that returns.
 *
 *     Connection (messages to and from the relay)
 *         │ onEvent                   ▲ post
 *         ▼                           │
 *     Channel ── machine (PhoneSession or LegacySession)
 *         │ onMessage, onEvent        ▲ send
 *         ▼                           │
 *     Phone
 *
 * The channel carries out what the machine says, drops messages that came before, writes down what
 * must outlive the page, and has the sender of a message told what became of it (`Sender`).
 *
 * Cryptography is asynchronous here, and counters must go out in order. So there is one queue: each
 * event in and each message out is a job of it, and a job begins when the one before has settled.
 * A job must not wait for another, so what is called by one sends without awaiting.
 */

import { Alarm } from "./alarm.js";
import { CLOSED, FLOODED } from "./causes.js";
import { Connection } from "./connection.js";
import {
  CoralmuxError,
  copied,
  NotConnected,
  PairingRefused,
  Stopped,
  StoreError,
} from "./errors.js";
import { FAILURES } from "./failures.js";
import { JobQueue } from "./job_queue.js";
import { machineFor, versionOf } from "./machine.js";
import { Memory } from "./memory.js";
import { Sender } from "./sender.js";
import { Change } from "./waiting.js";
import { Wire } from "./wire.js";

/** @typedef {import("./session_events.js").SessionEvent} SessionEvent */
/** @typedef {import("./session_events.js").Opened} Opened */
/** @typedef {import("./connection.js").ConnectionEvent} ConnectionEvent */
/** @typedef {import("./insistence.js").Fate} Fate */
/** @typedef {import("./machine.js").Machine} Machine */

/**
 * What a channel tells beside messages; `closed` is the end of all, with a sentence why.
 * @typedef {Exclude<SessionEvent, Opened> | Exclude<ConnectionEvent, {kind: "received"}>
 *   | {kind: "closed", cause: string}} ChannelEvent
 */

/**
 * @typedef {object} ChannelOptions
 * @property {string} name
 * @property {string} version
 * @property {import("./memory.js").Store} [store]
 * @property {1 | 2} [atLeast] the oldest version that it may speak
 * @property {import("./crypto.js").CryptoProvider} crypto
 * @property {typeof globalThis.WebSocket} WebSocket
 * @property {Partial<import("./backoff.js").Timers>} [timers]
 * @property {(message: Opened) => Promise<void> | void} onMessage each message of the agent, once;
 *   the next one waits for it
 * @property {(event: ChannelEvent) => void} onEvent
 * @property {() => void} onChange `ready`, `running` or `failure` may have changed
 */

// Characters that came and wait to be worked on. A WebSocket cannot be told to wait.
const MAX_BACKLOG = 64 * 1024 * 1024;

/** See the module. */
export class Channel {
  #link;
  #options;
  #memory;
  #connection;
  /** @type {Machine | null} null until the store has been read */
  #machine = null;
  #queue = new JobQueue();
  #backlog = 0;
  #peerThere = false;
  #running = false;
  /** @type {Error | null} */
  #failure = new NotConnected("The phone is not connected. Call connect() first.");
  #sender;
  #change = new Change();
  #alarm = new Alarm(() => this.#do((machine) => this.#perform(machine.tick(now()))));
  /** What it has under it: what the relay said, and takes. */
  wire = new Wire();

  /**
   * @param {import("./link.js").PairingLink} link
   * @param {ChannelOptions} options
   */
  constructor(link, options) {
    this.#link = link;
    this.#options = options;
    const { name, version, store, crypto, WebSocket, timers } = options;
    this.#memory = new Memory(store);
    this.#sender = new Sender({
      machine: () => this.#machine,
      wire: this.wire,
      queue: this.#queue,
      crypto,
      onUnsent: () => this.#schedule(),
    });
    this.#connection = new Connection({
      relay: link.relay,
      token: link.token,
      name,
      version,
      WebSocket,
      crypto,
      timers,
      onEvent: (event) => this.#came(event),
    });
  }

  /** 2 with a secret, 1 by token alone. */
  get version() {
    if (this.#machine) return versionOf(this.#machine);
    return this.#link.secret || this.#options.atLeast === 2 ? 2 : 1;
  }

  get running() {
    return this.#running;
  }

  /** Whether a message can be sent now. */
  get ready() {
    // A line may be over before its last messages and its end are worked on.
    return this.#running && this.#machine?.ready === true && this.wire.live;
  }

  get peer() {
    return this.#machine?.peer ?? null;
  }

  /** Why there is no getting through, where waiting cannot help. */
  get failure() {
    return this.#failure;
  }

  // The life of it.

  /** Be connected until `close`, or until the relay wants this phone no more. */
  start() {
    if (this.#running) return;
    this.#running = true;
    this.#failure = null;
    this.#do(async () => {
      if (!this.#running) return;
      if (this.#options.store || !this.#machine) await this.#load();
      this.#connection.start();
    });
  }

  async #load() {
    await this.#memory.load(this.#link, this.#options.crypto);
    const { secrets } = this.#memory;
    this.#machine = machineFor({ ...this.#options, token: this.#link.token, secrets });
  }

  close() {
    if (this.#running) this.#stop(new NotConnected(CLOSED));
  }

  /**
   * Let what is queued go out, then end it all.
   * @param {Error} failure
   */
  #stop(failure) {
    this.#running = false;
    this.#failure = failure;
    this.#changed();
    this.#do(async () => {
      this.#connection.close();
      await this.#cut();
      this.#emit({ kind: "closed", cause: failure.message });
      await this.#memory.close();
    });
  }

  /** Come back now: after a pause, where another device took over, or where the agent refused. */
  reconnect() {
    if (!this.#running) return;
    const refused = this.#failure instanceof PairingRefused;
    this.#failure = null;
    this.#connection.reconnect();
    this.#changed();
    if (refused && this.#peerThere) {
      this.#do((machine) => this.#perform(machine.peerOnline(now())));
    }
  }

  checkAlive() {
    if (this.#running) this.#connection.checkAlive();
  }

  /**
   * Settles when messages can be sent. Rejects where waiting cannot help, or with Interrupted.
   * @param {AbortSignal} [signal]
   */
  async waitReady(signal) {
    while (!this.ready) {
      if (this.#failure instanceof CoralmuxError) throw copied(this.#failure);
      if (this.#failure) throw this.#failure;
      await this.#change.next(signal);
    }
  }

  // Out.

  /**
   * Seal a message and send it, behind all that was sent before; its id.
   *
   * `onFailure` is told when it is known to be refused or lost; the end of the session is told to
   * all by `onEvent`. Rejects with NotConnected, or MessageTooLarge.
   * @param {string} type
   * @param {Record<string, unknown>} payload
   * @param {{id?: string, onFailure?: Fate}} [how]
   * @returns {Promise<string>}
   */
  send(type, payload, how) {
    return this.#sender.send(type, payload, how);
  }

  /**
   * Send what must arrive: again, under the same id, where it was refused or lost. The end of the
   * session ends it without a word.
   * @param {string} type
   * @param {Record<string, unknown>} payload
   */
  insist(type, payload) {
    // In version 1 a late end would be taken for another answer's.
    this.#sender.insist(type, payload, { patient: this.version === 2 });
  }

  // In.

  /** @param {ConnectionEvent} event */
  #came(event) {
    if (event.kind !== "received") {
      this.#do(() => this.#connectionEvent(event));
      return;
    }
    const { envelope } = event;
    const size = envelope.size ?? 0;
    this.#backlog += size;
    if (this.#backlog > MAX_BACKLOG) this.#connection.drop(FLOODED);
    this.#do(async (machine) => {
      this.#backlog -= size;
      this.wire.tally.add(size, Date.now());
      await this.wire.unblock();
      await this.#attempt(envelope.id, () => this.#perform(machine.receive(envelope, now())));
    });
  }

  /** @param {Exclude<ConnectionEvent, {kind: "received"}>} event */
  async #connectionEvent(event) {
    const machine = /** @type {Machine} */ (this.#machine);
    switch (event.kind) {
      case "connected":
        this.wire.connect(event.line, event.greeting);
        this.#failure = null;
        this.#peerThere = event.greeting.paired;
        this.#emit(event);
        await this.#perform(machine.connected(now(), { paired: this.#peerThere }));
        return;
      case "status":
        this.#peerThere = event.online;
        // It may be another one that is there now; and one that left needs not answer.
        if (
          this.#failure instanceof PairingRefused &&
          (event.online || this.#failure.failure === "NO_ANSWER")
        ) {
          this.#failure = null;
        }
        this.#emit(event);
        await this.#perform(event.online ? machine.peerOnline(now()) : machine.peerOffline(now()));
        return;
      case "stopped":
        if (this.#running) this.#failure = new Stopped(event.cause, { code: event.code });
        if (event.final) this.#running = false;
        await this.#cut();
        break;
      case "disconnected":
        await this.#cut();
        break;
    }
    this.#emit(event);
    this.#changed();
  }

  async #cut() {
    this.wire.cut();
    this.#peerThere = false;
    if (this.#machine) await this.#perform(this.#machine.disconnected(now()));
    this.#sender.sessionEnded(); // also where the machine never had one: v1 says much without
  }

  /** @param {Promise<SessionEvent[]>} events */
  async #perform(events) {
    let quiet = true;
    try {
      for (const event of await events) {
        if (event.kind !== "opened") quiet = false;
        await this.#attempt("id" in event ? event.id : "", () => this.#carryOut(event));
      }
    } finally {
      this.#schedule();
      if (!quiet) this.#changed();
    }
  }

  /**
   * Act on one message, or on one event. Whatever is the matter with it, what is behind it is due
   * all the same.
   * @param {string} id
   * @param {() => Promise<void>} work
   */
  async #attempt(id, work) {
    try {
      await work();
    } catch (error) {
      if (error instanceof StoreError) throw error;
      // Neither its text nor its stack: both may hold what was in the message.
      this.#emit({ kind: "ignored", why: "a message that could not be handled", id });
    }
  }

  /** @param {SessionEvent} event */
  async #carryOut(event) {
    switch (event.kind) {
      case "opened":
        if (this.version === 2 && this.#memory.cameBefore(event)) return;
        await this.#options.onMessage(event);
        return;
      case "send":
        try {
          this.wire.post(event.type, event.id, event.payload);
        } catch (error) {
          if (!(error instanceof NotConnected)) throw error; // then a new session is due anyway
        }
        return;
      case "store":
        await this.#keep(event.secrets);
        return;
      case "hint":
        this.#sender.refused(event);
        break;
      case "lost":
        this.#sender.lost(event.ids);
        break;
      case "established":
        this.#failure = null;
        this.#memory.peerName = event.peer.name;
        break;
      case "ended":
        this.#sender.sessionEnded();
        break;
      case "pairing-refused": {
        const { failure } = event;
        this.#failure = new PairingRefused(FAILURES[failure], { failure });
        break;
      }
    }
    this.#emit(event);
  }

  /** @param {import("./session_events.js").Secrets} secrets */
  async #keep(secrets) {
    try {
      await this.#memory.keep(secrets);
    } catch (error) {
      // What comes behind is not carried out, so this session must not be used.
      this.wire.cut();
      throw error;
    }
  }

  // The queue, and time.

  /**
   * A job that nobody waits for. Where it fails, all does: a secret could not be kept, or this
   * machine cannot encrypt.
   * @param {(machine: Machine) => Promise<unknown>} work
   */
  #do(work) {
    const machine = () => /** @type {Machine} */ (this.#machine);
    this.#queue
      .add(async () => work(machine()))
      .catch((error) => {
        this.#connection.close();
        if (this.#running) this.#stop(error);
      });
  }

  /** @param {ChannelEvent} event */
  #emit(event) {
    this.#options.onEvent(event);
    this.#options.onChange();
  }

  #changed() {
    this.#change.notify();
    this.#options.onChange();
  }

  #schedule() {
    this.#alarm.set(this.#machine?.deadline ?? null);
  }
}

/** Milliseconds of a clock that never goes back. */
function now() {
  return performance.now();
}
