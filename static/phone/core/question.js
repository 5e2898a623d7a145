/** A question before it goes out: its payload, and the files that travel ahead of it. */

import { checkInline, isPicture, opened, toInline } from "./attachments.js";
import { AttachmentError } from "./errors.js";

/**
 * What `Phone.ask` was given.
 * @typedef {object} Question
 * @property {string} text
 * @property {string} id
 * @property {import("./phone.js").Attachment[]} attachments
 * @property {Record<string, unknown>} more
 * @property {number} timeout
 * @property {(attachment: import("./phone.js").Attachment, sent: number, total: number) => void}
 *   [onProgress]
 */

/** Makes the payload of `chat.send`, once the agent is there. */
export class Preparation {
  #means;
  #question;
  /** @type {string[]} */
  #files = [];

  /**
   * @param {import("./phone.js").Means} means
   * @param {Question} question
   */
  constructor(means, question) {
    this.#means = means;
    this.#question = question;
  }

  /**
   * Settles when the agent has all the files. Rejects with AttachmentError, what
   * `Transfers.send` rejects with, or Interrupted.
   * @param {AbortSignal} signal
   */
  async payload(signal) {
    const { channel } = this.#means;
    const { text, more, attachments } = this.#question;
    /** @type {Record<string, unknown>} */
    const payload = { text, ...more };
    if (attachments.length > 0) payload.attachments = await this.#attachments(signal);
    if (channel.version === 1) {
      const size = new TextEncoder().encode(JSON.stringify(payload)).length;
      checkInline(size, channel.wire.maxMessageBytes);
    }
    return payload;
  }

  /**
   * Files go ahead of the message in version 2, and inside it in version 1.
   * @param {AbortSignal} signal
   */
  async #attachments(signal) {
    const { channel, transfers } = this.#means;
    const { attachments, timeout, onProgress } = this.#question;
    const files = await Promise.all(attachments.map(opened));
    if (channel.version === 1) return files.map(toInline);
    if (!channel.peer?.caps.includes("files")) {
      throw new AttachmentError("This agent takes no files. Update it, or ask without them.", {
        code: "NO_FILES",
      });
    }
    const sent = [];
    for (const [index, file] of files.entries()) {
      const fileId = await transfers.send(file, {
        onProgress: (bytes, total) => onProgress?.(attachments[index], bytes, total),
        patience: timeout,
        signal,
      });
      this.#files.push(fileId);
      const { name, type, size } = file;
      const kind = isPicture(file) ? "image" : "file";
      sent.push({ type: kind, mime_type: type, name, size, file_id: fileId });
    }
    return sent;
  }

  /** The question does not get there: its files need no place at the agent's. */
  takeBack() {
    for (const fileId of this.#files) {
      this.#means.channel.send("file.cancel", { file_id: fileId }).catch(() => {});
    }
  }
}
