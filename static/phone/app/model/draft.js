/** What was typed and not sent, kept a moment after the last key. */

// Milliseconds.
const PAUSE = 400;

export class Draft {
  #storage;
  #onTrouble;
  #name = "";
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
   * Reads what was kept, unless something was typed meanwhile.
   * @param {string} name of the record
   * @returns {Promise<void>} rejects with StoreError
   */
  async open(name) {
    const kept = await this.#storage.read(name);
    this.#name = name;
    if (this.unkept) this.#keep();
    else this.#text = kept ?? "";
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
