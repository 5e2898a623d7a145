/** One WebSocket, from the first packet to its end: logs in, tells what comes, asks for life. */

import { BROKE, NO_AUTH_ANSWER, ofCode, SILENCE, UNREACHABLE } from "./causes.js";
import { CloseCode } from "./codes.js";
import { decode, encode } from "./envelope.js";
import { NotConnected } from "./errors.js";
import { count, readGreeting } from "./greeting.js";
import { sleep } from "./waiting.js";

/** @typedef {import("./envelope.js").Envelope} Envelope */

/**
 * Why a line ended: a close code (1006: none came), a sentence, and the milliseconds that the
 * relay asked to wait.
 * @typedef {{code: number, cause: string, retryAfter: number | null}} End
 */

/**
 * @typedef {{kind: "connected", line: Line, greeting: import("./greeting.js").Greeting}
 *   | {kind: "status", online: boolean}
 *   | {kind: "received", envelope: Envelope}} LineEvent
 */

/**
 * @typedef {object} LineOptions
 * @property {string} relay
 * @property {string} token
 * @property {string} name
 * @property {string} version
 * @property {typeof globalThis.WebSocket} WebSocket
 * @property {import("./backoff.js").Timers} timers
 * @property {import("./crypto.js").CryptoProvider} crypto
 * @property {(event: LineEvent) => void} onEvent
 */

const PROTOCOL = 2;
const ABNORMAL = 1006;

// Milliseconds that the close code may come behind an error.
const ERROR_MS = 100;

// Types that are between client and relay; they reach nobody but this module.
const OWN_TYPES = ["auth", "auth.ok", "auth.fail", "ping", "pong"];

/** See the module. It begins when it is made, and never throws: `ended` tells. */
export class Line {
  /** Settles once there is nothing more to come. @type {Promise<End>} */
  ended;
  #options;
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {"opening" | "auth" | "refused" | "live" | "over"} */
  #phase = "opening";
  #over = new AbortController();
  /** @type {(end: End) => void} */
  #settle = () => {};
  /** @type {number | null} */
  #retryAfter = null;
  #heard = 0;
  #heardAt = performance.now();

  /** @param {LineOptions} options */
  constructor(options) {
    this.#options = options;
    this.ended = new Promise((settle) => {
      this.#settle = settle;
    });
    this.#dial();
  }

  /** Whether nothing can be posted any more. */
  get over() {
    return this.#phase === "over";
  }

  /** Bytes that are posted and not yet with the network. */
  get buffered() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /**
   * Send a message. Throws NotConnected.
   * @param {string} text
   */
  post(text) {
    if (this.#phase !== "live" || this.#socket?.readyState !== 1) {
      throw new NotConnected(
        "There is no connection to the relay now. Send it again once there is.",
      );
    }
    this.#socket.send(text);
  }

  /**
   * End it from this side.
   * @param {string} cause
   */
  drop(cause) {
    this.#end(ABNORMAL, cause);
  }

  /**
   * Ask the relay for a sign of life; whether one came in so many milliseconds.
   *
   * Anything counts, and so does progress with what we write: a ping may wait behind megabytes.
   * Tries are counted and not time, which passes while a page is frozen and can hear nothing.
   * @param {number} patience
   */
  async check(patience) {
    const heard = this.#heard;
    let backlog = this.buffered;
    this.#ping();
    for (let left = 10; left > 0; left--) {
      await sleep(patience / 10, this.#over.signal);
      if (this.#heard !== heard) return true;
      if (this.buffered < backlog) left = 11;
      backlog = this.buffered;
    }
    return false;
  }

  #ping() {
    const id = this.#options.crypto.randomBytes(6).join("");
    if (this.#socket?.readyState === 1) this.#socket.send(encode({ type: "ping", id }));
  }

  #dial() {
    const { relay, WebSocket, timers } = this.#options;
    this.#limit(timers.open, "opening", UNREACHABLE);
    try {
      this.#socket = new WebSocket(relay);
    } catch {
      // A page on https may not call a relay on ws.
      this.#end(ABNORMAL, UNREACHABLE);
      return;
    }
    this.#socket.onopen = () => this.#logIn();
    this.#socket.onmessage = ({ data }) => this.#receive(data);
    this.#socket.onclose = ({ code }) => this.#closed(code);
    // Not every engine (Node 20) tells the end of an attempt by "close", where browsers do it
    // right behind.
    this.#socket.onerror = () => {
      sleep(ERROR_MS, this.#over.signal).then(
        () => this.#closed(ABNORMAL),
        () => {},
      );
    };
  }

