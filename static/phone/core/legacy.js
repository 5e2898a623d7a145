/**
 * Version 1, for the agents in the field: one key from two public keys that the relay carries.
 * The phone's side.
 *
 * Theory of operation. Both ends send `key_exchange {pubkey}`. Each new connection of ours has a
 * key pair of its own, and is not ready until a key of the agent came over it; an agent that
 * connects again must send a key again, because it may have forgotten ours. It may change its key
 * in the middle: what it sealed before still opens with the key before.
 *
 *     connected, paired         send our key
 *     peerOnline                not ready; send our key
 *     key_exchange              ready; send our key once for each key that is new
 *     peerOffline, disconnected not ready
 *
 * Exactly `chat.send`, `chat.stream` and `chat.done` are sealed, and in the clear they are not
 * taken. All else travels in the clear, as the programs in the field expect it.
 *
 * What this cannot do: nothing tells the agent's public key from one that the relay made, so a
 * hostile relay can read and write everything. Neither type, order nor direction is bound to a
 * ciphertext. `peer.verified` is therefore false, always.
 *
 * Source: PROTOCOL.md, "End-to-end encryption, version 1"; RFC 7748 (X25519), RFC 5869 (HKDF).
 */

import * as base64 from "./base64.js";
import {
  forwarded,
  KEY_EXCHANGES_PER_MINUTE,
  MAX_REF_BYTES,
  MAX_RETRY_AFTER_MS,
  PeerCode,
  RELAY_CODES,
} from "./codes.js";
import { webCrypto } from "./crypto.js";
import { decodeObject, InvalidMessage, newId } from "./envelope.js";
import { E2EError, NotReady } from "./failures.js";
import { ignored } from "./ignored.js";

/** @typedef {import("./crypto.js").CryptoProvider} CryptoProvider */
/** @typedef {import("./envelope.js").Envelope} Envelope */
/** @typedef {import("./envelope.js").Payload} Payload */
/** @typedef {import("./session_events.js").SessionEvent} SessionEvent */
/** @typedef {import("./session_events.js").Send} Send */
/** @typedef {import("./session_events.js").Ignored} Ignored */

const utf8 = new TextEncoder();
const SALT = utf8.encode("openclaw-relay-e2e-v1");
const INFO = utf8.encode("chat-encryption");
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const NOTHING = new Uint8Array(0);

/** The types that are sealed, in either direction. */
export const SEALED_TYPES = new Set(["chat.send", "chat.stream", "chat.done"]);

// Of these, what a phone takes. One key serves both directions, so a relay that hands our own
// message back to us would otherwise be believed.
const TAKEN = new Set(["chat.stream", "chat.done"]);

/** `why` of an event `ignored` where a person is waiting for what was dropped. */
export const UNSEALED = "a chat message came in the clear, and was not taken";
export const UNREADABLE = "a chat message could not be decrypted with the keys of this connection";

/** @type {import("./session_events.js").PeerInfo} */
const PEER = Object.freeze({ name: "", version: "", caps: [], protocol: 1, verified: false });

// A key that the relay refused goes out again at the pace that the relay allows.
const KEY_MS = 60_000 / KEY_EXCHANGES_PER_MINUTE;

/**
 * The key that both ends compute from their own key and the other's public one.
 * @param {CryptoProvider} crypto
 * @param {unknown} privateKey
 * @param {Uint8Array} peerPublic
 * @returns {Promise<unknown>} a handle for `seal` and `open` of the provider
 * @throws {E2EError} TAMPERED, for a public key that is not 32 bytes long or makes no secret
 */
export async function deriveKey(crypto, privateKey, peerPublic) {
  let shared;
  try {
    if (peerPublic.length !== KEY_BYTES) {
      throw new RangeError("not a public key");
    }
    shared = await crypto.agree(privateKey, peerPublic);
  } catch {
    throw new E2EError("TAMPERED");
  }
  const bytes = await crypto.hkdf(shared, SALT, INFO, KEY_BYTES);
  const key = await crypto.importKey(bytes);
  bytes.fill(0);
  return key;
}

/**
 * The wire payload: `{"enc":true,"ciphertext":b64,"nonce":b64}`.
 * @param {CryptoProvider} crypto
 * @param {unknown} key
 * @param {Uint8Array} plaintext
 */
export async function sealPayload(crypto, key, plaintext) {
  const nonce = crypto.randomBytes(NONCE_BYTES);
  const ciphertext = await crypto.seal(key, nonce, NOTHING, plaintext);
  return { enc: true, ciphertext: base64.encode(ciphertext), nonce: base64.encode(nonce) };
}

/**
 * The plaintext of a wire payload, by the first of the keys that fits.
 * @param {CryptoProvider} crypto
 * @param {unknown[]} keys
 * @param {Payload} payload
 * @returns {Promise<Uint8Array>}
 * @throws {E2EError} TAMPERED
 */
