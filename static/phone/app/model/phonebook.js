/** All pairings of this browser. */

import { webCrypto } from "../../core/crypto.js";
import { CoralmuxError, StoreError } from "../../core/errors.js";
import { PairingLink } from "../../core/link.js";
import { Pairing } from "./pairing.js";
import { newRecord, recordFrom } from "./record.js";

/** @typedef {import("./record.js").PairingRecord} PairingRecord */

/** There is a pairing with this token, and nothing of it was changed. */
export class AlreadyPaired extends CoralmuxError {
  name = "AlreadyPaired";

  /** @param {string} id of the pairing */
  constructor(id) {
    super("This agent is paired with this browser already. Open it, or forget it first.");
    this.id = id;
  }
}

/**
 * What a link names, before anybody has agreed to it. `known` is the pairing that has its token.
 * `elsewhere` is the address, the link's secrets included, of the phone of the link's own relay,
 * where this page may not reach that.
 * @typedef {{link: PairingLink, known: Pairing | null, elsewhere: string | null}} Reading
 */

/** Its event: "change" (pairings came or went, or anything of one of them changed). */
export class Phonebook extends EventTarget {
  /** @type {Map<string, Pairing>} */
  #pairings = new Map();
  /** @type {Set<string>} ids of those that cannot be read */
  #damaged = new Set();
  #page;
  #anywhere;
  #means;
  /** One after the other, or a pairing might come twice. */
  #reloading = Promise.resolve();
  /** Tells the other tabs of pairings that come and go. */
  #tabs = new BroadcastChannel("coralmux");

  /**
   * @param {object} options
   * @param {import("../storage/database.js").Storage} options.storage
   * @param {{origin: string, href: string}} options.page its location
   * @param {import("../../core/crypto.js").CryptoProvider} [options.crypto]
   * @param {typeof globalThis.WebSocket} [options.WebSocket]
   * @param {LockManager} [options.locks] navigator.locks; without them tabs are not told apart
   * @param {boolean} [options.anywhere] the page may reach any relay
   * @param {() => string} [options.unnamed] what an agent is called that has not said its name
   */
  constructor({
    storage,
    page,
    crypto = webCrypto,
    WebSocket = globalThis.WebSocket,
    locks,
    anywhere = false,
    unnamed = () => "Agent",
  }) {
    super();
    this.#page = page;
    this.#anywhere = anywhere;
    this.#means = {
      storage,
      crypto,
      WebSocket,
      locks,
      unnamed,
      onKept: () => this.#tabs.postMessage("changed"),
      onForgotten: (/** @type {Pairing} */ pairing) => {
        this.#drop(pairing.id);
        this.#tabs.postMessage("changed");
      },
    };
    this.#tabs.onmessage = () => {
      this.#reloading = this.#reloading.then(() => this.#reload());
    };
  }

  /** The one with the newest message first. */
  get pairings() {
    const at = (/** @type {Pairing} */ { lastMessage, addedAt }) => lastMessage?.at ?? addedAt;
    return [...this.#pairings.values()].sort((one, other) => at(other) - at(one));
  }

  /** The ids of pairings that are kept and cannot be read any more. */
  get damaged() {
    return [...this.#damaged];
  }

  /**
   * Deletes what is left of a pairing that cannot be read.
   * @param {string} id
   * @returns {Promise<void>} rejects with StoreError
   */
  async forgetDamaged(id) {
    await this.#means.storage.wipe(id);
    this.#damaged.delete(id);
    this.#tell();
    this.#tabs.postMessage("changed");
  }

  /**
   * @param {string} id
   * @returns {Pairing | null}
   */
  get(id) {
    return this.#pairings.get(id) ?? null;
  }

  /**
   * Reads which pairings there are; connects none.
   * @returns {Promise<void>} rejects with StoreError
   */
  async load() {
    const { storage } = this.#means;
    const names = await storage.names("pairing:");
    const ids = names.map((name) => name.slice("pairing:".length));
    for (const id of this.#pairings.keys()) {
      if (!ids.includes(id)) this.#drop(id);
    }
    for (const id of ids) {
      if (this.#pairings.has(id)) continue;
      try {
        const record = await storage.read(`pairing:${id}`);
        if (record && !this.#pairings.has(id)) this.#put(id, recordFrom(record));
      } catch (error) {
        if (!(error instanceof StoreError && "code" in error && error.code === "damaged"))
          throw error;
        this.#damaged.add(id);
      }
    }
    for (const id of this.#damaged) {
      if (!ids.includes(id)) this.#damaged.delete(id);
    }
  }

  /** Another tab has added a pairing, which it serves, or forgotten one, or something was said. */
  async #reload() {
    const before = new Set(this.#pairings.values());
    await this.load().catch(() => {});
    for (const pairing of this.#pairings.values()) {
      if (before.has(pairing)) pairing.refresh();
      else pairing.leave();
    }
  }

  /** Connects all pairings, which takes them from other tabs. */
  connect() {
    for (const pairing of this.#pairings.values()) pairing.connect();
  }

  /** The page can be seen again, or the network is back: all connections come back at once. */
  awake() {
    for (const pairing of this.#pairings.values()) pairing.awake();
  }

  /** The page is left, maybe for good: writes what waits to be. */
  async flush() {
    await Promise.all([...this.#pairings.values()].map((pairing) => pairing.flush()));
  }

  /**
   * Reads a link and tells what it names; connects nothing, keeps nothing. Throws LinkError.
   * @param {string} text
   * @returns {Reading}
   */
  read(text) {
    const link = PairingLink.parse(text, { page: this.#page });
    const known = [...this.#pairings.values()].find(({ token }) => token === link.token) ?? null;
    const { protocol, host } = new URL(link.relay);
    const origin = `${protocol.replace("ws", "http")}//${host}`;
    const near = this.#anywhere || origin === this.#page.origin;
    return { link, known, elsewhere: near ? null : link.web() };
  }

  /**
   * Keeps a pairing that the user has agreed to, and connects it.
   * @param {PairingLink} link
   * @param {{name?: string}} [options] the user's name for it
   * @returns {Promise<Pairing>} rejects with AlreadyPaired, which leaves the stored secret as it
   *   is, or with StoreError
   */
  async add(link, { name = "" } = {}) {
    const { crypto, storage } = this.#means;
    const id = await link.id(crypto);
    const record = newRecord(link, name.trim());
    const secrets = link.secret && {
      current: await crypto.importSecret(link.secret),
      next: null,
      link: true,
    };
    if (!(await storage.create(id, record, secrets))) throw new AlreadyPaired(id);
    storage.persist();
    const pairing = this.#put(id, record);
    this.#tabs.postMessage("changed");
    pairing.connect();
    return pairing;
  }

  /**
   * @param {string} id
   * @param {PairingRecord} record
   */
  #put(id, record) {
    const pairing = new Pairing(id, record, this.#means);
    this.#pairings.set(id, pairing);
    pairing.addEventListener("change", this.#tell);
    this.#tell();
    return pairing;
  }

  /** @param {string} id */
  #drop(id) {
    const pairing = this.#pairings.get(id);
    this.#pairings.delete(id);
    pairing?.removeEventListener("change", this.#tell);
    pairing?.close();
    this.#tell();
  }

  #tell = () => {
    this.dispatchEvent(new CustomEvent("change"));
  };
}
