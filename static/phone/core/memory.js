/** What the phone remembers of a pairing: its secrets, and which ids it has seen. */

import { SEEN_IDS } from "./codes.js";
import { CoralmuxError, StoreError } from "./errors.js";
import { hexadecimal } from "./inbox.js";

/**
 * `link`: `current` is still the one that stands in the link. `next` is the older secret, kept
 * until the agent is known to have taken the new one.
 * @typedef {{current: import("./crypto.js").Secret, next: import("./crypto.js").Secret | null,
 *   link: boolean}} Secrets
 */

/**
 * What is kept of one pairing. Secrets are the handles of the crypto provider; WebCrypto's go
 * into IndexedDB as they are, and into nothing else.
 * @typedef {object} PairingState
 * @property {Secrets | null} secrets null for a pairing by token alone
 * @property {string} peerName as the agent called itself last
 * @property {string[]} seen ids of the last 1,024 messages that came, oldest first
 * @property {string | null} linkDigest SHA-256 of the link's secret that all this began with, in
 *   hexadecimal digits; null where there was none
 */

/**
 * Where a phone keeps its pairings. `id` is that of `PairingLink.id`, which tells no token. What
 * was saved must outlive the page once the promise of `save` has settled.
 * @typedef {object} Store
 * @property {(id: string) => Promise<PairingState | null>} load
 * @property {(id: string, state: PairingState) => Promise<void>} save
 */

// Milliseconds until ids that were seen are written down.
const SAVE_MS = 1000;

// Messages that nobody sends again, so their ids need not be remembered.
const STREAMED = new Set([
  "chat.stream",
  "chat.done",
  "chat.tool_status",
  "chat.error",
  "file.chunk",
  "file.ack",
]);

/**
 * A store that ends with the program: for tests, and for what must leave no trace.
 * @implements {Store}
 */
export class MemoryStore {
  /** @type {Map<string, PairingState>} */
  #states = new Map();

  /** @param {string} id */
  async load(id) {
    const state = this.#states.get(id);
    return state ? { ...state, seen: [...state.seen] } : null;
  }

  /**
   * @param {string} id
   * @param {PairingState} state
   */
  async save(id, state) {
    this.#states.set(id, { ...state, seen: [...state.seen] });
  }
}

/** The state of a pairing, written to a store where there is one. */
export class Memory {
  #store;
  #id = "";
  /** @type {PairingState} */
  #state = { secrets: null, peerName: "", seen: [], linkDigest: null };
  /** @type {Set<string>} */
  #seen = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #saving;

  /** @param {Store} [store] */
  constructor(store) {
    this.#store = store;
  }

  /**
   * What to go on with for this link. Rejects with StoreError.
   *
   * The same link again: what was kept wins, for the link's own secret is used up. Another link
   * for the same token: a new pairing, which starts afresh, and is kept no sooner than its secret
   * has opened a handshake. A link without a secret: what was kept wins, since a phone that holds
   * a secret never falls back to version 1.
   * @param {import("./link.js").PairingLink} link
   * @param {import("./crypto.js").CryptoProvider} crypto
   */
  async load(link, crypto) {
    this.#id = await link.id(crypto);
    const kept = (await this.#guarded((store) => store.load(this.#id), "read")) ?? null;
    if (link.secret !== null) {
      const linkDigest = hexadecimal(await crypto.sha256(link.secret));
      if (kept?.secrets && (kept.linkDigest ?? null) === linkDigest) {
        this.#state = kept;
      } else {
        const current = await crypto.importSecret(link.secret);
        const secrets = { current, next: null, link: true };
        this.#state = { secrets, peerName: "", seen: [], linkDigest };
      }
    } else if (kept) {
      this.#state = kept;
    }
    this.#seen = new Set(this.#state.seen);
  }

  /** null for a pairing by token alone. */
  get secrets() {
    return this.#state.secrets;
  }

  /** @param {string} name what the agent calls itself */
  set peerName(name) {
    this.#state.peerName = name;
  }

  /**
   * Write new secrets down. Settles when they are; rejects with StoreError.
   * @param {Secrets} secrets
   */
  async keep(secrets) {
    this.#state.secrets = secrets;
    await this.#save();
  }

  /**
   * Whether this message came before; it has from now on.
   * @param {{type: string, id: string}} message
   */
  cameBefore({ type, id }) {
    return !STREAMED.has(type) && this.hasSeen(id);
  }

  /**
   * Whether this id came before; it has from now on.
   * @param {string} id
   */
  hasSeen(id) {
    if (this.#seen.has(id)) return true;
    this.#seen.add(id);
    for (const oldest of this.#seen) {
      if (this.#seen.size <= SEEN_IDS) break;
      this.#seen.delete(oldest);
    }
    if (this.#store) this.#saving ??= setTimeout(() => this.#saveSeen(), SAVE_MS);
    return false;
  }

  /** Write down what waits to be. */
  async close() {
    if (this.#saving !== undefined) await this.#saveSeen();
  }

  async #saveSeen() {
    try {
      await this.#save();
    } catch {
      // No reason to end a conversation: the ids are written with the next ones.
    }
  }

  async #save() {
    clearTimeout(this.#saving);
    this.#saving = undefined;
    this.#state.seen = [...this.#seen];
    const state = { ...this.#state };
    await this.#guarded((store) => store.save(this.#id, state), "written");
  }

  /**
   * @template T
   * @param {(store: Store) => Promise<T>} work
   * @param {string} what
   * @returns {Promise<T | undefined>}
   */
  async #guarded(work, what) {
    if (!this.#store) return undefined;
    try {
      return await work(this.#store);
    } catch (error) {
      if (error instanceof CoralmuxError) throw error;
      throw new StoreError(`What is kept of this pairing could not be ${what}. Free some space.`);
    }
  }
}
