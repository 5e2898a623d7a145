/**
 * Noise_NNpsk0_25519_AESGCM_SHA256, laid out like its specification.
 *
 * Source: The Noise Protocol Framework, revision 34; the section numbers below are its own.
 * The pattern NN with a pre-shared key in front (sections 7.4 and 9) has two messages:
 *
 *     -> psk, e
 *     <- e, ee
 *
 * What we do on top of the specification: the counter stops where wire integers end, and a
 * message that is refused changes nothing, so that a forgery does not spoil the handshake for
 * the honest message behind it.
 *
 * The pre-shared key and the Diffie-Hellman result are handles of the provider throughout. The
 * chaining key and the ciphers' keys are bytes for a moment, and overwritten behind it.
 */

import { MAX_COUNTER } from "./codes.js";
import { E2EError } from "./failures.js";

/** @typedef {import("./crypto.js").CryptoProvider} CryptoProvider */

// 32 bytes, so that it is its own hash (section 5.2).
const PROTOCOL_NAME = "Noise_NNpsk0_25519_AESGCM_SHA256";

/** Bytes of a key, a hash and a public key alike. */
const KEY_BYTES = 32;
const TAG_BYTES = 16;

// Bytes of a handshake message (section 3).
const MAX_MESSAGE_BYTES = 65_535;

const EMPTY = new Uint8Array(0);

/** A key and its counter (section 5.1). Without a key, data passes as it is. */
export class CipherState {
  /** @type {unknown} */
  #key = null;
  #n = 0;
  #crypto;

  /** @param {CryptoProvider} crypto */
  constructor(crypto) {
    this.#crypto = crypto;
  }

  /** The counter of the next message. */
  get n() {
    return this.#n;
  }

  hasKey() {
    return this.#key !== null;
  }

  /**
   * Take a key, count from 0, and overwrite the bytes.
   * @param {Uint8Array} bytes
   */
  async initializeKey(bytes) {
    if (bytes.length !== KEY_BYTES) {
      throw new RangeError(`a key has ${KEY_BYTES} bytes`);
    }
    this.#key = await this.#crypto.importKey(bytes);
    bytes.fill(0);
    this.#n = 0;
  }

  /**
   * Go on from counter `n`. Only for receiving: a sender that goes back breaks its key.
   * @param {number} n
   */
  setNonce(n) {
    if (!(n >= 0)) {
      throw new RangeError("a counter is not negative");
    }
    this.#n = n;
  }

  /**
   * The ciphertext, 16 bytes of tag at its end. The counter is taken at the call, so that calls
   * may overlap. Throws E2EError (EXHAUSTED) at the call.
   * @param {Uint8Array} ad
   * @param {Uint8Array} plaintext
   * @returns {Promise<Uint8Array>}
   */
  encryptWithAd(ad, plaintext) {
    const n = this.#n;
    if (n >= MAX_COUNTER) {
      throw new E2EError("EXHAUSTED");
    }
    if (this.#key === null) {
      return Promise.resolve(plaintext);
    }
    this.#n = n + 1;
    return this.#crypto.seal(this.#key, nonce(n), ad, plaintext);
  }

  /**
   * The plaintext. Rejects with E2EError (TAMPERED or EXHAUSTED), and then has not counted.
   * @param {Uint8Array} ad
   * @param {Uint8Array} ciphertext
   * @returns {Promise<Uint8Array>}
   */
  async decryptWithAd(ad, ciphertext) {
    const n = this.#n;
    if (n >= MAX_COUNTER) {
      throw new E2EError("EXHAUSTED");
    }
    if (this.#key === null) {
      return ciphertext;
    }
    let plaintext;
    try {
      plaintext = await this.#crypto.open(this.#key, nonce(n), ad, ciphertext);
    } catch {
      throw new E2EError("TAMPERED");
    }
    this.#n = n + 1;
    return plaintext;
  }

  /** The same key and counter. Only one of the two may go on encrypting. */
  copy() {
    const other = new CipherState(this.#crypto);
    other.#key = this.#key;
    other.#n = this.#n;
    return other;
  }
}

/** The chaining key, the hash over everything so far, and a cipher (section 5.2). */
class SymmetricState {
  #crypto;
  #ck;
  #h;
  #cipher;

  /** @param {CryptoProvider} crypto */
  constructor(crypto) {
    this.#crypto = crypto;
    this.#h = new TextEncoder().encode(PROTOCOL_NAME);
    this.#ck = this.#h.slice();
    this.#cipher = new CipherState(crypto);
  }

