/** Files in parts: the receiver. files.js sends, and tells how it works. */

import { checked, megabytes, safeName } from "./attachments.js";
import { decode } from "./base64.js";
import { FILE_CHUNK_BYTES, MAX_FILE_BYTES } from "./codes.js";
import { AttachmentError, FileError } from "./errors.js";

/** @typedef {import("./files.js").Message} Message */
/** @typedef {import("./attachments.js").Whole} Whole */

const MAX_FILES = 8;
const MAX_TOTAL_BYTES = 100_000_000;
const IDLE_MS = 600_000;

// File ids whose refusal is remembered. Chunks that were on their way then need no second answer:
// `file.result` counts against 30 messages a minute of a phone.
const REFUSED_KEPT = 64;

const FILE_ID = /^[A-Za-z0-9_-]{1,64}$/;
const SHA256 = /^[0-9a-f]{64}$/;

/** @typedef {{file_id: string, name: string, mime_type: string, size: number, sha256: string}} Begin */

/**
 * One file that is coming in, or waits to be claimed. The parts are kept as they come: memory is
 * not given away on the agent's word.
 * @typedef {{begin: Begin, parts: Uint8Array[], touched: number, whole: Whole | null}} Incoming
 */

/** Ends a transfer; the text goes to the other end, for people. */
class Refused extends Error {}

/**
 * Receives files and keeps each until it is claimed.
 *
 * At most 8 are kept, arriving or unclaimed, with 100 MB together by the sizes that were told;
 * what nobody touches for ten minutes is dropped. `onProgress` must not throw. `now` is in
 * milliseconds of a clock that never goes back. One `receive` at a time.
 */
export class Inbox {
  #crypto;
  #onProgress;
  /** @type {Map<string, Incoming>} */
  #files = new Map();
  /** @type {Set<string>} */
  #refused = new Set();

  /**
   * @param {import("./crypto.js").CryptoProvider} crypto
   * @param {(progress: {fileId: string, name: string, received: number, total: number}) => void}
   *   onProgress
   */
  constructor(crypto, onProgress) {
    this.#crypto = crypto;
    this.#onProgress = onProgress;
  }

