/** What waits for an answer: one request, and everything that comes back for it. */

import { AgentError, InvalidAnswer, NotConnected, RequestTimeout } from "./errors.js";
import { UNREADABLE, UNSEALED } from "./legacy.js";
import { refusal } from "./refusals.js";
import { Change, TimedOut, within } from "./waiting.js";

/** @typedef {import("./channel.js").Opened} Opened */

// Messages that an answer does not end with.
const PARTS = ["chat.stream", "chat.tool_status"];

/** @type {Record<string, string>} */
const UNTAKEN = {
  [UNSEALED]:
    "The agent answered without encryption, and its answer was not taken. Ask again; if this " +
    "repeats, restart the agent.",
  [UNREADABLE]:
    "The agent's answer could not be decrypted: something on the way may have changed it, or " +
    "the agent has other keys. Ask again; if this repeats, restart both ends.",
};

/**
 * The messages that answer one request, in the order in which they came. `types` are those of
 * its answers, for version 1, whose answers name no request.
 */
export class Exchange {
  /** @type {Opened[]} */
  #came = [];
  /** @type {Error | null} */
  #failure = null;
  #change = new Change();
  #abandoned = false;
  #ended = false;

  /**
   * @param {string} id
   * @param {string[]} types
   */
  constructor(id, types) {
    this.id = id;
    this.types = types;
    /** When it was opened or something last came, by the clock of `performance`. */
    this.touched = performance.now();
  }

  /** Whether its end has neither come nor failed to. */
  get unanswered() {
    return !this.#ended && this.#failure === null;
  }

  /** @param {Opened} message */
  put(message) {
    this.touched = performance.now();
    if (!PARTS.includes(message.type)) this.#ended = true;
    if (message.type === "chat.error") this.fail(agentError(message, this.id));
    else if (!this.#abandoned) this.#came.push(message);
    this.#change.notify();
  }

  /**
   * Nothing more comes; what came before is still handed out.
   * @param {Error} error
   */
  fail(error) {
    this.#failure ??= error;
    this.#change.notify();
  }

  /**
   * The next message. Rejects with what `fail` was given, RequestTimeout or Interrupted.
   * @param {number} timeout in milliseconds
   * @param {AbortSignal} [signal]
   * @returns {Promise<Opened>}
   */
  async next(timeout, signal) {
    try {
      return this.#came.shift() ?? (await within(timeout, (stop) => this.#wait(stop), signal));
    } catch (error) {
      if (!(error instanceof TimedOut)) throw error;
      throw new RequestTimeout(
        `No answer came within ${timeout / 1000} s. It may still have been understood; ask ` +
          "again, or look whether the agent is well.",
        { ids: [this.id] },
      );
    }
  }

  /** @param {AbortSignal} signal */
  async #wait(signal) {
    for (;;) {
      const message = this.#came.shift();
      if (message) return message;
      if (this.#failure) throw this.#failure;
      await this.#change.next(signal);
    }
  }

  /** Nobody listens any more: what comes is only counted as life. */
  abandon() {
    this.#abandoned = true;
    this.#came = [];
  }

  /**
   * Settles when something came, or the end of it.
   * @param {AbortSignal} signal
   */
  async touch(signal) {
    if (this.unanswered) await this.#change.next(signal);
  }
}

/** All that wait, by the id of their request. */
export class Exchanges {
  #channel;
  /** @type {Map<string, Exchange>} */
  #open = new Map();
  /** @type {Exchange | null} the last one, until something comes */
  #unanswered = null;

  /** @param {{version: number}} channel */
  constructor(channel) {
    this.#channel = channel;
  }

  /**
   * Throws NotConnected if a request with this id waits already.
   * @param {string} id
   * @param {string[]} types
   */
  open(id, types) {
    if (this.#open.has(id)) {
      throw new NotConnected("A request with this id still waits for its answer.", { ids: [id] });
    }
    const exchange = new Exchange(id, types);
    this.#open.set(id, exchange);
    this.#unanswered = exchange;
    return exchange;
  }

  /** @param {Exchange} exchange */
  close(exchange) {
    if (this.#unanswered === exchange) this.#unanswered = null;
    if (this.#open.get(exchange.id) === exchange) this.#open.delete(exchange.id);
  }

  /**
   * Take one back that was closed: what still comes for it goes to nobody.
   * @param {Exchange} exchange
   */
  abandon(exchange) {
    exchange.abandon();
    this.#open.set(exchange.id, exchange);
  }

  /**
   * Hand a message to whoever waits for it; whether anybody does.
   * @param {Opened} message
   */
  put(message) {
    const exchange = this.#find(message);
    if (exchange) this.#unanswered = null;
    exchange?.put(message);
    return exchange !== undefined;
  }

  /** @param {Opened} message */
  #find({ type, payload }) {
    const named = this.#open.get(/** @type {string} */ (payload.ref));
    if (named || this.#channel.version === 2) return named;
    return [...this.#open.values()].find(
      (exchange) => exchange.types.includes(type) || type === "chat.error",
    );
  }

  /**
   * @param {(id: string) => Error} error
   * @param {string} [awaiting] only those that wait for this type
   */
  failAll(error, awaiting) {
    for (const exchange of [...this.#open.values()]) {
      if (!awaiting || exchange.types.includes(awaiting)) exchange.fail(error(exchange.id));
    }
  }

  /**
   * The end of an answer came, and was not taken.
   * @param {string} why
   */
  failUntaken(why) {
    this.failAll((id) => new InvalidAnswer(UNTAKEN[why] ?? why, { ids: [id] }), "chat.done");
  }

  /**
   * The relay refuses something, and does not say what.
   * @param {import("./refusals.js").Refusal} hint
   */
  refuseUnanswered(hint) {
    const exchange = this.#unanswered;
    exchange?.fail(refusal({ ...hint, ref: exchange.id }));
  }
}

/**
 * @param {Opened} message
 * @param {string} id
 */
function agentError({ payload: { code, message } }, id) {
  return new AgentError(
    typeof message === "string" && message ? message : "The agent failed and gave no reason.",
    { code: typeof code === "string" ? code : "BACKEND_ERROR", ids: [id] },
  );
}
