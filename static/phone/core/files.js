/**
 * Files in parts: the sender as a machine without clock or connection (PROTOCOL.md, "Files").
 * inbox.js receives.
 *
 *     sender    file.begin → · file.chunk 0 … 3 → · file.chunk 4 → … file.end →
 *     receiver  ← file.ack -1 · ← file.ack 0 …                       ← file.result
 *
 * The receiver counts: a `file.ack` says how far the file is here without a gap, and every other
 * state can be found again by `file.begin`, which is answered with that number. So after a lost
 * session, or half a minute without a word, the sender just begins again.
 */

import { encode } from "./base64.js";
import { FILE_CHUNK_BYTES, FILE_WINDOW } from "./codes.js";

/**
 * A type and a payload, in the order in which they travel.
 * @typedef {[type: string, payload: Record<string, any>]} Message
 */

// Milliseconds without progress until a sender begins again, and how often it does. The relay may
// hold a sender back for 10 s; four chunks take another 10 s at 400 kbit/s.
const ACK_MS = 30_000;
const RETRIES = 2;

// How often in a row a sender begins again without progress, after new sessions and messages that
// were lost or refused: whoever meddles must not keep it at that for ever.
const RESTARTS = 10;

// Characters of a refusal's text that are taken from the other end.
const MAX_ERROR = 500;

/**
 * Sends one file. `now` is in milliseconds of a clock that never goes back.
 *
 * `onProgress(acknowledged, total)` is called with bytes that only grow, the last being (total,
 * total). Once the state is "done" the `fileId` may be named in a message; once it is "failed"
 * `error` says why.
 */
export class Outgoing {
  /** @type {"new" | "beginning" | "sending" | "ending" | "done" | "failed"} */
  state = "new";
  error = "";
  /** When `tick` wants to be called next; null: never. @type {number | null} */
  deadline = null;
  #file;
  #sha256;
  #onProgress;
  #count;
  #acked = -1; // highest index that is known to have arrived
  #next = 0; // index that is sent next
  #recover = -2; // highest index that was out when we last went back
  #reported = -1;
  #retries = 0;
  #restarts = -1; // the first start is none

  /**
   * @param {string} fileId
   * @param {import("./attachments.js").Whole} file
   * @param {string} sha256 of its data, 64 hexadecimal digits
   * @param {(acknowledged: number, total: number) => void} [onProgress]
   */
  constructor(fileId, file, sha256, onProgress) {
    this.fileId = fileId;
    this.#file = file;
    this.#sha256 = sha256;
    this.#onProgress = onProgress;
    this.#count = Math.ceil(file.size / FILE_CHUNK_BYTES);
  }

  get over() {
    return this.state === "done" || this.state === "failed";
  }

  /** Chunks that are out and not acknowledged, at most FILE_WINDOW. */
  get unacknowledged() {
    return this.#next - this.#acked - 1;
  }

  /**
   * Begin, or begin again in a new session: whatever was on its way is lost, and the answer to the
   * repeated `file.begin` tells how much of it arrived before.
   * @param {number} now
   * @returns {Message[]}
   */
  start(now) {
    this.#retries = 0;
    return this.again(now);
  }

