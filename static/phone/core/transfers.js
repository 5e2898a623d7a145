/** Files over a channel: drives the machines of files.js and inbox.js with its session and pace. */

import { newId } from "./envelope.js";
import { FileError, NotConnected, PeerOffline, RelayRefused } from "./errors.js";
import { Outgoing } from "./files.js";
import { hexadecimal, Inbox } from "./inbox.js";
import { Change, Interrupted, sleep, TimedOut, within } from "./waiting.js";

/** @typedef {import("./channel.js").Channel} Channel */
/** @typedef {import("./files.js").Message} Message */

/**
 * A file on its way here: bytes.
 * @typedef {{fileId: string, name: string, received: number, total: number}} Progress
 */

// Milliseconds until a file goes on that the relay refused without saying when it would take it.
const REFUSED_MS = 5_000;

// Milliseconds that a file waits at most because the relay asks for it. Longer is an error that a
// person should see: the day's bandwidth is used up, or somebody forges refusals.
const LONGEST_MS = 60_000;

/**
 * The files of one pairing, in both directions.
 *
 * Incoming ones wait in `inbox` to be claimed. Outgoing ones survive the session that they were
 * begun in: the next one goes on where the other end has got to.
 */
export class Transfers {
  #channel;
  #crypto;
  /** @type {Set<Upload>} */
  #uploads = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {Channel} channel
   * @param {import("./crypto.js").CryptoProvider} crypto
   * @param {(progress: Progress) => void} onProgress
   */
  constructor(channel, crypto, onProgress) {
    this.#channel = channel;
    this.#crypto = crypto;
    this.inbox = new Inbox(crypto, onProgress);
  }

