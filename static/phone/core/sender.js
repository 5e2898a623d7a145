/** What a channel sends, and what becomes of it: whoever sent it is told of refusal and loss. */

import { newId } from "./envelope.js";
import { MessageLost, NotConnected } from "./errors.js";
import { NotReady } from "./failures.js";
import { Fates } from "./fates.js";
import { Insistence } from "./insistence.js";
import { refusal } from "./refusals.js";

/** @typedef {import("./insistence.js").Fate} Fate */
/** @typedef {import("./machine.js").Machine} Machine */

/**
 * @typedef {object} Means
 * @property {() => Machine | null} machine
 * @property {import("./wire.js").Wire} wire
 * @property {import("./job_queue.js").JobQueue} queue the channel's: counters must go out in order
 * @property {import("./crypto.js").CryptoProvider} crypto
 * @property {() => void} onUnsent there was no session; its machine may want one
 */

const utf8 = new TextEncoder();

/** See the module. */
export class Sender {
  #means;
  #fates = new Fates();
  #insistence = new Insistence((type, payload, how) => this.send(type, payload, how));

  /** @param {Means} means */
  constructor(means) {
    this.#means = means;
  }

  /**
   * See `Channel.send`.
   * @param {string} type
   * @param {Record<string, unknown>} payload
   * @param {{id?: string, onFailure?: Fate}} [how]
   * @returns {Promise<string>}
   */
  async send(type, payload, { id = newId(this.#means.crypto), onFailure } = {}) {
    const { wire, queue } = this.#means;
    const plaintext = utf8.encode(JSON.stringify(payload));
    wire.check(plaintext.length, id);
    wire.pending += plaintext.length;
    try {
      await queue.add(() => this.#sealAndPost(type, id, plaintext, onFailure));
    } finally {
      wire.pending -= plaintext.length;
    }
    return id;
  }

  /**
   * @param {string} type
   * @param {string} id
   * @param {Uint8Array} plaintext
   * @param {Fate} [onFailure]
   */
  async #sealAndPost(type, id, plaintext, onFailure) {
    try {
      const machine = this.#means.machine();
      if (!machine) throw new NotReady();
      const sealed = await machine.seal(type, id, plaintext);
      this.#means.wire.post(type, id, sealed);
    } catch (error) {
      if (!(error instanceof NotReady || error instanceof NotConnected)) throw error;
      this.#means.onUnsent();
      throw new NotConnected("There is no session with the agent. Try again when there is.", {
        ids: [id],
      });
    }
    if (onFailure) this.#fates.add(id, onFailure);
  }

  /**
   * See `Channel.insist`. `patient`: also where the agent is away for a moment.
   * @param {string} type
   * @param {Record<string, unknown>} payload
   * @param {{patient: boolean}} how
   */
  insist(type, payload, { patient }) {
    this.#insistence.send(type, payload, { id: newId(this.#means.crypto), patient });
  }

  /**
   * The relay refused a message, or so somebody says.
   * @param {import("./refusals.js").Refusal} hint
   */
  refused(hint) {
    this.#means.machine()?.refused(hint.ref);
    this.#fates.tell(hint.ref, refusal(hint));
  }

  /**
   * Messages did not arrive, says the agent.
   * @param {string[]} ids
   */
  lost(ids) {
    for (const id of ids) {
      const text = "The message did not arrive, says the agent. Send it again.";
      this.#fates.tell(id, new MessageLost(text, { ids: [id] }));
    }
  }

  /** Nobody is told of a message any more: `onEvent` tells all of the end of the session. */
  sessionEnded() {
    this.#fates.clear();
    this.#insistence.end();
  }
}
