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
 * It has two parts that do not know each other: `Initiator` asks for handshakes and makes sessions
 * of them, `Established` is the session that messages are sealed in. Here stands what passes
 * between them: which of the two a message is for, and when one session follows another.
 *
 * The machine does not know which ids came before (the channel drops repeated ones), nor what a
 * request is; it knows sessions.
 *
 * Source: PROTOCOL.md, "End-to-end encryption, version 2"; Noise, revision 34.
 */

import { errorPayload, keyExchange } from "./clear_messages.js";
import { PeerCode, RELAY_CODES } from "./codes.js";
import { webCrypto } from "./crypto.js";
import { Established } from "./established.js";
import { E2EError, FAILURES, NotReady } from "./failures.js";
import { ignored } from "./ignored.js";
import { Initiator } from "./initiator.js";
import { read } from "./records.js";

/** @typedef {import("./envelope.js").Envelope} Envelope */
/** @typedef {import("./envelope.js").Payload} Payload */
/** @typedef {import("./failures.js").Failure} Failure */
/** @typedef {import("./session_events.js").PeerInfo} PeerInfo */
/** @typedef {import("./session_events.js").Identity} Identity */
/** @typedef {import("./session_events.js").Secrets} Secrets */
/** @typedef {import("./session_events.js").Opened} Opened */
/** @typedef {import("./session_events.js").SessionEvent} SessionEvent */
/** @typedef {import("./clear_messages.js").KeyExchange} KeyExchange */
/** @typedef {import("./clear_messages.js").ErrorPayload} ErrorPayload */

/**
 * The phone's side of a pairing that has a secret; `token` is the whole pairing token.
 * `secrets.current` is tried first; `secrets.next` is the one before it.
 *
 * Times are milliseconds of one monotonic clock. `deadline` is when `tick` wants to be called, or
 * null. No method but `seal` may be called before the promise of the last call has settled.
 */
export class PhoneSession {
  #identity;
  #crypto;
  #initiator;
  /** @type {Established | null} */
  #established = null;
  /** @type {PeerInfo | null} */
  #peer = null;

  /**
   * @param {{token: string, secrets: Secrets, identity: Identity,
   *   crypto?: import("./crypto.js").CryptoProvider}} setting
   */
  constructor({ token, secrets, identity, crypto = webCrypto }) {
    this.#identity = identity;
    this.#crypto = crypto;
    this.#initiator = new Initiator({ token, secrets, crypto });
  }

  /** Whether messages may be sealed and sent now. */
  get ready() {
    // While a handshake runs, the agent may not be the old session's any more.
    return this.#established !== null && !this.#initiator.running;
  }

  /** Who the agent is, once a session has been established. */
  get peer() {
    return this.#peer;
  }

  get deadline() {
    return this.#initiator.deadline;
  }

  get secrets() {
    return this.#initiator.secrets;
  }

  // The connection and the agent come and go.

  /**
   * `auth.ok` came.
   * @param {number} now
   * @param {{paired: boolean}} status
   * @returns {Promise<SessionEvent[]>}
   */
  async connected(now, { paired }) {
    return this.#initiator.connected(now, { paired });
  }

