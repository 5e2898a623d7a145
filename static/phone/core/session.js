/**
 * Version 2 between phone and agent, the phone's side.
 *
 *     phone                                            agent
 *       ◀──  step 0  key_exchange {v, step}      (only to ask for a handshake)
 *       step 1  key_exchange {v, step, hs, noise}  ──▶
 *       ◀──  step 2  key_exchange {v, step, hs, noise: {name, version, caps, next_psk?}}
 *       step 3  record n=0: {step, name, version, caps}  ──▶
 *       ◀──  step 4  record n=0: {step}          (only where a next_psk was handed over)
 *
 * A machine without clock, socket or storage: it takes what came and says what is to be done. The
 * relay is the adversary. It may drop, repeat, reorder, change and invent whatever it likes, so
 * nothing that comes in the clear changes more than what is asked next: an old session stays
 * until the new one has proved itself, and no secret is ever given up on somebody's word.
 *
 * The machine does not know which ids came before (the channel drops repeated ones), nor what a
 * request is; it knows sessions.
 *
 * Source: PROTOCOL.md, "End-to-end encryption, version 2"; Noise, revision 34.
 */

import * as base64 from "./base64.js";
import { errorPayload, isCounter, keyExchange, peerInfo, ref } from "./clear_messages.js";
import { ErrorCode, MAX_COUNTER, PeerCode, RELAY_CODES } from "./codes.js";
import { webCrypto } from "./crypto.js";
import { decodeObject, InvalidMessage, newId } from "./envelope.js";
import { E2EError, FAILURES, NotReady } from "./failures.js";
import { HandshakeState } from "./noise.js";
import { Records, read } from "./records.js";

/** @typedef {import("./crypto.js").Secret} Secret */
/** @typedef {import("./envelope.js").Envelope} Envelope */
/** @typedef {import("./envelope.js").Payload} Payload */
/** @typedef {import("./failures.js").Failure} Failure */
/** @typedef {import("./session_events.js").PeerInfo} PeerInfo */
/** @typedef {import("./session_events.js").Identity} Identity */
/** @typedef {import("./session_events.js").Secrets} Secrets */
/** @typedef {import("./session_events.js").Send} Send */
/** @typedef {import("./session_events.js").Opened} Opened */
/** @typedef {import("./session_events.js").Ignored} Ignored */
/** @typedef {import("./session_events.js").SessionEvent} SessionEvent */
/** @typedef {import("./clear_messages.js").KeyExchange} KeyExchange */
/** @typedef {import("./clear_messages.js").ErrorPayload} ErrorPayload */

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

// Messages in the clear that are answered, sealed, in each session; what a relay invents beyond
// these is dropped without spending the quota on it.
const CLEAR_ANSWERS = 10;

// Reports of gaps whose ranges are kept, to say again those that get lost themselves.
const REPORTS = 256;

const utf8 = new TextEncoder();

/**
 * The phone's side of a pairing that has a secret; `token` is the whole pairing token.
 * `secrets.current` is tried first; `secrets.next` is the one before it.
 *
 * Times are milliseconds of one monotonic clock. `deadline` is when `tick` wants to be called, or
 * null. No method but `seal` may be called before the promise of the last call has settled.
 */
export class PhoneSession {
  #token;
  #secrets;
  #identity;
  #crypto;
  /** @type {Records | null} */
  #records = null;
  #clearAnswers = 0;
  /** @type {Map<string, [number, number]>} */
  #reports = new Map(); // id → the range that is missing
  /** @type {PeerInfo | null} */
  #peer = null;
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
  #heard = false;
  #oldKey = false; // a key of version 1 came: the agent's, or forged

  /**
   * @param {{token: string, secrets: Secrets, identity: Identity,
   *   crypto?: import("./crypto.js").CryptoProvider}} setting
   */
  constructor({ token, secrets, identity, crypto = webCrypto }) {
    this.#token = token;
    this.#secrets = secrets;
    this.#identity = identity;
    this.#crypto = crypto;
    this.#candidates = candidates(secrets);
    this.#agreed = secrets.current;
  }

  /** Whether messages may be sealed and sent now. */
  get ready() {
    // While a handshake runs, the agent may not be the old session's any more.
    return this.#records !== null && this.#handshake === null;
  }

  /** Who the agent is, once a session has been established. */
  get peer() {
    return this.#peer;
  }

  get deadline() {
    return this.#deadline;
  }

  get secrets() {
    return this.#secrets;
  }

