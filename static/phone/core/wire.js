/** What a channel has under it while it is connected: a line, and what the relay takes on it. */

import { MAX_MESSAGE_BYTES } from "./codes.js";
import { encode } from "./envelope.js";
import { MessageTooLarge, NotConnected } from "./errors.js";
import { Pacer } from "./pacer.js";
import { Tally } from "./tally.js";
import { sleep } from "./waiting.js";

// Bytes that a relay must take in one message to be of use: one chunk of a file is a frame of
// 120 KiB. Whoever announces less could otherwise keep us from saying anything at all.
const LEAST_MESSAGE_BYTES = 128 * 1024;

// Bytes that an envelope has around its ciphertext, generously.
const ENVELOPE_BYTES = 512;

// Bytes that wait to be written: beyond the first, whoever sends much waits; beyond the second
// nothing that came is worked on, for it may make us answer even more.
const HIGH_WATER_BYTES = 1024 * 1024;
const HOLD_BYTES = MAX_MESSAGE_BYTES + 3 * HIGH_WATER_BYTES;

// Milliseconds between two looks at what waits to be written: a WebSocket does not tell.
const LOOK_MS = 20;

/** See the module. */
export class Wire {
  /** What the relay said last. @type {import("./greeting.js").Greeting | null} */
  greeting = null;
  tally = new Tally(null, 0);
  maxMessageBytes = MAX_MESSAGE_BYTES;
  pacer = new Pacer();
  /** Bytes that wait to be sealed. */
  pending = 0;
  /** @type {import("./line.js").Line | null} */
  #line = null;

  /** Whether something can be posted now. */
  get live() {
    return this.#line?.over === false;
  }

  get #buffered() {
    return this.#line?.buffered ?? 0;
  }

  /**
   * The relay took us in.
   * @param {import("./line.js").Line} line
   * @param {import("./greeting.js").Greeting} greeting
   */
  connect(line, greeting) {
    this.#line = line;
    this.greeting = greeting;
    this.tally = new Tally(greeting, Date.now());
    const announced = greeting.limits?.maxMessageBytes ?? 0;
    this.maxMessageBytes = announced >= LEAST_MESSAGE_BYTES ? announced : MAX_MESSAGE_BYTES;
    this.pacer.announce(greeting.limits?.streamFramesPerSecond ?? null, performance.now());
  }

  /** Nothing may be posted on this line any more. */
  cut() {
    this.#line = null;
  }

  /**
   * Throws NotConnected.
   * @param {string} type
   * @param {string} id
   * @param {Record<string, unknown>} payload
   */
  post(type, id, payload) {
    if (!this.#line) throw new NotConnected("There is no connection to the relay.");
    const text = encode({ type, id, payload });
    this.#line.post(text);
    this.pacer.sent(performance.now());
    // Nearly all of it is base64, whose characters are bytes.
    this.tally.add(text.length, Date.now());
  }

  /**
   * Throw MessageTooLarge if a payload of so many bytes would not pass.
   * @param {number} bytes
   * @param {string} id
   */
  check(bytes, id) {
    if ((bytes * 4) / 3 + ENVELOPE_BYTES <= this.maxMessageBytes) return;
    throw new MessageTooLarge(
      `A message of ${bytes} bytes does not pass: the relay takes ${this.maxMessageBytes}, and ` +
        "encryption adds a third. Send less at once.",
      { ids: [id] },
    );
  }

  /** Settles when little enough waits to be written for more. */
  async drain() {
    while (this.live && this.pending + this.#buffered > HIGH_WATER_BYTES) await sleep(LOOK_MS);
  }

  /** Settles when what comes may be worked on. */
  async unblock() {
    // What a dead socket has not written it never will, and says so for ever.
    while (this.live && this.#buffered > HOLD_BYTES) await sleep(LOOK_MS);
  }
}