  /**
   * `status online` came: whoever is there now needs a handshake.
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async peerOnline(now) {
    return this.#initiator.connected(now, { paired: true });
  }

  /**
   * `status offline` came.
   * @param {number} _now
   * @returns {Promise<SessionEvent[]>}
   */
  async peerOffline(_now) {
    this.#initiator.peerOffline();
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
    if (!this.#initiator.due(now)) {
      return [];
    }
    if (this.#established?.exhausted) {
      return [...this.#end("EXHAUSTED"), ...(await this.#initiator.restart(now))];
    }
    return this.#initiator.again(now);
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
    if (this.#established === null || !this.ready) {
      throw new NotReady("There is no end-to-end session yet.");
    }
    try {
      return await this.#established.seal(type, id, payload);
    } catch (error) {
      if (error instanceof E2EError && error.failure === "EXHAUSTED") {
        this.#initiator.wake(); // tick() ends the session and sees to a new one
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
    this.#established?.refused(id);
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
    const established = this.#established;
    if (established === null || record.hs !== established.hs) {
      return this.#foreign(envelope, now);
    }
    let opened;
    try {
      opened = await established.open(envelope, record);
    } catch (error) {
      return this.#fail(established, failureOf(error), now);
    }
    const { events, message } = opened;
    return message ? [...events, ...(await this.#opened(established, message, now))] : events;
  }

  /** @param {Established} established @param {Opened} message @param {number} now */
  async #opened(established, message, now) {
    const code = message.type === "chat.error" ? message.payload.code : null;
    if (code === PeerCode.E2E_FAILED) {
      return [...this.#end("PEER_ENDED"), ...(await this.#initiator.restart(now))];
    }
    established.heard = true;
    const confirmed = this.#initiator.confirmed();
    if (code === PeerCode.E2E_GAP) {
      return [...confirmed, ...(await established.lost(message.payload))];
    }
    // Step 4 says nothing that its opening has not said already.
    return message.type === "key_exchange" ? confirmed : [...confirmed, message];
  }

  /**
   * A record of a session that is not the established one.
   * @param {Envelope} envelope
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async #foreign({ id }, now) {
    const dropped = ignored("a record of another session", id);
    const initiator = this.#initiator;
    const late = initiator.mayBegin(now);
    if (this.#established === null || initiator.running || this.#established.heard || !late) {
      return [dropped];
    }
    // The agent goes on in its old session, and has said nothing in ours: step 3 seems to be
    // lost, and what it says would be lost until we happen to say something.
    return [...(await initiator.begin(now)), dropped];
  }

  // The beginning and the end of a session.

  /**
   * @param {import("./initiator.js").Made} made
   * @returns {Promise<SessionEvent[]>}
   */
  async #establish({ records, peer }) {
    const established = new Established(records, this.#crypto);
    const { name, version, caps } = this.#identity;
    const step3 = { step: 3, name, version, caps };
    const told = await established.sendSealed("key_exchange", step3);
    const ended = this.#end("SUPERSEDED");
    this.#established = established;
    this.#peer = peer;
    return [...told, ...ended, { kind: "established", peer }];
  }

  /**
   * A record cannot be trusted: say so, sealed, and end the session.
   * @param {Established} established
   * @param {Failure} failure
   * @param {number} now
   */
  async #fail(established, failure, now) {
    const text = FAILURES[failure];
    const told = await established.sendError(PeerCode.E2E_FAILED, text, { failure });
    return [...told, ...this.#end(failure), ...(await this.#initiator.restart(now))];
  }

  /** @param {Failure} failure @returns {SessionEvent[]} */
  #end(failure) {
    if (this.#established === null) {
      return [];
    }
    this.#established = null;
    return [{ kind: "ended", failure }];
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
    const answer = (await this.#established?.answerClear(id)) ?? [];
    return [...answer, ignored("a message that was not sealed", id)];
  }

  /**
   * @param {KeyExchange} message
   * @param {string} id
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async #step(message, id, now) {
    const { events, made } = await this.#initiator.step(message, id, now);
    return made ? [...events, ...(await this.#establish(made))] : events;
  }

  /**
   * @param {ErrorPayload} error
   * @param {string} id
   * @param {number} now
   * @returns {Promise<SessionEvent[]>}
   */
  async #clearError(error, id, now) {
    const events = await this.#initiator.told(error, now);
    if (RELAY_CODES.has(error.code)) {
      return [...events, { kind: "hint", ...error }];
    }
    return events.length > 0 ? events : [ignored("an error that was not sealed", id)];
  }
}

/** The failure of an E2EError; throws all else on. @param {unknown} error */
function failureOf(error) {
  if (error instanceof E2EError) {
    return error.failure;
  }
  throw error;
}