  // The connection and the agent come and go.

  /**
   * `auth.ok` came.
   * @param {number} now
   * @param {{paired: boolean}} status
   * @returns {Promise<SessionEvent[]>}
   */
  async connected(now, { paired }) {
    this.#oldKey = false;
    this.#online = paired;
    return paired ? this.#begin(now) : [];
  }

  /**
   * `status online` came: whoever is there now needs a handshake.
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async peerOnline(now) {
    this.#oldKey = false;
    this.#online = true;
    return this.#begin(now);
  }

  /**
   * `status offline` came.
   * @param {number} _now
   * @returns {Promise<SessionEvent[]>}
   */
  async peerOffline(_now) {
    this.#online = false;
    this.#stop();
    return this.#end("CONNECTION_ENDED");
  }

  /**
   * The connection to the relay ended.
   * @param {number} now
   */
  async disconnected(now) {
    return this.peerOffline(now);
  }

  /**
   * Ask again where no answer came, or start the handshake that had to wait.
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async tick(now) {
    if (this.#deadline === null || now < this.#deadline) {
      return [];
    }
    this.#deadline = null;
    if (this.#records !== null && this.#records.sending.n >= MAX_COUNTER) {
      return [...this.#end("EXHAUSTED"), ...(await this.#restart(now))];
    }
    if (this.#attempts > 0 && this.#oldKey) {
      // The key alone proves nothing; without an answer it is the likeliest reason.
      return this.#giveUp("NO_VERSION_2", now);
    }
    if (this.#attempts >= ATTEMPTS) {
      return this.#giveUp("NO_ANSWER", now);
    }
    return this.#step1(now);
  }

  // Out.

  /**
   * A JSON object as the wire payload of the next record. What comes out must be sent in the
   * order of the calls.
   * @param {string} type
   * @param {string} id
   * @param {Uint8Array} payload  JSON
   * @returns {Promise<Payload>}
   * @throws {NotReady}
   */
  async seal(type, id, payload) {
    if (this.#records === null || !this.ready) {
      throw new NotReady("There is no end-to-end session yet.");
    }
    try {
      return await this.#records.seal(type, id, payload);
    } catch (error) {
      if (error instanceof E2EError && error.failure === "EXHAUSTED") {
        this.#deadline = 0; // tick() ends the session and sees to a new one
        throw new NotReady("The session's keys are used up; a new one is on its way.");
      }
      throw error;
    }
  }

  /**
   * The relay has refused the message of this id.
   * @param {string} id
   */
  refused(id) {
    // A refused report must count as lost, or nobody would say it again.
    if (!this.#reports.has(id)) {
      this.#records?.refused(id);
    }
  }

  /** @param {string} type @param {Payload} payload @returns {Send} */
  #send(type, payload) {
    return { kind: "send", type, id: newId(this.#crypto), payload };
  }

  /**
   * @param {Records} keys
   * @param {string} type
   * @param {Payload} payload
   * @returns {Promise<Send[]>}
   */
  async #sendSealed(keys, type, payload) {
    const id = newId(this.#crypto);
    const plaintext = utf8.encode(JSON.stringify(payload));
    try {
      return [{ kind: "send", type, id, payload: await keys.seal(type, id, plaintext) }];
    } catch (error) {
      if (error instanceof E2EError) {
        return []; // no key is left to say it with; the handshake that follows does
      }
      throw error;
    }
  }

  /** @param {Records} keys @param {string} code @param {string} message @param {Payload} more */
  #sendError(keys, code, message, more) {
    return this.#sendSealed(keys, "chat.error", { code, message, ...more });
  }

  // In.

