/** What was typed and not sent, kept a moment after the last key. */

// Milliseconds.
const PAUSE = 400;

export class Draft {
  #storage;
  #onTrouble;
  #name = "";
  #text = "";
  #typed = false;
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
    this.#typed = true;
    clearTimeout(this.#timer);
    if (!this.#closed) this.#timer = setTimeout(() => this.#keep(), PAUSE);
  }

  /**
   * Reads what was kept, unless something was typed meanwhile.
   * @param {string} name of the record
   * @returns {Promise<void>} rejects with StoreError
   */
  async open(name) {
    const kept = await this.#storage.read(name);
    this.#name = name;
    if (this.#typed) this.#keep();
    else this.#text = kept ?? "";
  }

  /**
   * Writes it, where that is still to be done.
   * @returns {Promise<void>} never rejects
   */
  flush() {
    return this.#timer === undefined ? this.#writing : this.#keep();
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
    if (this.#text) await this.#storage.write(this.#name, this.#text);
    else await this.#storage.remove(this.#name);
  }
}
