/** An answer on its way. */

import { fromInline } from "./attachments.js";
import { printable } from "./clear_messages.js";
import {
  AgentError,
  AttachmentError,
  ConnectionLost,
  CoralmuxError,
  FileError,
  MessageLost,
  NotConnected,
  PeerOffline,
  RelayRefused,
  ReplyIncomplete,
  RequestTimeout,
} from "./errors.js";
import { invalid, text } from "./queries.js";
import { Preparation } from "./question.js";
import { meddled } from "./refusals.js";
import { Change, Interrupted, sleep } from "./waiting.js";

/** @typedef {import("./attachments.js").Whole} Whole */
/** @typedef {import("./attachments.js").Remote} Remote */
/** @typedef {import("./exchange.js").Exchange} Exchange */

/**
 * The end of an answer. `attachments` are the files that came with it, or were named by URL.
 * @typedef {{text: string, attachments: (Whole | Remote)[], usage: Record<string, any>,
 *   cancelled: boolean}} Finished
 */

const TYPES = ["chat.stream", "chat.done", "chat.tool_status"];
const STATUSES = ["running", "done", "error"];

// Ends of an answer that the agent knows of. All others it has to be told: a refusal, too, comes in
// the clear, so it may be forged, and the agent be answering.
const AGENT_KNOWS = [AgentError, ConnectionLost, MessageLost];

const NOT_DELIVERED = [RelayRefused, PeerOffline, MessageLost];

/**
 * Iterate over it for the deltas, or await `finished`; or listen to its events, each with a
 * `detail`: "sent" {}, the question is on its way; "delta" {delta, text}; "tool" {tool, status};
 * "progress" {name, received, total}, a file of the answer on its way.
 *
 * The question goes out by itself. When the answer has ended, `text` is the whole of it,
 * `attachments` are the files that came with it, `usage` is what the agent says it took, and
 * `cancelled` whether `cancel` cut it short. `id` names the question.
 *
 * Leaving the loop ends the answer as `cancel` does.
 *
 * `finished` and the loop reject with AgentError (what the agent says went wrong), PeerOffline,
 * ConnectionLost, MessageLost, RelayRefused, RequestTimeout, ReplyIncomplete, PairingRefused,
 * Stopped, FileError, AttachmentError and NotConnected; each has the `ids` it is about.
 */
export class Answer extends EventTarget {
  text = "";
  cancelled = false;
  /** @type {(Whole | Remote)[]} */
  attachments = [];
  /** @type {Record<string, any>} */
  usage = {};
  /** @type {Promise<Finished>} */
  finished;
  #means;
  #question;
  #preparation;
  #sent = false;
  #ended = false;
  /** @type {unknown} */
  #error = null;
  #stop = new AbortController(); // ends what comes before the question
  /** @type {Set<{deltas: string[], change: Change}>} */
  #readers = new Set();

  /**
   * @param {import("./phone.js").Means} means
   * @param {import("./question.js").Question} question
   */
  constructor(means, question) {
    super();
    this.id = question.id;
    this.#means = means;
    this.#question = question;
    this.#preparation = new Preparation(means, question);
    this.finished = this.#follow();
    // Whoever iterates instead is told there.
    this.finished.catch(() => {});
  }

