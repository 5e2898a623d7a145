/** Requests besides questions: asks one thing, and waits for its one answer. */

import { newId } from "./envelope.js";
import { AgentError, CoralmuxError, InvalidAnswer, RequestTimeout } from "./errors.js";
import { meddled } from "./refusals.js";
import { TimedOut, within } from "./waiting.js";

/** @typedef {Record<string, unknown>} Payload */

/** See the module. */
export class Requests {
  #means;
  #crypto;
  #absent;

  /**
   * @param {import("./phone.js").Means} means
   * @param {import("./crypto.js").CryptoProvider} crypto
   * @param {() => Error} absent why there is no session
   */
  constructor(means, crypto, absent) {
    this.#means = means;
    this.#crypto = crypto;
    this.#absent = absent;
  }

  /**
   * See `Queries.request`.
   * @template T
   * @param {string} type
   * @param {Payload} payload
   * @param {string} result
   * @param {number} timeout
   * @param {(payload: Payload) => T} parse
   * @returns {Promise<T>}
   */
  async ask(type, payload, result, timeout, parse) {
    const id = newId(this.#crypto);
    try {
      const message = await this.#within(timeout, id, type, payload, result);
      if (message.type !== result) {
        throw new InvalidAnswer("The agent answered something else. Bring both ends up to date.");
      }
      return parse(message.payload);
    } catch (error) {
      const sealed = this.#means.channel.version === 2;
      if (error instanceof AgentError && error.code === "E2E_REQUIRED" && sealed) {
        throw meddled(error, "look before you ask again.");
      }
      if (error instanceof CoralmuxError && error.ids.length === 0) error.ids = [id];
      throw error;
    }
  }

  /**
   * @param {number} timeout
   * @param {string} id
   * @param {string} type
   * @param {Payload} payload
   * @param {string} result
   */
  async #within(timeout, id, type, payload, result) {
    const { channel, turns, exchanges } = this.#means;
    let asked = false;
    /** @param {AbortSignal} signal */
    const work = async (signal) => {
      await channel.waitReady(signal);
      const release = await turns.take(signal);
      try {
        await channel.waitReady(signal);
        const waiting = exchanges.open(id, [result]);
        try {
          await channel.send(type, payload, { id, onFailure: (error) => waiting.fail(error) });
          asked = true;
          return await waiting.next(Infinity, signal);
        } finally {
          exchanges.close(waiting);
          if (asked && waiting.unanswered) turns.abandon(waiting, { overdue: true });
        }
      } finally {
        release();
      }
    };
    try {
      return await within(timeout, work);
    } catch (error) {
      if (!(error instanceof TimedOut)) throw error;
      const seconds = timeout / 1000;
      if (asked) {
        throw new RequestTimeout(
          `No answer came within ${seconds} s. Ask again, or look whether the agent is well.`,
        );
      }
      if (!channel.ready) throw this.#absent();
      throw new RequestTimeout(
        `An earlier question was not answered within ${seconds} s, and version 1 takes one at ` +
          "a time. This one was not sent; ask again later.",
      );
    }
  }
}
