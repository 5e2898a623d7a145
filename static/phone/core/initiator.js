/**
 * The phone's side of the handshake: it asks, finds out which of its secrets the agent knows, and
 * takes the one that is handed over. The steps stand at the top of session.js.
 *
 * Only a step 2 that was made with one of our secrets comes to anything. All else that is told
 * here comes in the clear, from whoever likes to: it may cost a try, and never a secret.
 */

import * as base64 from "./base64.js";
import { peerInfo } from "./clear_messages.js";
import { ErrorCode, PeerCode } from "./codes.js";
import { decodeObject, InvalidMessage, newId } from "./envelope.js";
import { E2EError } from "./failures.js";
import { ignored } from "./ignored.js";
import { HandshakeState } from "./noise.js";
import { Records } from "./records.js";

/** @typedef {import("./crypto.js").CryptoProvider} CryptoProvider */
/** @typedef {import("./crypto.js").Secret} Secret */
/** @typedef {import("./failures.js").Failure} Failure */
/** @typedef {import("./session_events.js").PeerInfo} PeerInfo */
/** @typedef {import("./session_events.js").Secrets} Secrets */
/** @typedef {import("./session_events.js").SessionEvent} SessionEvent */
/** @typedef {import("./clear_messages.js").KeyExchange} KeyExchange */
/** @typedef {import("./clear_messages.js").ErrorPayload} ErrorPayload */

/** What a handshake that is finished has made. @typedef {{records: Records, peer: PeerInfo}} Made */

const PROTOCOL = 2;
const SECRET_BYTES = 32;
const HS_BYTES = 16;

/**
 * Milliseconds between two handshakes that one side starts, whatever it is told in the clear: a
 * relay that lies must not be able to keep both ends computing.
 */
export const RESTART_MS = 5_000;

/** Milliseconds that one side waits for the other's answer. */
export const ANSWER_MS = 10_000;

/** Milliseconds until it tries again once it has given up hope of a quick one. */
export const PATIENCE_MS = 60_000;

/** How often a phone asks before it says that no answer comes. */
export const ATTEMPTS = 3;

const utf8 = new TextEncoder();

/**
 * See the module; the rules of calling it are PhoneSession's. It knows nothing of the session that
 * is established, which stays until the new one has proved itself.
 */
export class Initiator {
  #token;
  #secrets;
  #crypto;
  /** @type {number | null} */
  #deadline = null;

  #candidates;
  /** @type {HandshakeState | null} */
  #handshake = null;
  /** @type {Secret} */
  #agreed;
  #hs = "";
  #step1Id = "";
  #attempts = 0;
  #started = Number.NEGATIVE_INFINITY;
  #online = false;
  #oldKey = false; // a key of version 1 came: the agent's, or forged

  /** @param {{token: string, secrets: Secrets, crypto: CryptoProvider}} setting */
  constructor({ token, secrets, crypto }) {
    this.#token = token;
    this.#secrets = secrets;
    this.#crypto = crypto;
    this.#candidates = candidates(secrets);
    this.#agreed = secrets.current;
  }

  /** Whether a handshake runs. */
  get running() {
    return this.#handshake !== null;
  }

  get secrets() {
    return this.#secrets;
  }

  get deadline() {
    return this.#deadline;
  }

  // The agent comes and goes, and time passes.

  /**
   * The agent may be there now, and may be another one.
   * @param {number} now
   * @param {{paired: boolean}} status
   * @returns {Promise<SessionEvent[]>}
   */
  async connected(now, { paired }) {
    this.#oldKey = false;
    this.#online = paired;
    return paired ? this.begin(now) : [];
  }

  /** Nobody is there to shake hands with. */
  peerOffline() {
    this.#online = false;
    this.#stop();
  }

  /** The deadline is now: something else than the handshake wants `tick`. */
  wake() {
    this.#deadline = 0;
  }

  /**
   * Whether the deadline has passed; it is taken with that, once.
   * @param {number} now
   */
  due(now) {
    if (this.#deadline === null || now < this.#deadline) {
      return false;
    }
    this.#deadline = null;
    return true;
  }

  /**
   * Ask again where no answer came, or start the handshake that had to wait.
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async again(now) {
    if (this.#attempts > 0 && this.#oldKey) {
      // The key alone proves nothing; without an answer it is the likeliest reason.
      return this.#giveUp("NO_VERSION_2", now);
    }
    if (this.#attempts >= ATTEMPTS) {
      return this.#giveUp("NO_ANSWER", now);
    }
    return this.#step1(now);
  }

  // The beginning and the end of a handshake.

  /** @param {number} now */
  begin(now) {
    this.#forgetAttempts();
    return this.#step1(now);
  }

  /**
   * Whether the last handshake began long enough ago for another.
   * @param {number} now
   */
  mayBegin(now) {
    return now >= this.#started + RESTART_MS;
  }

