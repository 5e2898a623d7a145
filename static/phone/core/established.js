/**
 * One established session of version 2: its records, and what is told to the agent inside it.
 *
 * What came before it and what comes behind it are no business of this one: whatever goes wrong,
 * `PhoneSession` ends it, and the next handshake makes another with counters of its own.
 */

import { isCounter, ref } from "./clear_messages.js";
import { ErrorCode, MAX_COUNTER, PeerCode } from "./codes.js";
import { decodeObject, InvalidMessage, newId } from "./envelope.js";
import { E2EError } from "./failures.js";
import { ignored } from "./ignored.js";

/** @typedef {import("./crypto.js").CryptoProvider} CryptoProvider */
/** @typedef {import("./envelope.js").Envelope} Envelope */
/** @typedef {import("./envelope.js").Payload} Payload */
/** @typedef {import("./records.js").Record} Record */
/** @typedef {import("./records.js").Records} Records */
/** @typedef {import("./session_events.js").Send} Send */
/** @typedef {import("./session_events.js").Opened} Opened */
/** @typedef {import("./session_events.js").SessionEvent} SessionEvent */

// Messages in the clear that are answered, sealed, in each session; what a relay invents beyond
// these is dropped without spending the quota on it.
const CLEAR_ANSWERS = 10;

// Reports of gaps whose ranges are kept, to say again those that get lost themselves.
const REPORTS = 256;

const utf8 = new TextEncoder();

/** See the module. Where `open` rejects with E2EError, it may only say so, and must be ended. */
export class Established {
  /** Whether the agent has said something in it. */
  heard = false;
  #records;
  #crypto;
  #clearAnswers = 0;
  /** @type {Map<string, [number, number]>} */
  #reports = new Map(); // id → the range that is missing

  /**
   * @param {Records} records
   * @param {CryptoProvider} crypto
   */
  constructor(records, crypto) {
    this.#records = records;
    this.#crypto = crypto;
  }

  /** The name of the handshake that made its keys. */
  get hs() {
    return this.#records.hs;
  }

  /** Whether it has sealed as many records as its keys may. */
  get exhausted() {
    return this.#records.sending.n >= MAX_COUNTER;
  }

  // Out.

  /**
   * A JSON object as the wire payload of the next record; see Records.
   * @param {string} type
   * @param {string} id
   * @param {Uint8Array} payload  JSON
   * @returns {Promise<Payload>}
   */
  seal(type, id, payload) {
    return this.#records.seal(type, id, payload);
  }

  /**
   * The relay has refused the message of this id.
   * @param {string} id
   */
  refused(id) {
    // A refused report must count as lost, or nobody would say it again.
    if (!this.#reports.has(id)) {
      this.#records.refused(id);
    }
  }

  /**
   * @param {string} type
   * @param {Payload} payload
   * @returns {Promise<Send[]>}
   */
  async sendSealed(type, payload) {
    const id = newId(this.#crypto);
    const plaintext = utf8.encode(JSON.stringify(payload));
    try {
      return [{ kind: "send", type, id, payload: await this.seal(type, id, plaintext) }];
    } catch (error) {
      if (error instanceof E2EError) {
        return []; // no key is left to say it with; the handshake that follows does
      }
      throw error;
    }
  }

  /** @param {string} code @param {string} message @param {Payload} more */
  sendError(code, message, more) {
    return this.sendSealed("chat.error", { code, message, ...more });
  }

  /**
   * A message came that has to be sealed and was not: say so, if not too often.
   * @param {string} id
   * @returns {Promise<Send[]>}
   */
  async answerClear(id) {
    if (this.#clearAnswers >= CLEAR_ANSWERS) {
      return [];
    }
    this.#clearAnswers += 1;
    return this.sendError(
      PeerCode.E2E_REQUIRED,
      "A message came unsealed and was not taken; something on the way copied or changed it.",
      ref(id),
    );
  }

  // In.

  /**
   * What a record of this session says, null for nothing that can be read, and what is due
   * before that is acted on. Rejects with E2EError for a record that cannot be trusted.
   * @param {Envelope} envelope
   * @param {Record} record  the one in the envelope
   * @returns {Promise<{events: SessionEvent[], message: Opened | null}>}
   */
  async open({ type, id }, { n, ciphertext }) {
    const expected = this.#records.receiving.n;
    const plaintext = await this.#records.open(type, id, n, ciphertext);
    const gap = n > expected ? await this.#gap(expected, n - 1) : [];
    let payload;
    try {
      payload = decodeObject(plaintext);
    } catch (error) {
      const text = messageOf(error);
      const answer = await this.sendError(ErrorCode.INVALID_MESSAGE, text, ref(id));
      const dropped = ignored("a sealed payload that is no object", id);
      return { events: [...gap, ...answer, dropped], message: null };
    }
    const size = plaintext.length;
    return { events: gap, message: { kind: "opened", type, id, payload, sealed: true, size } };
  }

  /**
   * The agent reports records of ours that never came.
   * @param {Payload} report
   * @returns {Promise<SessionEvent[]>}
   */
  async lost({ from, to }) {
    if (!isCounter(from) || !isCounter(to)) {
      return [ignored("a report of lost messages that cannot be read", "")];
    }
    /** @type {SessionEvent[]} */
    const events = [];
    const ids = [];
    // Where the report of a gap is what got lost, the other end still counts on what the report
    // was about.
    const again = [];
    for (const id of this.#records.lost(from, to)) {
      const range = this.#reports.get(id);
      if (range === undefined) {
        ids.push(id);
      } else {
        this.#reports.delete(id);
        again.push(range);
      }
    }
    for (const [first, last] of again) {
      events.push(...(await this.#report(first, last)));
    }
    return ids.length > 0 ? [...events, { kind: "lost", ids }] : events;
  }

  /**
   * @param {number} first
   * @param {number} last
   * @returns {Promise<SessionEvent[]>}
   */
  async #gap(first, last) {
    return [...(await this.#report(first, last)), { kind: "gap", first, last }];
  }

  /** @param {number} first @param {number} last */
  async #report(first, last) {
    const text = "Messages were lost on the way.";
    const told = await this.sendError(PeerCode.E2E_GAP, text, { from: first, to: last });
    for (const { id } of told) {
      this.#reports.set(id, [first, last]);
    }
    if (this.#reports.size > REPORTS) {
      this.#reports.delete(/** @type {string} */ (this.#reports.keys().next().value));
    }
    return told;
  }
}

/** The text of an InvalidMessage; throws all else on. @param {unknown} error */
function messageOf(error) {
  if (error instanceof InvalidMessage) {
    return error.message;
  }
  throw error;
}