  /** 32 bytes that both ends share, and that bind to this one handshake (section 11.2). */
  get handshakeHash() {
    return this.#h;
  }

  /** @param {import("./crypto.js").Secret} material */
  async mixKey(material) {
    const [ck, key] = await this.#hkdf(material, 2);
    this.#chain(ck);
    await this.#cipher.initializeKey(key);
  }

  /** @param {Uint8Array} data */
  async mixHash(data) {
    this.#h = Uint8Array.from(await this.#crypto.sha256(joined(this.#h, data)));
  }

  /** @param {import("./crypto.js").Secret} material */
  async mixKeyAndHash(material) {
    const [ck, hashed, key] = await this.#hkdf(material, 3);
    this.#chain(ck);
    await this.mixHash(hashed);
    await this.#cipher.initializeKey(key);
  }

  /**
   * The token `e`. With a pre-shared key it is mixed into the key too (section 9.2).
   * @param {Uint8Array} publicKey
   */
  async mixPublic(publicKey) {
    await this.mixHash(publicKey);
    await this.mixKey(await this.#crypto.importSecret(publicKey));
  }

  /** @param {Uint8Array} plaintext */
  async encryptAndHash(plaintext) {
    const ciphertext = await this.#cipher.encryptWithAd(this.#h, plaintext);
    await this.mixHash(ciphertext);
    return ciphertext;
  }

  /** Rejects with E2EError (TAMPERED). @param {Uint8Array} ciphertext */
  async decryptAndHash(ciphertext) {
    const plaintext = await this.#cipher.decryptWithAd(this.#h, ciphertext);
    await this.mixHash(ciphertext);
    return plaintext;
  }

  /**
   * The ciphers of the session: initiator to responder, responder to initiator.
   * @returns {Promise<[CipherState, CipherState]>}
   */
  async split() {
    const keys = await this.#hkdf(await this.#crypto.importSecret(EMPTY), 2);
    const first = new CipherState(this.#crypto);
    const second = new CipherState(this.#crypto);
    await first.initializeKey(keys[0]);
    await second.initializeKey(keys[1]);
    return [first, second];
  }

  copy() {
    const other = new SymmetricState(this.#crypto);
    other.#ck = this.#ck.slice();
    other.#h = this.#h;
    other.#cipher = this.#cipher.copy();
    return other;
  }

  /** Whoever takes hold of this object later must not learn the session's keys. */
  forget() {
    this.#ck.fill(0);
    this.#cipher = new CipherState(this.#crypto);
  }

  /** @param {Uint8Array<ArrayBuffer>} ck */
  #chain(ck) {
    this.#ck.fill(0);
    this.#ck = ck;
  }

  /**
   * Section 4.3's HKDF is RFC 5869's with the chaining key as salt and no info.
   * @param {import("./crypto.js").Secret} material
   * @param {number} outputs
   */
  async #hkdf(material, outputs) {
    const length = outputs * KEY_BYTES;
    const stream = await this.#crypto.hkdf(material, this.#ck, EMPTY, length);
    const keys = [];
    for (let start = 0; start < length; start += KEY_BYTES) {
      keys.push(Uint8Array.from(stream.subarray(start, start + KEY_BYTES)));
    }
    stream.fill(0);
    return keys;
  }
}

/**
 * One side of the handshake (section 5.3): each end writes once and reads once.
 *
 * `psk` is the secret that both ends hold, `prologue` what both must know alike besides. A message
 * that is refused leaves the state as it was. To write or read out of turn is a mistake of the
 * caller and throws Error.
 */
export class HandshakeState {
  #crypto;
  #initiator;
  #prologue;
  #psk;
  /** @type {import("./crypto.js").KeyPair | null} */
  #e = null;
  /** @type {Uint8Array | null} */
  #re = null;
  /** @type {SymmetricState | null} */
  #symmetric = null;
  #done = 0; // messages, both directions together
  /** @type {[CipherState, CipherState] | null} */
  #ciphers = null;

  /**
   * @param {{initiator: boolean, prologue: Uint8Array, psk: import("./crypto.js").Secret,
   *   crypto: CryptoProvider}} setting
   */
  constructor({ initiator, prologue, psk, crypto }) {
    this.#crypto = crypto;
    this.#initiator = initiator;
    this.#prologue = prologue;
    this.#psk = psk;
  }

  get finished() {
    return this.#ciphers !== null;
  }

  /** See SymmetricState; the final value once `finished`. */
  get handshakeHash() {
    return this.#symmetric?.handshakeHash ?? null;
  }

  /**
   * The ciphers after the last message: initiator to responder, responder to initiator. Each
   * call gives the same two: a second pair would count from 0 again.
   */
  split() {
    if (this.#ciphers === null) {
      throw new Error("the handshake is not finished");
    }
    return this.#ciphers;
  }

  /**
   * The next handshake message. Rejects with E2EError (TAMPERED) where the peer's public key,
   * though it came with the right pre-shared key, is one that makes no secret (section 12.1).
   * @param {Uint8Array} [payload]  up to 65,487 bytes
   * @returns {Promise<Uint8Array>}
   */
  async writeMessage(payload = EMPTY) {
    this.#checkTurn(true);
    if (payload.length > MAX_MESSAGE_BYTES - KEY_BYTES - TAG_BYTES) {
      throw new RangeError("the payload is too long for a handshake message");
    }
    const symmetric = await this.#begin();
    const e = this.#e ?? (await this.#crypto.generateKeyPair());
    await symmetric.mixPublic(e.publicKey);
    if (this.#re !== null) {
      await this.#mixShared(symmetric, e.privateKey, this.#re);
    }
    const message = joined(e.publicKey, await symmetric.encryptAndHash(payload));
    this.#e = e;
    await this.#commit(symmetric);
    return message;
  }

  /**
   * The payload of the peer's message. Rejects with E2EError (TAMPERED) where the message is not
   * what a holder of the same pre-shared key and prologue wrote; the honest one can still be
   * read then.
   * @param {Uint8Array} message
   * @returns {Promise<Uint8Array>}
   */
  async readMessage(message) {
    this.#checkTurn(false);
    if (message.length < KEY_BYTES + TAG_BYTES || message.length > MAX_MESSAGE_BYTES) {
      throw new E2EError("TAMPERED");
    }
    const symmetric = await this.#begin();
    const re = message.slice(0, KEY_BYTES);
    await symmetric.mixPublic(re);
    if (this.#e !== null) {
      await this.#mixShared(symmetric, this.#e.privateKey, re);
    }
    const payload = await symmetric.decryptAndHash(message.slice(KEY_BYTES));
    this.#re = re;
    await this.#commit(symmetric);
    return payload;
  }

  /** @param {boolean} writing */
  #checkTurn(writing) {
    if (this.#done === 2) {
      throw new Error("the handshake is finished");
    }
    const ours = (this.#done === 0) === this.#initiator;
    if (writing !== ours) {
      throw new Error("it is the other end's turn to write");
    }
  }

  /** What the next message is worked out on: a copy, which counts once all went well. */
  async #begin() {
    if (this.#symmetric !== null) {
      return this.#symmetric.copy();
    }
    const symmetric = new SymmetricState(this.#crypto);
    await symmetric.mixHash(this.#prologue);
    await symmetric.mixKeyAndHash(this.#psk);
    return symmetric;
  }

  /** @param {SymmetricState} symmetric @param {unknown} privateKey @param {Uint8Array} publicKey */
  async #mixShared(symmetric, privateKey, publicKey) {
    let shared;
    try {
      shared = await this.#crypto.agree(privateKey, publicKey);
    } catch {
      throw new E2EError("TAMPERED"); // the result is all zeros
    }
    await symmetric.mixKey(shared);
  }

  /** @param {SymmetricState} symmetric */
  async #commit(symmetric) {
    this.#symmetric?.forget();
    this.#symmetric = symmetric;
    this.#done += 1;
    if (this.#done === 2) {
      this.#ciphers = await symmetric.split();
      symmetric.forget();
      this.#e = this.#re = this.#psk = null;
    }
  }
}

/** Section 12.4's nonce: four zero bytes and the counter in eight, big-endian. @param {number} n */
function nonce(n) {
  const bytes = new Uint8Array(12);
  const view = new DataView(bytes.buffer);
  view.setUint32(4, Math.floor(n / 2 ** 32));
  view.setUint32(8, n % 2 ** 32);
  return bytes;
}

/** @param {Uint8Array[]} parts */
function joined(...parts) {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let position = 0;
  for (const part of parts) {
    whole.set(part, position);
    position += part.length;
  }
  return whole;
}