  /**
   * Begin again where a message was lost or refused; no patience is given anew.
   * @param {number} now
   * @returns {Message[]}
   */
  again(now) {
    if (this.over) return [];
    if (this.#restarts >= RESTARTS) {
      this.#fail(
        "The file does not get through: what is sent of it is lost or changed on the way again " +
          "and again. Check the connection and send it again later.",
      );
      return [["file.cancel", { file_id: this.fileId }]];
    }
    this.#restarts += 1;
    this.#next = this.#acked + 1;
    this.#recover = -2;
    return this.#begin(now);
  }

  /** There is no session: no time runs out until `start`. */
  suspend() {
    this.deadline = null;
  }

  /**
   * Give up, and tell the other end if it has heard of the file.
   * @returns {Message[]}
   */
  cancel() {
    if (this.over) return [];
    const told = this.state !== "new";
    this.#fail("The transfer was cancelled.");
    return told ? [["file.cancel", { file_id: this.fileId }]] : [];
  }

  /**
   * What to send in answer to `file.ack`, `file.result` or `file.cancel`. Messages of other types,
   * of other files or of the wrong shape change nothing.
   * @param {string} type
   * @param {Record<string, any>} payload
   * @param {number} now
   * @returns {Message[]}
   */
  receive(type, payload, now) {
    if (this.over || this.state === "new" || payload.file_id !== this.fileId) return [];
    if (type === "file.ack") {
      const { index } = payload;
      if (Number.isSafeInteger(index) && index >= -1 && index < this.#count) {
        return this.#takeAck(index, now);
      }
    } else if (type === "file.result" && typeof payload.ok === "boolean") {
      this.#takeResult(payload.ok, payload.error);
    } else if (type === "file.cancel") {
      this.#fail("The agent cancelled the transfer.");
    }
    return [];
  }

  /**
   * Begin again if nothing was acknowledged for 30 s; fail when that did not help.
   * @param {number} now
   * @returns {Message[]}
   */
  tick(now) {
    if (this.deadline === null || now < this.deadline || this.over) return [];
    if (this.#retries >= RETRIES) {
      this.#fail(
        "The agent stopped answering in the middle of the file. Check its connection and send " +
          "the file again.",
      );
      return [["file.cancel", { file_id: this.fileId }]];
    }
    this.#retries += 1;
    return this.#begin(now);
  }

  /**
   * @param {number} now
   * @returns {Message[]}
   */
  #begin(now) {
    this.state = "beginning";
    this.deadline = now + ACK_MS;
    const { name, type, size } = this.#file;
    const begin = { name, mime_type: type, size, sha256: this.#sha256 };
    return [["file.begin", { file_id: this.fileId, ...begin }]];
  }

  /**
   * @param {number} index
   * @param {number} now
   */
  #takeAck(index, now) {
    if (this.state === "beginning") {
      // Lower than before where the other end has lost what it had.
      if (this.#next - 1 > index) this.#recover = this.#next - 1;
      if (index > this.#acked) this.#retries = this.#restarts = 0;
      this.#acked = index;
      this.#next = index + 1;
      this.state = "sending";
    } else if (index > this.#acked) {
      this.#acked = index;
      this.#next = Math.max(this.#next, index + 1);
      this.#retries = this.#restarts = 0;
    } else if (index === this.#acked && this.unacknowledged > 0 && index > this.#recover) {
      // The other end got a chunk that does not follow: one is missing between. All from there on
      // goes out again, and the same words about chunks that were out already (up to #recover) are
      // no reason to do so twice.
      this.#recover = this.#next - 1;
      this.#next = index + 1;
    } else {
      return [];
    }
    this.deadline = now + ACK_MS;
    const messages = this.#more();
    this.#report();
    return messages;
  }

  /**
   * The chunks that the window has room for, and the end behind the last.
   * @returns {Message[]}
   */
  #more() {
    if (this.#acked === this.#count - 1) {
      this.state = "ending";
      return [["file.end", { file_id: this.fileId }]];
    }
    /** @type {Message[]} */
    const messages = [];
    while (this.#next < this.#count && this.unacknowledged < FILE_WINDOW) {
      messages.push(["file.chunk", this.#chunk(this.#next)]);
      this.#next += 1;
    }
    return messages;
  }

  /** @param {number} index */
  #chunk(index) {
    const start = index * FILE_CHUNK_BYTES;
    const part = this.#file.data.subarray(start, start + FILE_CHUNK_BYTES);
    return { file_id: this.fileId, index, data_b64: encode(part) };
  }

  /**
   * @param {boolean} ok
   * @param {unknown} error
   */
  #takeResult(ok, error) {
    if (!ok) {
      const told = typeof error === "string" ? error.slice(0, MAX_ERROR) : "";
      const reason = told.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "");
      this.#fail(reason || "The agent refused the file and gave no reason.");
    } else if (this.#acked === this.#count - 1 && this.#reported >= 0) {
      // Also while beginning: the answer to an end that took longer than our patience.
      this.state = "done";
      this.deadline = null;
    }
  }

  /** @param {string} error */
  #fail(error) {
    this.state = "failed";
    this.error = error;
    this.deadline = null;
  }

  #report() {
    const acked = Math.min((this.#acked + 1) * FILE_CHUNK_BYTES, this.#file.size);
    if (acked <= this.#reported) return;
    this.#reported = acked;
    this.#onProgress?.(acked, this.#file.size);
  }
}