  async *[Symbol.asyncIterator]() {
    const reader = { deltas: this.text ? [this.text] : [], change: new Change() };
    this.#readers.add(reader);
    try {
      for (;;) {
        // Whoever is slow gets what came meanwhile in one piece.
        if (reader.deltas.length > 0) yield reader.deltas.splice(0).join("");
        else if (!this.#ended) await reader.change.next();
        else break;
      }
      if (this.#error) throw this.#error;
    } finally {
      this.#readers.delete(reader);
      this.cancel();
    }
  }

  /**
   * Ask the agent to stop; the answer then ends with what was said until then.
   *
   * A question that is not sent yet, because the agent is away or a file is on its way, is not sent
   * any more. Version 1 knows no cancelling, nor do some agents of version 2: there nothing more is
   * handed out until the agent has come to its end, for which the next question waits in version 1.
   */
  cancel() {
    if (this.#ended || this.cancelled) return;
    this.cancelled = true;
    this.#stop.abort();
    if (this.#sent && this.#agentCan("cancel")) {
      this.#means.channel.insist("chat.cancel", { ref: this.id });
    }
  }

  /**
   * For the phone: a file is on its way that may be this answer's.
   * @param {import("./transfers.js").Progress} progress
   */
  progress(progress) {
    if (this.#sent) this.#dispatch("progress", progress);
  }

  /** Nobody listens any more; in version 1 the answer still has to come to its end. */
  #giveUp() {
    if (this.cancelled) return;
    this.cancelled = true;
    if (this.#agentCan("cancel")) {
      // Once, unlike `cancel`: after a refusal it would take the place of the question that is
      // sent again.
      this.#means.channel.send("chat.cancel", { ref: this.id }).catch(() => {});
    }
  }

  /**
   * Whether the agent says so; in version 1 it says nothing, and can nothing.
   * @param {string} ability
   */
  #agentCan(ability) {
    return this.#means.channel.peer?.caps.includes(ability) === true;
  }

  /** @returns {Promise<Finished>} */
  async #follow() {
    try {
      await this.#ask();
    } catch (error) {
      if (!(error instanceof Interrupted)) {
        if (error instanceof CoralmuxError && error.ids.length === 0) error.ids = [this.id];
        if (isOne(error, NOT_DELIVERED)) this.#sent = false;
        this.#error = error;
      }
    }
    this.#ended = true;
    if (!this.#sent) this.#preparation.takeBack();
    for (const reader of this.#readers) reader.change.notify();
    if (this.#error) throw this.#error;
    const { text: said, attachments, usage, cancelled } = this;
    return { text: said, attachments, usage, cancelled };
  }

  async #ask() {
    const { channel, turns, exchanges, ready } = this.#means;
    const { timeout } = this.#question;
    const { signal } = this.#stop;
    await ready({ timeout, signal });
    const release = await turns.take(signal);
    try {
      const payload = await this.#preparation.payload(signal);
      for (;;) {
        await ready({ timeout, signal });
        if (this.cancelled) return;
        const waiting = exchanges.open(this.id, TYPES);
        // From here on `cancel` is sent behind the question.
        this.#sent = true;
        try {
          await channel.send("chat.send", payload, {
            id: this.id,
            onFailure: (error) => waiting.fail(error),
          });
        } catch (error) {
          exchanges.close(waiting);
          this.#sent = false;
          if (!(error instanceof NotConnected)) throw error;
          // The session ended in between: the question was not sent.
          await sleep(0, signal);
          continue;
        }
        this.#dispatch("sent", {});
        await this.#listen(waiting);
        return;
      }
    } finally {
      release();
    }
  }

  /** @param {Exchange} waiting */
  async #listen(waiting) {
    const { exchanges, turns } = this.#means;
    let overdue = false;
    try {
      await this.#read(waiting);
    } catch (error) {
      // After a time-out this also brings to light what was lost: the agent misses the question,
      // or we its answer.
      overdue = error instanceof RequestTimeout;
      if (!isOne(error, AGENT_KNOWS)) this.#giveUp();
      throw error;
    } finally {
      exchanges.close(waiting);
      if (waiting.unanswered) turns.abandon(waiting, { overdue });
    }
  }

  /** @param {Exchange} waiting */
  async #read(waiting) {
    let seen = 0;
    let complete = true;
    for (;;) {
      const { type, payload } = await this.#next(waiting);
      if (type === "chat.tool_status") {
        // It comes in the clear in version 1. An answer is no worse without it.
        const { tool } = payload;
        const status = STATUSES.includes(payload.status) ? payload.status : "running";
        if (typeof tool === "string") this.#dispatch("tool", { tool: printable(tool), status });
      } else if (type === "chat.stream") {
        const { delta, seq = 0 } = payload;
        text(delta);
        if (seq && seq <= seen) continue;
        complete &&= seq === 0 || seq === seen + 1;
        seen = seq;
        if (complete && !(this.cancelled && !this.#agentCan("cancel"))) this.#say(delta);
      } else if (type === "chat.done") {
        this.#finish(payload, complete);
        return;
      }
    }
  }

  /** @param {Exchange} waiting */
  async #next(waiting) {
    try {
      return await waiting.next(this.#question.timeout);
    } catch (error) {
      const sealed = this.#means.channel.version === 2;
      if (error instanceof AgentError && error.code === "E2E_REQUIRED" && sealed) {
        this.#giveUp();
        throw meddled(error, "it was cancelled. Ask again.");
      }
      throw error;
    }
  }

  /**
   * @param {Record<string, any>} done
   * @param {boolean} complete whether all deltas came
   */
  #finish(done, complete) {
    // In version 1 a relay can call a delta the end; that has no `full_text`.
    const whole = text(done.full_text);
    const items = done.attachments ?? [];
    if (!Array.isArray(items)) throw invalid();
    this.#ended = true;
    this.usage = typeof done.usage === "object" && done.usage !== null ? done.usage : {};
    this.cancelled = done.cancelled === true || this.cancelled;
    const missing = this.#takeFiles(items);
    this.#say(this.#rest(whole, complete));
    if (missing.length > 0) {
      const [first] = missing;
      const told =
        `The text is whole, but ${missing.length} of ${items.length} files that belong to it did ` +
        `not come. ${first.message}`;
      const ids = [this.id];
      throw first instanceof FileError
        ? new FileError(told, { ids })
        : new AttachmentError(told, { code: first.code, ids });
    }
  }

  /**
   * Claim all that came, and say what was wrong with the others.
   * @param {unknown[]} items
   */
  #takeFiles(items) {
    const { inbox } = this.#means.transfers;
    /** @type {(FileError | AttachmentError)[]} */
    const missing = [];
    for (const item of items) {
      try {
        if (typeof item !== "object" || item === null) throw invalid();
        const given = /** @type {Record<string, unknown>} */ (item);
        this.attachments.push("file_id" in given ? inbox.claim(given.file_id) : fromInline(given));
      } catch (error) {
        if (!(error instanceof FileError || error instanceof AttachmentError)) throw error;
        missing.push(error);
      }
    }
    return missing;
  }

  /**
   * What is missing at the end. Throws ReplyIncomplete where that cannot be told.
   * @param {string} whole
   * @param {boolean} complete
   */
  #rest(whole, complete) {
    if (whole.startsWith(this.text)) {
      return this.cancelled && complete ? "" : whole.slice(this.text.length);
    }
    // An agent may tidy up what it has said; that was handed out as it was said.
    if (complete) return "";
    throw new ReplyIncomplete(
      "Parts of the answer were lost on the way, and what came does not fit its end. Ask again.",
      { text: whole, ids: [this.id] },
    );
  }

  /** @param {string} delta */
  #say(delta) {
    if (!delta) return;
    this.text += delta;
    for (const reader of this.#readers) {
      reader.deltas.push(delta);
      reader.change.notify();
    }
    this.#dispatch("delta", { delta, text: this.text });
  }

  /**
   * @param {string} type
   * @param {object} detail
   */
  #dispatch(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/**
 * @param {unknown} error
 * @param {Function[]} kinds
 */
function isOne(error, kinds) {
  return kinds.some((kind) => error instanceof kind);
}
