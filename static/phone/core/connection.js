/**
 * A phone's place at the relay, kept for as long as it is wanted: dials, and comes back.
 *
 * What it does not know: what the messages mean, who may read them, and which of them were
 * answered. Source: PROTOCOL.md, "Connecting" and "The end of a connection".
 */

import { Backoff, DEFAULT_TIMERS } from "./backoff.js";
import { CLOSED, SILENCE } from "./causes.js";
import { Line } from "./line.js";
import { Change, TimedOut, within } from "./waiting.js";

/**
 * Each `connecting` is followed by `connected` or the end of the attempt, each `connected` by what
 * comes and its end. An end is `disconnected`, and another attempt follows in `retryIn` ms; or
 * `stopped`, and nothing follows, for good if `final`, else until `reconnect`.
 * @typedef {import("./line.js").LineEvent
 *   | {kind: "connecting", attempt: number}
 *   | {kind: "disconnected", code: number, cause: string, retryIn: number}
 *   | {kind: "stopped", code: number, cause: string, final: boolean}} ConnectionEvent
 */

/**
 * @typedef {Omit<import("./line.js").LineOptions, "timers" | "onEvent"> & {
 *   timers?: Partial<import("./backoff.js").Timers>,
 *   onEvent: (event: ConnectionEvent) => void}} ConnectionOptions
 */

/** See the module. */
export class Connection {
  #options;
  #timers;
  #onEvent;
  #backoff;
  /** @type {Line | null} */
  #line = null;
  #asked = new Change();
  /** Come back without a pause: a person waits. */
  #hurry = false;
  /** @type {{wanted: boolean} | null} what is running */
  #run = null;

  /** @param {ConnectionOptions} options */
  constructor({ timers, onEvent, ...options }) {
    this.#options = options;
    this.#timers = { ...DEFAULT_TIMERS, ...timers };
    this.#onEvent = onEvent;
    this.#backoff = new Backoff(this.#timers);
  }

  /** Dial, and tell what happens, over and over, until `close` or a final `stopped`. */
  start() {
    if (this.#run?.wanted) return;
    this.#run = { wanted: true };
    this.#backoff.reset();
    this.#keep(this.#run);
  }

  /**
   * Come back now: skips the pause, and ends a `stopped` that is not final. A time that the relay
   * itself named is still waited for. Does nothing while there is a connection or an attempt.
   */
  reconnect() {
    this.#asked.notify();
  }

  /** Find out in 3 s whether the connection lives; come back at once where it does not. */
  async checkAlive() {
    const line = this.#line;
    if (!line) {
      this.reconnect();
      return;
    }
    const alive = await line.check(this.#timers.alivePatience).catch(() => true);
    if (!alive && !line.over) this.drop(SILENCE);
  }

  /**
   * End the connection and come back at once.
   * @param {string} cause
   */
  drop(cause) {
    this.#hurry = true;
    this.#line?.drop(cause);
  }

  /** What is posted goes out, then it ends. Nothing is told of it. */
  close() {
    if (this.#run) this.#run.wanted = false;
    this.#run = null;
    this.#line?.drop(CLOSED);
    this.#asked.notify();
  }

  /** @param {{wanted: boolean}} run */
  async #keep(run) {
    let attempt = 0;
    /** @param {ConnectionEvent} event */
    const tell = (event) => {
      if (event.kind === "connected") {
        attempt = 0;
        this.#backoff.opened(performance.now());
      }
      if (run.wanted) this.#onEvent(event);
    };
    while (run.wanted) {
      attempt += 1;
      tell({ kind: "connecting", attempt });
      this.#hurry = false;
      const line = new Line({ ...this.#options, timers: this.#timers, onEvent: tell });
      this.#line = line;
      const { code, cause, retryAfter } = await line.ended;
      if (!run.wanted) return;
      this.#line = null;
      const verdict = this.#backoff.failed(performance.now(), code, retryAfter);
      if (verdict.kind === "stop") {
        tell({ kind: "stopped", code, cause, final: verdict.final });
        if (verdict.final) {
          run.wanted = false;
          return;
        }
        await this.#asked.next();
        this.#backoff.reset();
        continue;
      }
      const retryIn = this.#hurry ? verdict.notBefore : verdict.ms;
      tell({ kind: "disconnected", code, cause, retryIn });
      await this.#pause(retryIn, verdict.notBefore, run);
    }
  }

  /**
   * Wait so long, or until asked, though not less than `notBefore`.
   * @param {number} ms
   * @param {number} notBefore
   * @param {{wanted: boolean}} run
   */
  async #pause(ms, notBefore, run) {
    const begin = performance.now();
    for (let until = ms; run.wanted; ) {
      const left = until - (performance.now() - begin);
      if (left <= 0) return;
      try {
        await within(left, (signal) => this.#asked.next(signal));
        until = notBefore;
      } catch (error) {
        if (!(error instanceof TimedOut)) throw error;
        return;
      }
    }
  }
}
