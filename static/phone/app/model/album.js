/** The pictures of a conversation: chosen, on their way, kept and forgotten. */

import { AttachmentError } from "../../core/errors.js";
import { Picture } from "./message.js";
import { measure, SCALABLE_BYTES, SENDABLE_BYTES, scaled } from "./scaling.js";

/** @typedef {import("./message.js").Message} Message */

/** @typedef {{name: string, type: string, data: Blob}} File `type` is its MIME type */

// Files of an answer that are shown while they come. An agent may begin any number.
const COMING = 8;

/**
 * Throws AttachmentError (code TOO_LARGE or NOT_A_PICTURE) where a picture cannot be sent.
 * @param {File} picture
 * @param {1 | 2} version
 */
export function check({ type, data }, version) {
  const limit = version === 2 ? SENDABLE_BYTES : SCALABLE_BYTES;
  if (!type.startsWith("image/")) {
    throw new AttachmentError("This is no picture. Only pictures can be sent.", {
      code: "NOT_A_PICTURE",
    });
  }
  if (data.size > limit) {
    throw new AttachmentError(
      `This picture is too large: at most ${limit / 1e6} MB can be sent. Send a smaller one.`,
      { code: "TOO_LARGE" },
    );
  }
}

export class Album {
  #pairing;
  /** @type {Set<Picture>} those that could not be kept */
  #unkept = new Set();
  /** @type {WeakSet<Picture>} those that were deleted, maybe while they were being kept */
  #forgotten = new WeakSet();

  /** @param {import("./pairing.js").Pairing} pairing */
  constructor(pairing) {
    this.#pairing = pairing;
  }

  /**
   * @param {File} file
   * @returns {Picture}
   */
  picture({ name, type, data }) {
    const fields = { id: crypto.randomUUID(), name, type, size: data.size };
    return new Picture(fields, this.#pairing.pictures, data);
  }

  /**
   * What goes out with a question: as it is, or small enough for an agent of version 1.
   * @param {Message} question
   * @param {import("../../core/index.js").Phone} phone
   * @returns {Promise<import("../../core/phone.js").Attachment[]>} rejects with StoreError, or with
   *   AttachmentError (code damaged or TOO_LARGE_INLINE)
   */
  async attachments({ pictures }, phone) {
    const room = Math.floor(phone.maxInlineBytes / Math.max(1, pictures.length));
    return await Promise.all(
      pictures.map(async (picture) => {
        const { name, type } = picture;
        const whole = await picture.blob();
        if (!whole.size) {
          throw new AttachmentError("This picture is not here any more. Send it anew.", {
            code: "damaged",
          });
        }
        if (phone.version === 2) return { name, type, data: whole };
        const data = await scaled(whole, room);
        if (!data) {
          throw new AttachmentError("This picture cannot be made small enough. Send another one.", {
            code: "TOO_LARGE_INLINE",
          });
        }
        picture.scaled = data !== whole;
        return { name, type: data.type, data };
      }),
    );
  }

  /**
   * A file that came with an answer.
   * @param {{name: string, type: string, data: Uint8Array | Blob}} file
   * @returns {Promise<Picture>}
   */
  async received({ name, type, data }) {
    const blob = data instanceof Blob ? data : new Blob([/** @type {BlobPart} */ (data)], { type });
    const picture = this.picture({ name, type, data: blob });
    return Object.assign(picture, await measure(picture));
  }

  /**
   * A file of an answer that is on its way.
   * @param {Message} answer
   * @param {import("../../core/transfers.js").Progress} progress
   */
  receiving(answer, { fileId, name, received, total }) {
    const coming = answer.pictures.filter((one) => one.coming);
    let picture = coming.find((one) => one.coming === fileId);
    if (!picture) {
      if (coming.length >= COMING) return;
      picture = this.picture({ name, type: "image/*", data: new Blob([]) });
      picture.size = total;
      picture.coming = fileId;
      answer.pictures = [...answer.pictures, picture];
    }
    picture.progress = total ? received / total : 1;
  }

  /**
   * Finds out how large they are, in pixels.
   * @param {Message} message
   */
  async measure({ pictures }) {
    await Promise.all(
      pictures.map(async (picture) => Object.assign(picture, await measure(picture))),
    );
  }

  /**
   * @param {Message} message
   * @returns {Promise<void>} when they are kept, or the banner tells why not
   */
  async keep({ pictures }) {
    await Promise.all(pictures.map((picture) => this.#keep(picture)));
  }

  /**
   * Keeps what could not be kept.
   * @returns {Promise<boolean>} whether all of it is kept now
   */
  async keepAgain() {
    await Promise.all([...this.#unkept].map((picture) => this.#keep(picture)));
    return this.#unkept.size === 0;
  }

  /**
   * @param {Message[]} messages
   * @returns {Promise<void>} when theirs are gone, or the banner tells why not
   */
  async forget(messages) {
    const pictures = messages.flatMap((message) => message.pictures);
    for (const picture of pictures) {
      picture.release();
      this.#unkept.delete(picture);
      this.#forgotten.add(picture);
    }
    if (!pictures.length) return;
    await this.#pairing.pictures.remove(pictures.map(({ id }) => id)).catch(this.#pairing.trouble);
  }

  /** @param {Picture} picture */
  async #keep(picture) {
    try {
      await picture.keep();
      this.#unkept.delete(picture);
      if (this.#forgotten.has(picture)) await this.#pairing.pictures.remove([picture.id]);
    } catch (error) {
      if (!this.#forgotten.has(picture)) this.#unkept.add(picture);
      this.#pairing.trouble(error);
    }
  }
}
