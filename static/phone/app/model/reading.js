/** Reading a conversation, one page after another, the newest first. */

export class Reading {
  #pages;
  #open;
  #page;
  #onTrouble;
  /** @type {Promise<void> | null} */
  #newest = null;
  /** @type {Promise<void> | null} */
  #older = null;

  /**
   * @param {import("../storage/pages.js").Pages} pages
   * @param {object} steps
   * @param {() => Promise<void>} steps.open finds out what there is
   * @param {() => Promise<void>} steps.page reads the page before; never rejects
   * @param {(error: unknown) => void} onTrouble
   */
  constructor(pages, { open, page }, onTrouble) {
    this.#pages = pages;
    this.#open = open;
    this.#page = page;
    this.#onTrouble = onTrouble;
  }

  /** Whether more is to be read, or being read. */
  get goesOn() {
    return this.#older !== null || this.#pages.hasOlder;
  }

  /**
   * @param {() => boolean} wanted whether it is to go on after a page
   * @returns {Promise<void>} never rejects
   */
  newest(wanted) {
    this.#newest ??= this.#readNewest(wanted).finally(() => {
      this.#newest = null;
    });
    return this.#newest;
  }

  /** @returns {Promise<void>} never rejects */
  older() {
    this.#older ??= this.#page().finally(() => {
      this.#older = null;
    });
    return this.#older;
  }

  /** @returns {Promise<void>} when all is read; never rejects */
  async rest() {
    while (this.goesOn) await this.older();
  }

  /** @param {() => boolean} wanted */
  async #readNewest(wanted) {
    await this.#open().catch(this.#onTrouble);
    do await this.older();
    while (this.#pages.hasOlder && wanted());
  }
}