  /**
   * The session is gone although both ends are there: see to a new one.
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async restart(now) {
    if (!this.#online) {
      return [];
    }
    if (this.mayBegin(now)) {
      return this.begin(now);
    }
    this.#forgetAttempts();
    this.#deadline = this.#started + RESTART_MS;
    return [];
  }

  #forgetAttempts() {
    this.#attempts = 0;
    this.#candidates = candidates(this.#secrets);
  }

  /**
   * Say so, and try again later: step 1 or its answer may have been damaged or forged.
   * @param {Failure} failure
   * @param {number} now
   * @returns {SessionEvent[]}
   */
  #giveUp(failure, now) {
    this.#stop();
    this.#forgetAttempts();
    this.#deadline = now + PATIENCE_MS;
    return [{ kind: "pairing-refused", failure }];
  }

  #stop() {
    this.#handshake = null;
    this.#deadline = null;
  }

  // The steps.

  /** @param {number} now @returns {Promise<SessionEvent[]>} */
  async #step1(now) {
    const hs = this.#crypto.randomBytes(HS_BYTES);
    this.#hs = base64.encodeUrl(hs);
    this.#attempts += 1;
    this.#started = now;
    this.#deadline = now + ANSWER_MS;
    this.#handshake = new HandshakeState({
      initiator: true,
      prologue: await prologue(this.#crypto, this.#token, hs),
      psk: this.#candidates[0],
      crypto: this.#crypto,
    });
    const noise = base64.encode(await this.#handshake.writeMessage());
    const payload = { v: PROTOCOL, step: 1, hs: this.#hs, noise };
    this.#step1Id = newId(this.#crypto);
    return [{ kind: "send", type: "key_exchange", id: this.#step1Id, payload }];
  }

  /**
   * A key exchange in the clear. What it has `made` is to be established behind the events, with
   * step 3 as its first record.
   * @param {KeyExchange} message
   * @param {string} id
   * @param {number} now
   * @returns {Promise<{events: SessionEvent[], made?: Made}>}
   */
  async step({ v, step, hs, noise, pubkey }, id, now) {
    if (v !== PROTOCOL) {
      this.#oldKey = this.#oldKey || pubkey !== "";
      return { events: [ignored("a key exchange of another version", id)] };
    }
    const handshake = this.#handshake;
    if (step === 0) {
      return { events: handshake === null ? await this.restart(now) : [] };
    }
    if (step !== 2 || handshake === null || handshake.finished || hs !== this.#hs) {
      return { events: [ignored("a step of no handshake that runs", id)] };
    }
    return this.#step2(handshake, noise, id);
  }

  /**
   * @param {HandshakeState} handshake
   * @param {Uint8Array} noise
   * @param {string} id
   * @returns {Promise<{events: SessionEvent[], made?: Made}>}
   */
  async #step2(handshake, noise, id) {
    let plaintext;
    try {
      plaintext = await handshake.readMessage(noise);
    } catch (error) {
      if (!(error instanceof E2EError)) {
        throw error;
      }
      // Not the agent's: the handshake goes on waiting for the one that is.
      return { events: [ignored("a step 2 that was not made with this pairing's secret", id)] };
    }
    let peer;
    /** @type {Secret | null} */
    let secret = null;
    try {
      const payload = decodeObject(plaintext);
      peer = peerInfo(payload);
      if (payload.next_psk !== undefined && payload.next_psk !== null) {
        secret = await this.#imported(payload.next_psk);
      }
    } catch (error) {
      if (!(error instanceof InvalidMessage)) {
        throw error;
      }
      // It holds the secret, and can do no better: a time-out like any other.
      return { events: [ignored("a step 2 that says nothing sensible", id)] };
    } finally {
      plaintext.fill(0);
    }
    /** @type {SessionEvent[]} */
    const events = [];
    this.#agreed = this.#candidates[0];
    if (secret !== null) {
      // Written down before the agent may forget the old one, which stays beside it until a
      // record shows that the agent has come along.
      this.#secrets = { current: secret, next: this.#agreed, link: false };
      this.#agreed = secret;
      events.push({ kind: "store", secrets: this.#secrets });
    }
    const records = new Records(this.#hs, ...handshake.split());
    this.#stop();
    this.#oldKey = false;
    return { events, made: { records, peer } };
  }

  /** The secret that is handed over. @param {unknown} text @returns {Promise<Secret>} */
  async #imported(text) {
    let bytes;
    try {
      bytes = base64.decodeUrl(String(text), SECRET_BYTES);
    } catch {
      throw new InvalidMessage("next_psk is no secret");
    }
    const secret = await this.#crypto.importSecret(bytes);
    bytes.fill(0);
    return secret;
  }

  /**
   * The agent has said something in the session that was made last.
   * @returns {SessionEvent[]}
   */
  confirmed() {
    if (this.#secrets.next === null) {
      return [];
    }
    this.#secrets = { current: this.#agreed, next: null, link: this.#secrets.link };
    return [{ kind: "store", secrets: this.#secrets }];
  }

  /**
   * An error in the clear, which may be about step 1.
   * @param {ErrorPayload} error
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async told({ code, ref, retryAfterMs }, now) {
    if (this.#handshake === null || ref !== this.#step1Id) {
      return [];
    }
    if (code === PeerCode.E2E_REFUSED) {
      this.#candidates = this.#candidates.slice(1);
      return this.#candidates.length > 0 ? this.#step1(now) : this.#giveUp("SECRET_REFUSED", now);
    }
    if (code === ErrorCode.PEER_OFFLINE) {
      // Either `status offline` follows, or it is worth another try.
      this.#attempts -= 1;
    } else if (retryAfterMs !== null) {
      this.#attempts -= 1;
      const wait = Math.min(retryAfterMs, PATIENCE_MS);
      this.#deadline = Math.max(now + wait, this.#started + RESTART_MS);
    }
    return [];
  }
}

/**
 * What both ends must agree on before they trust a handshake: 58 bytes.
 * @param {CryptoProvider} crypto
 * @param {string} token
 * @param {Uint8Array} hs
 */
export async function prologue(crypto, token, hs) {
  return Uint8Array.from([
    ...utf8.encode("CoralMux/2"),
    ...(await crypto.sha256(utf8.encode(token))),
    ...hs,
  ]);
}

/** The secrets that a handshake may be made with, the likelier first. @param {Secrets} secrets */
function candidates({ current, next }) {
  return next === null ? [current] : [current, next];
}