  #logIn() {
    const { token, name, version, timers } = this.#options;
    this.#phase = "auth";
    this.#limit(timers.auth, "auth", NO_AUTH_ANSWER);
    const client = { name, version };
    const payload = { token, role: "phone", protocol: PROTOCOL, client };
    this.#socket?.send(encode({ type: "auth", id: "", payload }));
  }

  /**
   * Give up where the phase is still this one after so many milliseconds.
   * @param {number} ms
   * @param {string} phase
   * @param {string} cause
   * @param {number} [code]
   */
  #limit(ms, phase, cause, code = ABNORMAL) {
    const late = () => {
      if (this.#phase === phase) this.#end(code, cause);
    };
    sleep(ms, this.#over.signal).then(late, () => {});
  }

  /** @param {unknown} data */
  #receive(data) {
    this.#heard += 1;
    this.#heardAt = performance.now();
    let envelope;
    try {
      envelope = decode(data);
    } catch {
      return; // What is no message is dropped, whatever the relay means by it.
    }
    if (this.#phase === "auth") this.#answered(envelope);
    else if (this.#phase === "live") this.#forwarded(envelope);
  }

  /** @param {Envelope} envelope */
  #answered({ type, payload }) {
    const { timers, onEvent } = this.#options;
    if (type === "auth.ok") {
      this.#phase = "live";
      onEvent({ kind: "connected", line: this, greeting: readGreeting(payload) });
      this.#keepAlive().catch(() => {}); // interrupted by the end of the line
      return;
    }
    if (type !== "auth.fail" && type !== "chat.error") return;
    this.#retryAfter = count(payload.retry_after_ms) ?? this.#retryAfter;
    if (type === "auth.fail") {
      // The close code behind it tells a revoked token from an unknown one.
      this.#phase = "refused";
      const code = CloseCode.UNAUTHORIZED;
      this.#limit(timers.close, "refused", ofCode(code), code);
    }
  }

  /** @param {Envelope} envelope */
  #forwarded(envelope) {
    const { onEvent } = this.#options;
    if (envelope.type === "status") {
      const { peer } = envelope.payload;
      if (peer === "online" || peer === "offline") {
        onEvent({ kind: "status", online: peer === "online" });
      }
    } else if (!OWN_TYPES.includes(envelope.type)) {
      onEvent({ kind: "received", envelope });
    }
  }

  async #keepAlive() {
    const { ping, pingPatience } = this.#options.timers;
    for (;;) {
      const quiet = performance.now() - this.#heardAt;
      if (quiet < ping) await sleep(ping - quiet, this.#over.signal);
      else if (!(await this.check(pingPatience))) this.drop(SILENCE);
    }
  }

  /** @param {number} code */
  #closed(code) {
    if (this.#phase === "refused" && code !== CloseCode.REVOKED) code = CloseCode.UNAUTHORIZED;
    const never = this.#phase === "opening" && (code === ABNORMAL || code === 1005);
    this.#end(code, never ? UNREACHABLE : code === 1005 ? BROKE : ofCode(code));
  }

  /**
   * @param {number} code
   * @param {string} cause
   */
  #end(code, cause) {
    if (this.over) return;
    this.#phase = "over";
    this.#over.abort();
    const socket = this.#socket;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
      socket.close(CloseCode.NORMAL);
    }
    this.#settle({ code, cause, retryAfter: this.#retryAfter });
  }
}
