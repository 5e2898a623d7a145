/**
 * The messages of a conversation at rest: pages of about 64, fewer where they are long, each a
 * sealed record.
 *
 * A new message rewrites the last page, a changed one the page that it stands on. One write of a
 * page is on its way at a time; what changes meanwhile goes into the next one.
 */

import { StoreError } from "../../core/errors.js";

/** Messages on a page: few enough to seal them at every new one, enough to fill a screen. */
const PAGE = 64;

// Characters beyond which a page takes no more messages, so that it is sealed in no time.
const LONG = 256 * 1024;

// Milliseconds between two writes of a page whose last message is still coming.
const PACE = 1000;

/** @typedef {{page?: number, text: string, toJSON(): any}} Kept what stands on a page */

export class Pages {
  #storage;
  #prefix = "";
  /** @type {Map<number, Kept[]>} the pages that are here, by number */
  #pages = new Map();
  /** @type {number[]} those that are kept and not here yet, ascending */
  #left = [];
  /** @type {Map<number, Promise<void>>} the last write of each page that has not ended */
  #writes = new Map();
  /** @type {Map<number, Promise<void>>} those of them that have not begun */
  #due = new Map();
  /** @type {Map<number, ReturnType<typeof setTimeout>>} */
  #timers = new Map();
  /** @type {Map<number, number>} when a page was last written at the pace, Unix milliseconds */
  #written = new Map();
  #closed = false;
  /** @type {Set<number>} those whose last write failed */
  #unkept = new Set();
  #damaged = false;
  #onTrouble;

  /**
   * @param {import("./database.js").Storage} storage
   * @param {(error: unknown) => void} onTrouble told of what could not be kept
   */
  constructor(storage, onTrouble) {
    this.#storage = storage;
    this.#onTrouble = onTrouble;
  }

  /** Whether there are pages before those that were read. */
  get hasOlder() {
    return this.#left.length > 0;
  }

  /** Whether it is known which pages there are. Before that nothing is written. */
  get opened() {
    return this.#prefix !== "";
  }

  /** Whether each page that is kept could be read so far. */
  get whole() {
    return this.opened && !this.#damaged;
  }