  /**
   * A message that the relay forwarded, or a `chat.error` of its own.
   * @param {Envelope} envelope
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async receive(envelope, now) {
    const record = read(envelope.payload);
    if (record === null) {
      return this.#clear(envelope, now);
    }
    const keys = this.#records;
    if (keys === null || record.hs !== keys.hs) {
      return this.#foreign(envelope, now);
    }
    const { type, id } = envelope;
    const expected = keys.receiving.n;
    let plaintext;
    try {
      plaintext = await keys.open(type, id, record.n, record.ciphertext);
    } catch (error) {
      return this.#fail(keys, failureOf(error), now);
    }
    const gap = record.n > expected ? await this.#gap(keys, expected, record.n - 1) : [];
    let payload;
    try {
      payload = decodeObject(plaintext);
    } catch (error) {
      const text = messageOf(error);
      const answer = await this.#sendError(keys, ErrorCode.INVALID_MESSAGE, text, ref(id));
      return [...gap, ...answer, ignored("a sealed payload that is no object", id)];
    }
    /** @type {Opened} */
    const message = { kind: "opened", type, id, payload, sealed: true, size: plaintext.length };
    return [...gap, ...(await this.#opened(keys, message, now))];
  }

  /** @param {Records} keys @param {Opened} message @param {number} now */
  async #opened(keys, message, now) {
    const code = message.type === "chat.error" ? message.payload.code : null;
    if (code === PeerCode.E2E_FAILED) {
      return [...this.#end("PEER_ENDED"), ...(await this.#restart(now))];
    }
    const confirmed = this.#confirmed();
    if (code === PeerCode.E2E_GAP) {
      return [...confirmed, ...(await this.#lost(keys, message.payload))];
    }
    // Step 4 says nothing that its opening has not said already.
    return message.type === "key_exchange" ? confirmed : [...confirmed, message];
  }

  /**
   * The agent has said something in this session.
   * @returns {SessionEvent[]}
   */
  #confirmed() {
    this.#heard = true;
    if (this.#secrets.next === null) {
      return [];
    }
    this.#secrets = { current: this.#agreed, next: null, link: this.#secrets.link };
    return [{ kind: "store", secrets: this.#secrets }];
  }

  /**
   * @param {Records} keys
   * @param {number} first
   * @param {number} last
   * @returns {Promise<SessionEvent[]>}
   */
  async #gap(keys, first, last) {
    return [...(await this.#report(keys, first, last)), { kind: "gap", first, last }];
  }

  /** @param {Records} keys @param {number} first @param {number} last */
  async #report(keys, first, last) {
    const text = "Messages were lost on the way.";
    const told = await this.#sendError(keys, PeerCode.E2E_GAP, text, { from: first, to: last });
    for (const { id } of told) {
      this.#reports.set(id, [first, last]);
    }
    if (this.#reports.size > REPORTS) {
      this.#reports.delete(/** @type {string} */ (this.#reports.keys().next().value));
    }
    return told;
  }

  /**
   * @param {Records} keys
   * @param {Payload} payload
   * @returns {Promise<SessionEvent[]>}
   */
  async #lost(keys, { from, to }) {
    if (!isCounter(from) || !isCounter(to)) {
      return [ignored("a report of lost messages that cannot be read", "")];
    }
    /** @type {SessionEvent[]} */
    const events = [];
    const ids = [];
    // Where the report of a gap is what got lost, the other end still counts on what the report
    // was about.
    const again = [];
    for (const id of keys.lost(from, to)) {
      const range = this.#reports.get(id);
      if (range === undefined) {
        ids.push(id);
      } else {
        this.#reports.delete(id);
        again.push(range);
      }
    }
    for (const [first, last] of again) {
      events.push(...(await this.#report(keys, first, last)));
    }
    return ids.length > 0 ? [...events, { kind: "lost", ids }] : events;
  }

  // The beginning and the end of a session.

  /** @param {number} now */
  #begin(now) {
    this.#forgetAttempts();
    return this.#step1(now);
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

  /**
   * The session is gone although both ends are there: see to a new one.
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async #restart(now) {
    if (!this.#online) {
      return [];
    }
    if (now >= this.#started + RESTART_MS) {
      return this.#begin(now);
    }
    this.#forgetAttempts();
    this.#deadline = this.#started + RESTART_MS;
    return [];
  }

  #stop() {
    this.#handshake = null;
    this.#deadline = null;
  }

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
    const step = this.#send("key_exchange", { v: PROTOCOL, step: 1, hs: this.#hs, noise });
    this.#step1Id = step.id;
    return [step];
  }

  /**
   * @param {KeyExchange} message
   * @param {string} id
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async #step({ v, step, hs, noise, pubkey }, id, now) {
    if (v !== PROTOCOL) {
      this.#oldKey = this.#oldKey || pubkey !== "";
      return [ignored("a key exchange of another version", id)];
    }
    const handshake = this.#handshake;
    if (step === 0) {
      return handshake === null ? this.#restart(now) : [];
    }
    if (step !== 2 || handshake === null || handshake.finished || hs !== this.#hs) {
      return [ignored("a step of no handshake that runs", id)];
    }
    return this.#step2(handshake, noise, id);
  }

  /**
   * @param {HandshakeState} handshake
   * @param {Uint8Array} noise
   * @param {string} id
   * @returns {Promise<SessionEvent[]>}
   */
  async #step2(handshake, noise, id) {
    let plaintext;
    try {
      plaintext = await handshake.readMessage(noise);
    } catch (error) {
      failureOf(error);
      // Not the agent's: the handshake goes on waiting for the one that is.
      return [ignored("a step 2 that was not made with this pairing's secret", id)];
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
      messageOf(error);
      // It holds the secret, and can do no better: a time-out like any other.
      return [ignored("a step 2 that says nothing sensible", id)];
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
    const keys = new Records(this.#hs, ...handshake.split());
    this.#stop();
    this.#heard = this.#oldKey = false;
    const { name, version, caps } = this.#identity;
    const step3 = { step: 3, name, version, caps };
    events.push(...(await this.#sendSealed(keys, "key_exchange", step3)));
    return [...events, ...this.#establish(keys, peer)];
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

  /** @param {Records} keys @param {PeerInfo} peer @returns {SessionEvent[]} */
  #establish(keys, peer) {
    const ended = this.#end("SUPERSEDED");
    this.#records = keys;
    this.#clearAnswers = 0;
    this.#reports.clear();
    this.#peer = peer;
    return [...ended, { kind: "established", peer }];
  }

  /**
   * A record cannot be trusted: say so, sealed, and end the session.
   * @param {Records} keys
   * @param {Failure} failure
   * @param {number} now
   */
  async #fail(keys, failure, now) {
    const text = FAILURES[failure];
    const told = await this.#sendError(keys, PeerCode.E2E_FAILED, text, { failure });
    return [...told, ...this.#end(failure), ...(await this.#restart(now))];
  }

  /** @param {Failure} failure @returns {SessionEvent[]} */
  #end(failure) {
    if (this.#records === null) {
      return [];
    }
    this.#records = null;
    return [{ kind: "ended", failure }];
  }

  /**
   * A record of a session that is not the established one.
   * @param {Envelope} envelope
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async #foreign({ id }, now) {
    const dropped = ignored("a record of another session", id);
    const late = now >= this.#started + RESTART_MS;
    if (this.#records === null || this.#handshake !== null || this.#heard || !late) {
      return [dropped];
    }
    // The agent goes on in its old session, and has said nothing in ours: step 3 seems to be
    // lost, and what it says would be lost until we happen to say something.
    return [...(await this.#begin(now)), dropped];
  }

  // In the clear: nothing here is known to come from the agent.

  /**
   * @param {Envelope} envelope
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async #clear({ type, id, payload }, now) {
    if (type === "key_exchange") {
      const message = keyExchange(payload);
      return message
        ? this.#step(message, id, now)
        : [ignored(`a ${type} that cannot be read`, id)];
    }
    if (type === "chat.error") {
      const error = errorPayload(payload);
      return error
        ? this.#clearError(error, id, now)
        : [ignored(`a ${type} that cannot be read`, id)];
    }
    /** @type {Send[]} */
    let answer = [];
    if (this.#records !== null && this.#clearAnswers < CLEAR_ANSWERS) {
      this.#clearAnswers += 1;
      answer = await this.#sendError(
        this.#records,
        PeerCode.E2E_REQUIRED,
        "A message came unsealed and was not taken; something on the way copied or changed it.",
        ref(id),
      );
    }
    return [...answer, ignored("a message that was not sealed", id)];
  }

  /**
   * @param {ErrorPayload} error
   * @param {string} id
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async #clearError(error, id, now) {
    const events = await this.#told(error, now);
    if (RELAY_CODES.has(error.code)) {
      return [...events, { kind: "hint", ...error }];
    }
    return events.length > 0 ? events : [ignored("an error that was not sealed", id)];
  }

  /**
   * @param {ErrorPayload} error
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async #told({ code, ref, retryAfterMs }, now) {
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
 * @param {import("./crypto.js").CryptoProvider} crypto
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

/** @param {string} why @param {string} id @returns {Ignored} */
function ignored(why, id) {
  return { kind: "ignored", why, id };
}

/** The failure of an E2EError; throws all else on. @param {unknown} error */
function failureOf(error) {
  if (error instanceof E2EError) {
    return error.failure;
  }
  throw error;
}

/** The text of an InvalidMessage; throws all else on. @param {unknown} error */
function messageOf(error) {
  if (error instanceof InvalidMessage) {
    return error.message;
  }
  throw error;
}