  /** When `prune` will next find something to drop; null: never. */
  get deadline() {
    if (this.#files.size === 0) return null;
    return Math.min(...[...this.#files.values()].map((file) => file.touched)) + IDLE_MS;
  }

  /**
   * What to answer to `file.begin`, `file.chunk`, `file.end` or `file.cancel`.
   *
   * Whatever breaks the rules is answered with `file.result {ok: false, error}` and ends its
   * transfer. Messages of other types are not for here: no answer.
   * @param {string} type
   * @param {Record<string, any>} payload
   * @param {number} now
   * @returns {Promise<Message[]>}
   */
  async receive(type, payload, now) {
    this.prune(now);
    const { file_id } = payload;
    const id = typeof file_id === "string" && FILE_ID.test(file_id) ? file_id : "";
    try {
      switch (type) {
        case "file.begin":
          return this.#begin(id, payload, now);
        case "file.chunk":
          return this.#chunk(id, payload, now);
        case "file.end":
          return await this.#end(id, now);
        case "file.cancel":
          if (this.#files.delete(id)) this.#rememberRefusal(id);
      }
      return [];
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#files.delete(id);
      this.#rememberRefusal(id);
      return [["file.result", { file_id: id, ok: false, error: error.message }]];
    }
  }

  /**
   * Hand over a file that has arrived and forget it. Throws FileError.
   * @param {unknown} fileId
   * @returns {Whole}
   */
  claim(fileId) {
    const id = String(fileId);
    const file = this.#files.get(id);
    if (!file) {
      throw new FileError(
        "There is no file with this id: it never arrived, or waited too long. Ask again.",
      );
    }
    if (!file.whole) throw new FileError("The file has not arrived completely. Ask again.");
    this.#files.delete(id);
    return file.whole;
  }

  /**
   * Drop a file and tell the sender. Nothing if it is not here.
   * @param {unknown} fileId
   * @returns {Message[]}
   */
  cancel(fileId) {
    const id = String(fileId);
    if (!this.#files.delete(id)) return [];
    this.#rememberRefusal(id);
    return [["file.cancel", { file_id: id }]];
  }

  /**
   * Drop what nobody has touched for too long.
   * @param {number} now
   */
  prune(now) {
    for (const [id, file] of this.#files) {
      if (now - file.touched >= IDLE_MS) this.#files.delete(id);
    }
  }

  /**
   * @param {string} id
   * @param {Record<string, any>} payload
   * @param {number} now
   */
  #begin(id, payload, now) {
    const begin = checkedBegin(id, payload);
    this.#refused.delete(id);
    let file = this.#files.get(id);
    if (!file) {
      this.#checkRoom(begin.size);
      file = { begin, parts: [], touched: now, whole: null };
      this.#files.set(id, file);
    } else if (JSON.stringify(file.begin) !== JSON.stringify(begin)) {
      throw new Refused("Another file was begun under this id. Send it under a new one.");
    }
    file.touched = now;
    this.#report(file);
    return acked(file);
  }

  /** @param {number} size */
  #checkRoom(size) {
    if (size > MAX_FILE_BYTES) {
      throw new Refused(
        `The file is too large: it has ${megabytes(size)}, and at most ` +
          `${megabytes(MAX_FILE_BYTES)} are taken. Send a smaller one.`,
      );
    }
    if (this.#files.size >= MAX_FILES) {
      throw new Refused(
        `Too many files at once: ${MAX_FILES} are on their way or not used yet. Send this one ` +
          "when they are done.",
      );
    }
    const begun = [...this.#files.values()].reduce((sum, file) => sum + file.begin.size, 0);
    if (size + begun > MAX_TOTAL_BYTES) {
      throw new Refused(
        `Too much at once: all files together may have ${megabytes(MAX_TOTAL_BYTES)}. Send this ` +
          "one when the others are done.",
      );
    }
  }

  /**
   * @param {string} id
   * @param {Record<string, any>} payload
   * @param {number} now
   */
  #chunk(id, { index, data_b64 }, now) {
    if (!id || !isCount(index) || typeof data_b64 !== "string") throw new Refused(INVALID);
    const file = this.#known(id);
    if (!file) return [];
    file.touched = now;
    const { size } = file.begin;
    const start = index * FILE_CHUNK_BYTES;
    if (start >= size) {
      throw new Refused(`More came than the ${size} bytes that the file was said to have.`);
    }
    // Earlier: it came twice. Later: one between was lost, and the sender goes back.
    if (index !== file.parts.length || file.whole) return acked(file);
    let data;
    try {
      data = decode(data_b64);
    } catch {
      throw new Refused("A part of the file is not base64.");
    }
    const due = Math.min(FILE_CHUNK_BYTES, size - start);
    if (data.length !== due) {
      throw new Refused(`A part of the file has ${data.length} bytes where ${due} are due.`);
    }
    file.parts.push(data);
    this.#report(file);
    return acked(file);
  }

  /**
   * @param {string} id
   * @param {number} now
   * @returns {Promise<Message[]>}
   */
  async #end(id, now) {
    if (!id) throw new Refused(INVALID);
    const file = this.#known(id);
    if (!file) return [];
    file.touched = now;
    file.whole ??= await this.#finished(file);
    // Also to an end that comes again, because the first answer was lost.
    return [["file.result", { file_id: id, ok: true }]];
  }

  /**
   * @param {Incoming} file
   * @returns {Promise<Whole>}
   */
  async #finished({ begin, parts }) {
    const size = parts.reduce((sum, part) => sum + part.length, 0);
    if (size !== begin.size) {
      throw new Refused(`The file ended after ${size} of ${begin.size} bytes.`);
    }
    const data = new Uint8Array(size);
    parts.forEach((part, index) => {
      data.set(part, index * FILE_CHUNK_BYTES);
    });
    if (hexadecimal(await this.#crypto.sha256(data)) !== begin.sha256) {
      throw new Refused(
        "The file that arrived is not the one that was sent: its checksum differs. Send it again.",
      );
    }
    try {
      const whole = checked(data, begin.mime_type, begin.name);
      parts.length = 0;
      return whole;
    } catch (error) {
      throw error instanceof AttachmentError ? new Refused(error.message) : error;
    }
  }

  /**
   * The file, or undefined where its refusal has been told already.
   * @param {string} id
   */
  #known(id) {
    const file = this.#files.get(id);
    if (!file && !this.#refused.has(id)) {
      throw new Refused("No file was begun under this id, or it waited too long. Begin again.");
    }
    return file;
  }

  /** @param {string} id */
  #rememberRefusal(id) {
    this.#refused.add(id);
    for (const oldest of this.#refused) {
      if (this.#refused.size <= REFUSED_KEPT) break;
      this.#refused.delete(oldest);
    }
  }

  /** @param {Incoming} file */
  #report({ begin, parts, whole }) {
    const received = whole ? begin.size : Math.min(parts.length * FILE_CHUNK_BYTES, begin.size);
    const name = safeName(begin.name);
    this.#onProgress({ fileId: begin.file_id, name, received, total: begin.size });
  }
}

const INVALID = "Not a valid file message.";

/**
 * @param {Incoming} file
 * @returns {Message[]}
 */
function acked({ begin, parts, whole }) {
  const count = whole ? Math.ceil(begin.size / FILE_CHUNK_BYTES) : parts.length;
  return [["file.ack", { file_id: begin.file_id, index: count - 1 }]];
}

/**
 * @param {string} file_id
 * @param {Record<string, any>} payload
 * @returns {Begin}
 */
function checkedBegin(file_id, { name, mime_type, size, sha256 }) {
  const good =
    file_id &&
    typeof name === "string" &&
    name.length <= 1024 &&
    typeof mime_type === "string" &&
    mime_type.length <= 255 &&
    isCount(size) &&
    typeof sha256 === "string" &&
    SHA256.test(sha256);
  if (!good) throw new Refused(INVALID);
  return { file_id, name, mime_type, size, sha256 };
}

/** @param {unknown} value */
function isCount(value) {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

/** @param {Uint8Array} bytes */
export function hexadecimal(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