  /**
   * Finds out which pages there are; reads none. What was said meanwhile comes behind them.
   * @param {string} prefix of their names
   * @returns {Promise<void>} rejects with StoreError
   */
  async open(prefix) {
    this.#left = await this.#numbers(prefix);
    this.#prefix = prefix;
    const first = (this.#left.at(-1) ?? -1) + 1;
    const said = [...this.#pages.values()].flat();
    this.#pages.clear();
    this.#unkept.clear();
    if (!said.length) return;
    this.#pages.set(first, said);
    for (const message of said) message.page = first;
    await this.#write(first);
  }

  /**
   * Reads the newest page that is not here yet.
   * @template {Kept} T
   * @param {(record: any) => T} make
   * @returns {Promise<T[]>} none where there is no more; rejects with StoreError
   */
  async older(make) {
    const number = this.#left.at(-1);
    if (number === undefined) return [];
    const damaged = this.#damaged;
    // Where it cannot be read it is left alone: the pages before it still can be read, and
    // what comes goes onto the one behind it.
    this.#left.pop();
    if (!this.#pages.has(number + 1)) this.#pages.set(number + 1, []);
    this.#damaged = true;
    const records = (await this.#storage.read(this.#name(number))) ?? [];
    this.#damaged = damaged;
    const messages = records.map(make);
    if (!this.#pages.get(number + 1)?.length) this.#pages.delete(number + 1);
    for (const message of messages) message.page = number;
    this.#pages.set(number, messages);
    return messages;
  }

  /**
   * Puts a message at the end, or behind another one, whose page may become longer.
   * @param {Kept} message
   * @param {Kept} [before]
   * @returns {Promise<void>} when it is kept, or `onTrouble` was told
   */
  append(message, before) {
    if (message.page !== undefined) return this.keep(message);
    const its = before?.page === undefined ? undefined : this.#pages.get(before.page);
    if (before && its && its.at(-1) !== before) {
      message.page = before.page;
      its.splice(its.indexOf(before) + 1, 0, message);
      return this.keep(message);
    }
    const last = Math.max(0, ...this.#pages.keys());
    const number = isFull(this.#pages.get(last) ?? []) ? last + 1 : last;
    message.page = number;
    const page = this.#pages.get(number) ?? [];
    page.push(message);
    this.#pages.set(number, page);
    return this.keep(message);
  }

  /**
   * Writes the page of a message that has changed.
   * @param {Kept} message
   * @returns {Promise<void>} when it is kept, or `onTrouble` was told
   */
  async keep({ page }) {
    if (page !== undefined) await this.#write(page);
  }

  /**
   * Writes it at once, and then once a second: for a message that goes on changing.
   * @param {Kept} message
   */
  keepSoon({ page }) {
    if (page === undefined || this.#timers.has(page)) return;
    const wait = (this.#written.get(page) ?? 0) + PACE - Date.now();
    if (wait > 0) {
      this.#timers.set(
        page,
        setTimeout(() => this.#writeSoon(page), wait),
      );
    } else this.#writeSoon(page);
  }

  /**
   * @param {Kept} message
   * @returns {Promise<void>}
   */
  async remove(message) {
    const { page } = message;
    if (page === undefined) return;
    const rest = (this.#pages.get(page) ?? []).filter((other) => other !== message);
    this.#pages.set(page, rest);
    message.page = undefined;
    await this.#write(page);
  }

  /**
   * Keeps these and no others: history came in before them.
   * @param {Kept[]} messages oldest first
   * @returns {Promise<void>}
   */
  async replace(messages) {
    for (const number of this.#pages.keys()) this.#pages.set(number, []);
    let number = 0;
    for (const message of messages) {
      if (isFull(this.#pages.get(number) ?? [])) number += 1;
      const page = this.#pages.get(number) ?? [];
      page.push(message);
      message.page = number;
      this.#pages.set(number, page);
    }
    await this.#writeAll();
  }

  /**
   * Keeps nothing of what there is, nor of what cannot be read.
   * @returns {Promise<boolean>} whether all is gone; else `onTrouble` was told
   */
  async clear() {
    // What is said from now on is no part of it.
    for (const number of this.#pages.keys()) this.#pages.set(number, []);
    this.#left = [];
    try {
      if (!this.opened) throw unopened();
      for (const number of await this.#numbers(this.#prefix)) {
        if (!this.#pages.has(number)) this.#pages.set(number, []);
      }
    } catch (error) {
      for (const number of this.#pages.keys()) this.#unkept.add(number);
      this.#onTrouble(error);
      return false;
    }
    await this.#writeAll();
    this.#damaged = false;
    return !this.#closed && this.#unkept.size === 0;
  }

  /**
   * Writes again what could not be written.
   * @returns {Promise<boolean>} whether all of it is kept now
   */
  async keepAgain() {
    await Promise.all([...this.#unkept].map((number) => this.#write(number)));
    return this.#unkept.size === 0;
  }

  /** Writes what waits to be written. */
  async flush() {
    await Promise.all([...this.#timers.keys()].map((number) => this.#write(number)));
    await Promise.all(this.#writes.values());
  }

  /** Writes nothing any more: another tab does, or the pairing is forgotten. */
  close() {
    this.#closed = true;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
  }

  async #writeAll() {
    await Promise.all([...this.#pages.keys()].map((number) => this.#write(number)));
  }

  /**
   * @param {string} prefix
   * @returns {Promise<number[]>} ascending
   */
  async #numbers(prefix) {
    const names = await this.#storage.names(prefix);
    return names.map((name) => Number.parseInt(name.slice(prefix.length), 36));
  }

  /** @param {number} number */
  #writeSoon(number) {
    this.#written.set(number, Date.now());
    this.#write(number);
  }

  /**
   * @param {number} number
   * @returns {Promise<void>}
   */
  #write(number) {
    clearTimeout(this.#timers.get(number));
    this.#timers.delete(number);
    // One that has not begun yet takes this change along.
    const due = this.#due.get(number);
    if (due) return due;
    const write = (this.#writes.get(number) ?? Promise.resolve()).then(async () => {
      this.#due.delete(number);
      try {
        await this.#put(number);
        this.#unkept.delete(number);
      } catch (error) {
        this.#unkept.add(number);
        this.#onTrouble(error);
      }
      if (this.#writes.get(number) === write) this.#writes.delete(number);
    });
    this.#due.set(number, write);
    this.#writes.set(number, write);
    return write;
  }

  /** @param {number} number */
  async #put(number) {
    const messages = this.#pages.get(number);
    if (this.#closed || !messages) return;
    if (!this.opened) throw unopened();
    if (messages.length) {
      await this.#storage.write(this.#name(number), messages);
    } else {
      await this.#storage.remove(this.#name(number));
    }
  }

  /** @param {number} number */
  #name(number) {
    return this.#prefix + number.toString(36).padStart(6, "0");
  }
}

/** @param {Kept[]} page */
function isFull(page) {
  return page.length >= PAGE || page.reduce((sum, { text }) => sum + text.length, 0) >= LONG;
}

function unopened() {
  return new StoreError("What was said before cannot be read, so nothing is written.");
}