export async function openPayload(crypto, keys, payload) {
  const nonce = read(payload.nonce);
  const ciphertext = read(payload.ciphertext);
  if (nonce?.length === NONCE_BYTES && ciphertext !== null) {
    for (const key of keys) {
      try {
        return await crypto.open(key, nonce, NOTHING, ciphertext);
      } catch {
        // The next key, then.
      }
    }
  }
  throw new E2EError("TAMPERED");
}

/**
 * The phone's side of a pairing by token alone; see the top of the module, and PhoneSession for
 * the rules of calling it.
 *
 * A message of the agent may open while the session is not ready: it was sealed before the agent
 * heard of our new key.
 */
export class LegacySession {
  #crypto;
  #ready = false;
  /** @type {import("./session_events.js").PeerInfo | null} */
  #peer = null;
  /** @type {number | null} */
  #deadline = null;
  /** @type {import("./crypto.js").KeyPair | null} */
  #pair = null; // null: not connected
  #peerPublic = ""; // the last that came over this connection, in base64
  /** @type {unknown[]} */
  #keys = []; // the newest first, at most two
  #keyId = ""; // of our latest key_exchange, sent at:
  #keySent = 0;
  #complained = false;

  /** @param {{crypto?: CryptoProvider}} [setting] */
  constructor({ crypto = webCrypto } = {}) {
    this.#crypto = crypto;
  }

  get ready() {
    return this.#ready;
  }

  get peer() {
    return this.#peer;
  }

  get deadline() {
    return this.#deadline;
  }

  // The connection and the agent come and go.

  /**
   * A new connection to the relay; `paired` says whether the agent is there already.
   * @param {number} now
   * @param {{paired: boolean}} status
   * @returns {Promise<SessionEvent[]>}
   */
  async connected(now, { paired }) {
    const events = await this.disconnected(now);
    this.#pair = await this.#crypto.generateKeyPair();
    return paired ? [...events, this.#sendKey(this.#pair, now)] : events;
  }

  /**
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async peerOnline(now) {
    // An agent that comes back may not know our key any more, and then it answers in the clear
    // until its own new key tells us that it does.
    const events = this.#end();
    return this.#pair === null ? events : [...events, this.#sendKey(this.#pair, now)];
  }

  /**
   * @param {number} _now
   * @returns {Promise<SessionEvent[]>}
   */
  async peerOffline(_now) {
    return this.#end();
  }

  /**
   * @param {number} _now
   * @returns {Promise<SessionEvent[]>}
   */
  async disconnected(_now) {
    const events = this.#end();
    this.#pair = null;
    this.#peerPublic = "";
    return events;
  }

  /**
   * The relay refused the message of this id.
   * @param {string} id
   */
  refused(id) {
    if (id !== "" && id === this.#keyId) {
      this.#deadline = this.#keySent + KEY_MS;
    }
  }

  /**
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async tick(now) {
    if (this.#deadline === null || now < this.#deadline || this.#pair === null) {
      return [];
    }
    return [this.#sendKey(this.#pair, now)];
  }

  /** @returns {SessionEvent[]} */
  #end() {
    /** @type {SessionEvent[]} */
    const events = this.#ready ? [{ kind: "ended", failure: "CONNECTION_ENDED" }] : [];
    this.#ready = false;
    this.#peer = null;
    this.#deadline = null;
    this.#keyId = "";
    this.#complained = false;
    return events;
  }

  // Out.

