/** What was typed and not sent, kept a moment after the last key. */

// Milliseconds.
const PAUSE = 400;

export class Draft {
  #storage;
  #onTrouble;
  #name = "";
  #opened = false;
  #text = "";
  /** Whether what was typed is still to be kept. */
  unkept = false;
  #closed = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {Promise<void>} */
  #writing = Promise.resolve();

  /**
   * @param {import("../storage/database.js").Storage} storage
   * @param {(error: unknown) => void} onTrouble
   */
  constructor(storage, onTrouble) {
    this.#storage = storage;
    this.#onTrouble = onTrouble;
  }

  get text() {
    return this.#text;
  }

  set text(text) {
    this.#text = text;
    this.unkept = true;
    clearTimeout(this.#timer);
    if (!this.#closed) this.#timer = setTimeout(() => this.#keep(), PAUSE);
  }

  /**
   * Goes on with another one. What of it is kept is only shown: another tab may have gone on with
   * that, and what is kept in the end is read.
   * @param {Draft} before
   */
  inherit(before) {
    if (before.unkept && before.text) this.text = before.text;
    else this.#text = before.text;
  }

  /**
   * Reads what was kept, unless something was typed meanwhile.
   * @param {string} name of the record
   * @returns {Promise<void>} rejects with StoreError; what is typed then is kept all the same
   */
  async open(name) {
    this.#opened = false;
    try {
      const kept = await this.#storage.read(name);
      if (!this.unkept) this.#text = kept ?? "";
      this.#opened = true;
    } finally {
      this.#name = name;
      if (this.unkept) this.#keep();
    }
  }

  /**
   * Reads it where it could not be read.
   * @returns {Promise<void>} never rejects
   */
  async openAgain() {
    if (this.#name && !this.#opened) await this.open(this.#name).catch(this.#onTrouble);
  }

  /**
   * Writes it, where that is still to be done.
   * @returns {Promise<boolean>} whether it is kept; never rejects
   */
  async flush() {
    await (this.unkept ? this.#keep() : this.#writing);
    return !this.unkept;
  }

  /** Writes nothing any more. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** One after the other, so that the last one stays. */
  #keep() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing = this.#writing.then(() => this.#write()).catch(this.#onTrouble);
    return this.#writing;
  }

  async #write() {
    if (this.#closed || !this.#name) return;
    const text = this.#text;
    if (text) await this.#storage.write(this.#name, text);
    else await this.#storage.remove(this.#name);
    if (text === this.#text) this.unkept = false;
  }
}
