/**
 * The records of one version 2 session: sealed messages with a counter.
 *
 * On the wire a record is the payload of an envelope (PROTOCOL.md, "End-to-end encryption,
 * version 2"):
 *
 *     {"enc":true,"v":2,"hs":"<22 characters>","n":<counter>,"ciphertext":"<base64>"}
 *
 * `hs` names the handshake that made the keys, `n` is the counter of Noise's CipherState, one for
 * each direction, and the envelope's type and id are the associated data: a relay can neither
 * change what a record says nor what it is, nor in which order it counts.
 */

import * as base64 from "./base64.js";
import { E2EError } from "./failures.js";

// Plaintexts are padded with spaces to a multiple of this, so that a record's length tells little
// about a delta. Chunks of files are all of one length anyway.
const PAD_BYTES = 128;
const UNPADDED = "file.chunk";

// Records whose ids are kept, to name those that the other end reports as missing.
const REMEMBERED = 8192;

const SPACE = 0x20;
const utf8 = new TextEncoder();
const LONE_SURROGATE = /\p{Cs}/u;

/** @typedef {{hs: string, n: number, ciphertext: Uint8Array}} Record */

/**
 * The record in an envelope's payload, or null if it is none of version 2.
 * @param {import("./envelope.js").Payload} payload
 * @returns {Record | null}
 */
export function read(payload) {
  const { enc, v, hs, n, ciphertext } = payload;
  if (enc !== true || v !== 2 || typeof hs !== "string" || typeof ciphertext !== "string") {
    return null;
  }
  // An integer of hundreds of digits is Infinity here, and a counter that has run out.
  if (typeof n !== "number" || Math.trunc(n) !== n) {
    return null;
  }
  try {
    return { hs, n, ciphertext: base64.decode(ciphertext) };
  } catch {
    return null;
  }
}

/**
 * Seals what one side says and opens what the other says, each counter from 0. After an E2EError
 * it is not to be used again: a record that fails ends its session.
 */
export class Records {
  /** @type {string[]} */
  #remembered = [];
  /** @type {Set<number>} */
  #refused = new Set(); // counters

  /**
   * @param {string} hs
   * @param {import("./noise.js").CipherState} sending
   * @param {import("./noise.js").CipherState} receiving
   */
  constructor(hs, sending, receiving) {
    this.hs = hs;
    this.sending = sending;
    this.receiving = receiving;
  }

  /**
   * A JSON object as the payload that goes on the wire. Counters follow the order of the calls.
   * Rejects with E2EError (EXHAUSTED) when the counter has run out.
   * @param {string} type
   * @param {string} id
   * @param {Uint8Array} plaintext
   */
  async seal(type, id, plaintext) {
    const n = this.sending.n;
    const rest = type === UNPADDED ? 0 : plaintext.length % PAD_BYTES;
    let padded = plaintext;
    if (rest > 0) {
      padded = new Uint8Array(plaintext.length + PAD_BYTES - rest).fill(SPACE);
      padded.set(plaintext);
    }
    const sealed = this.sending.encryptWithAd(associated(type, id), padded);
    this.#remember(id);
    return { enc: true, v: 2, hs: this.hs, n, ciphertext: base64.encode(await sealed) };
  }

  /**
   * Decrypt a record; its plaintext with the padding still behind it. `n` may be ahead of
   * `receiving.n`: then the records between are missing. Rejects with E2EError: REPLAYED for a
   * counter that was passed, else TAMPERED or EXHAUSTED.
   * @param {string} type
   * @param {string} id
   * @param {number} n
   * @param {Uint8Array} ciphertext
   */
  async open(type, id, n, ciphertext) {
    const expected = this.receiving.n;
    if (n !== expected) {
      if (n < expected) {
        throw new E2EError("REPLAYED");
      }
      this.receiving.setNonce(n);
    }
    // A line feed would leave open where in the associated data the type ends.
    if (id.includes("\n")) {
      throw new E2EError("TAMPERED");
    }
    return this.receiving.decryptWithAd(associated(type, id), ciphertext);
  }

  /**
   * The relay refused the latest message of this id: its gap will be no news.
   * @param {string} id
   */
  refused(id) {
    const index = this.#remembered.lastIndexOf(id);
    if (index !== -1) {
      this.#refused.add(this.sending.n - this.#remembered.length + index);
    }
  }

  /**
   * Ids of the records `first` to `last` that the other end misses and nobody refused.
   * @param {number} first
   * @param {number} last
   * @returns {string[]}
   */
  lost(first, last) {
    const kept = this.#remembered.slice(-REMEMBERED);
    const oldest = this.sending.n - kept.length;
    const start = Math.max(first, oldest);
    return kept
      .slice(start - oldest, Math.max(last + 1 - oldest, 0))
      .filter((_id, index) => !this.#refused.has(start + index));
  }

  /** @param {string} id */
  #remember(id) {
    this.#remembered.push(id);
    // Not at each push: to move eight thousand ids is more work than to seal one record.
    if (this.#remembered.length >= 2 * REMEMBERED) {
      this.#remembered.splice(0, REMEMBERED);
    }
  }
}

/** @param {string} type @param {string} id */
function associated(type, id) {
  const text = `${type}\n${id}`;
  // UTF-8 has no halves of characters: the encoder would write the same for each of them.
  if (LONE_SURROGATE.test(text)) {
    throw new E2EError("TAMPERED");
  }
  return utf8.encode(text);
}