  /**
   * A JSON object as it goes on the wire: sealed, or as it is where version 1 seals nothing.
   * @param {string} type
   * @param {string} _id
   * @param {Uint8Array} payload  JSON
   * @returns {Promise<Payload>}
   * @throws {NotReady} for a type that has to be sealed
   */
  async seal(type, _id, payload) {
    if (!SEALED_TYPES.has(type)) {
      return decodeObject(payload);
    }
    if (!this.#ready) {
      throw new NotReady("The agent has not sent its key over this connection yet.");
    }
    return sealPayload(this.#crypto, this.#keys[0], payload);
  }

  /** @param {import("./crypto.js").KeyPair} pair @param {number} now @returns {Send} */
  #sendKey(pair, now) {
    this.#keyId = newId(this.#crypto);
    this.#keySent = now;
    this.#deadline = null;
    const payload = { pubkey: base64.encode(pair.publicKey) };
    return { kind: "send", type: "key_exchange", id: this.#keyId, payload };
  }

  // In.

  /**
   * A message that the relay forwarded, or a `chat.error` of its own.
   * @param {Envelope} envelope
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async receive(envelope, now) {
    const { type, id, payload, size = 0 } = envelope;
    if (this.#pair === null) {
      return [ignored("a message without a connection", id)];
    }
    if (!forwarded(type) || (SEALED_TYPES.has(type) && !TAKEN.has(type))) {
      return [ignored("a type that the other end does not send", id)];
    }
    if (type === "key_exchange") {
      return this.#keyCame(this.#pair, payload, id, now);
    }
    const sealed = payload.enc === true;
    if (type === "chat.error") {
      return sealed ? [ignored("a sealed error", id)] : this.#error(envelope);
    }
    if (SEALED_TYPES.has(type)) {
      return sealed ? this.#open(type, payload, id) : [{ ...ignored(UNSEALED, id), type }];
    }
    if (sealed) {
      return [...this.#complain(id), ignored("a sealed message of a type in the clear", id)];
    }
    return [{ kind: "opened", type, id, payload, sealed: false, size }];
  }

  /**
   * @param {import("./crypto.js").KeyPair} pair
   * @param {Payload} payload
   * @param {string} id
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async #keyCame(pair, payload, id, now) {
    const { v = 1, pubkey } = payload;
    if (v !== 1) {
      return [ignored("a step of another version's handshake", id)];
    }
    const peerPublic = read(pubkey);
    let key;
    try {
      key = await deriveKey(this.#crypto, pair.privateKey, peerPublic ?? NOTHING);
    } catch (error) {
      if (error instanceof E2EError) {
        return [ignored("a public key that is none", id)];
      }
      throw error;
    }
    /** @type {SessionEvent[]} */
    const events = [];
    const spelt = base64.encode(peerPublic ?? NOTHING);
    if (spelt !== this.#peerPublic) {
      // The agent may have made itself anew, and forgotten ours.
      this.#peerPublic = spelt;
      events.push(this.#sendKey(pair, now));
      this.#keys = [key, ...this.#keys.slice(0, 1)];
      this.#complained = false;
    }
    if (!this.#ready) {
      this.#ready = true;
      this.#peer = PEER;
      events.push({ kind: "established", peer: PEER });
    }
    return events;
  }

  /**
   * @param {string} type
   * @param {Payload} payload
   * @param {string} id
   * @returns {Promise<SessionEvent[]>}
   */
  async #open(type, payload, id) {
    let plaintext;
    let opened;
    try {
      plaintext = await openPayload(this.#crypto, this.#keys, payload);
      opened = decodeObject(plaintext);
    } catch (error) {
      if (error instanceof E2EError || error instanceof InvalidMessage) {
        return [...this.#complain(id), { ...ignored(UNREADABLE, id), type }];
      }
      throw error;
    }
    this.#complained = false;
    const size = plaintext.length;
    return [{ kind: "opened", type, id, payload: opened, sealed: true, size }];
  }

  /** @param {string} id @returns {Send[]} */
  #complain(id) {
    // Once: an answer of hundreds of deltas that do not open would use up the phone's thirty
    // messages a minute.
    if (this.#complained) {
      return [];
    }
    this.#complained = true;
    const message =
      "The message could not be decrypted, and was not taken. " +
      "Send your key again (key_exchange), then the message.";
    /** @type {Payload} */
    const payload = { code: PeerCode.E2E_FAILED, message };
    const length = utf8.encode(id).length;
    if (length > 0 && length <= MAX_REF_BYTES) {
      payload.ref = id;
    }
    return [{ kind: "send", type: "chat.error", id: newId(this.#crypto), payload }];
  }

  /** @param {Envelope} envelope @returns {SessionEvent[]} */
  #error({ id, payload, size = 0 }) {
    const { code, message, ref, retry_after_ms: wait } = payload;
    if (RELAY_CODES.has(code)) {
      // Anybody may write an integer here that no arithmetic survives; Infinity is one of those.
      const known = typeof wait === "number" && Math.trunc(wait) === wait && wait >= 0;
      const retryAfterMs = known ? Math.min(wait, MAX_RETRY_AFTER_MS) : null;
      return [{ kind: "hint", code, message: text(message), ref: text(ref), retryAfterMs }];
    }
    if (code === PeerCode.E2E_REQUIRED && !this.#ready) {
      // We have sent nothing but our key: the agent holds a secret, and wants it.
      return [{ kind: "pairing-refused", failure: "NO_VERSION_1" }];
    }
    return [{ kind: "opened", type: "chat.error", id, payload, sealed: false, size }];
  }
}

/** @param {unknown} value */
function text(value) {
  return typeof value === "string" ? value : "";
}

/**
 * The bytes, or null. Line breaks are skipped: version 1 never said that there are none.
 * @param {unknown} value
 */
function read(value) {
  try {
    return base64.decode(text(value).replace(/\s+/g, ""));
  } catch {
    return null;
  }
}