  /**
   * Take a message that is about files. It runs in a job of the channel, which its answers wait
   * for; they are not awaited.
   * @param {import("./channel.js").Opened} message
   */
  async receive({ type, payload }) {
    const now = performance.now();
    for (const upload of this.#uploads) upload.receive(type, payload, now);
    this.#answer(await this.inbox.receive(type, payload, now));
    this.#schedule();
  }

  /**
   * Files that belong to an answer which nobody waits for need no place.
   * @param {unknown} attachments
   */
  drop(attachments) {
    if (!Array.isArray(attachments)) return;
    for (const item of attachments) this.#answer(this.inbox.cancel(item?.file_id));
  }

  /**
   * Send a file; its id, once the agent has all of it and has checked it.
   *
   * Waits for the agent where it is away, so many milliseconds each time. Rejects with FileError,
   * PeerOffline, the channel's failure, or with Interrupted where the signal cancels the transfer.
   * @param {import("./attachments.js").Whole} file
   * @param {{onProgress?: (sent: number, total: number) => void, patience: number,
   *   signal?: AbortSignal}} how
   */
  async send(file, { onProgress, patience, signal }) {
    const id = newId(this.#crypto);
    const sha256 = hexadecimal(await this.#crypto.sha256(file.data));
    const upload = new Upload(this.#channel, new Outgoing(id, file, sha256, onProgress));
    this.#uploads.add(upload);
    try {
      await upload.run(patience, signal);
    } finally {
      this.#uploads.delete(upload);
    }
    return id;
  }

  /** There is a new session. */
  established() {
    for (const upload of this.#uploads) upload.resume();
  }

  /** The session is over. */
  ended() {
    for (const upload of this.#uploads) upload.pause();
  }

  /** @param {Message[]} messages */
  #answer(messages) {
    for (const [type, payload] of messages) {
      // Without a session: the sender begins again in the next one, and is answered there.
      this.#channel.send(type, payload).catch(() => {});
    }
  }

  #schedule() {
    clearTimeout(this.#timer);
    const { deadline } = this.inbox;
    if (deadline === null) return;
    const prune = () => {
      this.inbox.prune(performance.now());
      this.#schedule();
    };
    this.#timer = setTimeout(prune, Math.max(0, deadline - performance.now()));
  }

  /** Keep nothing: the phone is closed. */
  close() {
    clearTimeout(this.#timer);
  }
}

/** One file on its way out: what its machine wants sent, at the channel's pace. */
class Upload {
  #channel;
  #machine;
  /** @type {Message[]} */
  #messages = [];
  #change = new Change();
  #woken = false;
  #notBefore = 0;
  #begin = true; // the file, or its rest, and
  #anew = true; // in a new session
  /** @type {Error | null} */
  #refusal = null;

  /**
   * @param {Channel} channel
   * @param {Outgoing} machine
   */
  constructor(channel, machine) {
    this.#channel = channel;
    this.#machine = machine;
  }

  /**
   * @param {string} type
   * @param {Record<string, any>} payload
   * @param {number} now
   */
  receive(type, payload, now) {
    this.#messages.push(...this.#machine.receive(type, payload, now));
    this.#wake();
  }

  resume() {
    this.#begin = this.#anew = true;
    this.#wake();
  }

  pause() {
    this.#messages = [];
    this.#machine.suspend();
    this.#wake();
  }

  /**
   * @param {number} patience
   * @param {AbortSignal} [signal]
   */
  async run(patience, signal) {
    const machine = this.#machine;
    try {
      while (!machine.over) {
        if (this.#refusal) throw this.#refusal;
        await this.#waitReady(patience, signal);
        await this.#turn(signal);
      }
    } catch (error) {
      if (error instanceof Interrupted || error === this.#refusal) this.#cancel();
      throw error;
    }
    if (machine.state === "failed") throw new FileError(machine.error);
  }

  /**
   * @param {number} patience
   * @param {AbortSignal} [signal]
   */
  async #waitReady(patience, signal) {
    try {
      await within(patience, (stop) => this.#channel.waitReady(stop), signal);
    } catch (error) {
      if (!(error instanceof TimedOut)) throw error;
      throw new PeerOffline(
        "The agent left in the middle of a file and did not come back. Send the file again when " +
          "it is there.",
      );
    }
  }

  /**
   * Send what is due, then wait for an answer, a time-out or a new session.
   * @param {AbortSignal} [signal]
   */
  async #turn(signal) {
    this.#woken = false;
    const now = performance.now();
    if (now < this.#notBefore) {
      await this.#waitUntil(this.#notBefore, signal);
      return;
    }
    if (this.#begin) {
      const messages = this.#anew ? this.#machine.start(now) : this.#machine.again(now);
      this.#begin = this.#anew = false;
      this.#messages = messages;
    } else {
      this.#messages.push(...this.#machine.tick(now));
    }
    while (this.#messages.length > 0) {
      const message = this.#messages[0];
      const [type, payload] = message;
      // Chunks wait for their turn; what begins and ends a file does not.
      const delay = type === "file.chunk" ? this.#channel.wire.pacer.delay(performance.now()) : 0;
      if (delay > 0) {
        await sleep(delay, signal);
        continue;
      }
      try {
        await this.#channel.send(type, payload, { onFailure: (error) => this.#failed(error) });
      } catch (error) {
        if (!(error instanceof NotConnected)) throw error;
        await sleep(0, signal); // Whatever ended the session gets its turn to say so.
        return;
      }
      if (this.#messages[0] === message) this.#messages.shift();
      await this.#channel.wire.drain();
      if (signal?.aborted) throw new Interrupted();
    }
    if (!this.#machine.over) await this.#waitUntil(this.#machine.deadline ?? Infinity, signal);
  }

  /**
   * @param {number} when
   * @param {AbortSignal} [signal]
   */
  async #waitUntil(when, signal) {
    if (this.#woken) return;
    try {
      const left = Math.max(0, when - performance.now());
      await within(left, (stop) => this.#change.next(stop), signal);
    } catch (error) {
      if (!(error instanceof TimedOut)) throw error;
    }
  }

  #wake() {
    this.#woken = true;
    this.#change.notify();
  }

  /**
   * The relay refused a message, or the agent missed it: begin again, in time.
   * @param {Error} error
   */
  #failed(error) {
    let delay = 0;
    if (error instanceof RelayRefused) delay = error.retryAfterMs ?? REFUSED_MS;
    if (delay > LONGEST_MS) this.#refusal = error;
    this.#notBefore = performance.now() + delay;
    this.#begin = true;
    this.#wake();
  }

  #cancel() {
    for (const [type, payload] of this.#machine.cancel()) {
      this.#channel.send(type, payload).catch(() => {});
    }
  }
}
