/**
 * What the phone keeps in the browser: one database of sealed records.
 *
 *     key                            the vault's key, a CryptoKey
 *     pairing:<id>                   what a pairing is; the others stand only while this one does
 *     secrets:<id>                   its secrets, CryptoKeys
 *     seen:<id>                      the ids of messages that came, and the agent's name
 *     page:<id>:<agent>:<number>     64 messages of a conversation (pages.js)
 *     draft:<id>:<agent>             what was typed and not sent
 *     picture:<id>:<picture>         (pictures.js)
 *
 * `<id>` are 16 digits of the token's hash and `<agent>` 16 of that of the agent's id, so that
 * names of records tell nothing.
 */

import { createStore, promisifyRequest } from "idb-keyval";
import { StoreError } from "../../core/errors.js";
import { newKey, Vault } from "./vault.js";

// Milliseconds. A database that another tab holds open, or a broken one, may never answer.
const PATIENCE = 10_000;

const KEY = "key";

/** The kinds of records that go when their pairing goes. */
const KINDS = ["pairing", "secrets", "seen", "page", "draft", "picture"];

/** @typedef {import("./vault.js").Sealed} Sealed */
/** @typedef {"blocked" | "full" | "damaged"} Trouble */

/** @typedef {import("../../core/memory.js").Secrets} Secrets */

const WORDS = {
  blocked:
    "This browser keeps nothing for this page. Allow it to store data, or leave private browsing.",
  full: "This browser has no more room for this page. Free some, or delete old conversations.",
  damaged: "Something that was kept cannot be read any more.",
};

/**
 * @param {Trouble} code
 * @returns {StoreError & {code: Trouble}}
 */
export function trouble(code) {
  return Object.assign(new StoreError(WORDS[code]), { code });
}

/**
 * @param {unknown} error
 * @returns {StoreError}
 */
function asTrouble(error) {
  if (error instanceof StoreError) return error;
  // So promisifyRequest reports a put that failed: its transaction has no error yet.
  if (error === null) return trouble("full");
  const name = error instanceof Error || error instanceof DOMException ? error.name : "";
  return trouble(name === "QuotaExceededError" ? "full" : "blocked");
}

export class Storage {
  #store;
  #vault;

  /**
   * @param {import("idb-keyval").UseStore} store
   * @param {Vault} vault
   */
  constructor(store, vault) {
    this.#store = store;
    this.#vault = vault;
  }

  /**
   * Opens the database, and makes its key where there is none.
   * @param {{name?: string}} [options] the database's name
   * @returns {Promise<Storage>} rejects with StoreError where the browser keeps nothing
   */
  static async open({ name = "coralmux" } = {}) {
    try {
      const fresh = await newKey();
      const store = createStore(name, "kept");
      const key = await inTime(
        store("readwrite", async (records) => {
          // In one transaction: of two tabs that open at once, one makes the key.
          const kept = await promisifyRequest(records.get(KEY));
          if (kept) return kept;
          records.put(fresh, KEY);
          await promisifyRequest(records.transaction);
          return fresh;
        }),
      );
      return new Storage(store, new Vault(key));
    } catch (error) {
      throw asTrouble(error);
    }
  }

  /**
   * Asks the browser to keep all this when it cleans up.
   * @returns {Promise<boolean>}
   */
  async persist() {
    return (await navigator.storage?.persist?.().catch(() => false)) ?? false;
  }

  /**
   * @param {string} name
   * @returns {Promise<any>} null where nothing is kept; rejects with StoreError
   */
  async read(name) {
    const bytes = await this.readBytes(name);
    return bytes && JSON.parse(new TextDecoder().decode(bytes));
  }

  /**
   * @param {string} name
   * @returns {Promise<ArrayBuffer | null>} rejects with StoreError
   */
  async readBytes(name) {
    const sealed = await this.#get(name);
    if (!sealed) return null;
    return await this.#vault.open(name, sealed).catch(() => Promise.reject(trouble("damaged")));
  }

  /**
   * Keeps a value of JSON, as long as its pairing is kept.
   * @param {string} name
   * @param {unknown} value
   * @returns {Promise<void>} rejects with StoreError
   */
  async write(name, value) {
    await this.writeBytes(name, new TextEncoder().encode(JSON.stringify(value)));
  }

  /**
   * @param {string} name
   * @param {BufferSource} bytes
   * @returns {Promise<void>} rejects with StoreError
   */
  async writeBytes(name, bytes) {
    await this.#putAll(pairingOf(name), [[name, await this.#vault.seal(name, bytes)]]);
  }

  /**
   * @param {...string} names
   * @returns {Promise<void>} rejects with StoreError
   */
  async remove(...names) {
    await this.#run("readwrite", (records) => {
      for (const name of names) records.delete(name);
      return promisifyRequest(records.transaction);
    });
  }

  /**
   * The names of all records that begin with `prefix`, in order.
   * @param {string} prefix
   * @returns {Promise<string[]>} rejects with StoreError
   */
  async names(prefix) {
    return await this.#run("readonly", async (records) => {
      const keys = await promisifyRequest(records.getAllKeys(range(prefix)));
      return /** @type {string[]} */ (keys);
    });
  }

  /**
   * The digits that stand for an agent in the names of records.
   * @param {string} id of the pairing
   * @param {string} agentId
   */
  async digits(id, agentId) {
    const named = new TextEncoder().encode(`${id}\n${agentId}`);
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", named));
    return Array.from(hash.subarray(0, 8), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /**
   * Keeps a new pairing. Nothing that is kept is touched.
   * @param {string} id
   * @param {unknown} record
   * @param {Secrets | null} secrets null in version 1
   * @returns {Promise<boolean>} false where there is such a pairing; rejects with StoreError
   */
  async create(id, record, secrets) {
    const name = `pairing:${id}`;
    const bytes = new TextEncoder().encode(JSON.stringify(record));
    const sealed = await this.#vault.seal(name, bytes);
    return await this.#run("readwrite", async (records) => {
      if (await promisifyRequest(records.getKey(name))) return false;
      records.put(sealed, name);
      if (secrets) records.put(secrets, `secrets:${id}`);
      await promisifyRequest(records.transaction);
      return true;
    });
  }

  /**
   * Deletes all that is kept of a pairing, in one transaction.
   * @param {string} id
   * @returns {Promise<void>} rejects with StoreError
   */
  async wipe(id) {
    await this.#run("readwrite", (records) => {
      for (const kind of KINDS) {
        records.delete(`${kind}:${id}`);
        records.delete(range(`${kind}:${id}:`));
      }
      return promisifyRequest(records.transaction);
    });
  }

  /**
   * The store that the library's Phone asks for, for this one pairing.
   * @param {string} id
   * @returns {import("../../core/memory.js").Store}
   */
  memory(id) {
    return {
      load: async () => {
        const [secrets, seen] = await Promise.all([
          this.#get(`secrets:${id}`),
          this.read(`seen:${id}`),
        ]);
        if (!secrets && !seen) return null;
        return { peerName: "", seen: [], linkDigest: null, ...seen, secrets: secrets ?? null };
      },
      save: async (_id, { secrets, ...rest }) => {
        const name = `seen:${id}`;
        const bytes = new TextEncoder().encode(JSON.stringify(rest));
        /** @type {[string, unknown][]} */
        const entries = [[name, await this.#vault.seal(name, bytes)]];
        if (secrets) entries.push([`secrets:${id}`, secrets]);
        await this.#putAll(id, entries);
      },
    };
  }

  /**
   * Puts records while their pairing is there: what another tab has forgotten stays forgotten.
   * @param {string} id
   * @param {[string, unknown][]} entries
   */
  async #putAll(id, entries) {
    await this.#run("readwrite", async (records) => {
      if (!(await promisifyRequest(records.getKey(`pairing:${id}`)))) return;
      for (const [name, value] of entries) records.put(value, name);
      await promisifyRequest(records.transaction);
    });
  }

  /** @param {string} name */
  async #get(name) {
    return await this.#run("readonly", (records) => promisifyRequest(records.get(name)));
  }

  /**
   * @template T
   * @param {IDBTransactionMode} mode
   * @param {(records: IDBObjectStore) => T | PromiseLike<T>} work
   * @returns {Promise<T>} rejects with StoreError
   */
  async #run(mode, work) {
    try {
      return await inTime(this.#store(mode, work));
    } catch (error) {
      throw asTrouble(error);
    }
  }
}

/** @param {string} name */
function pairingOf(name) {
  return name.split(":")[1];
}

/** @param {string} prefix */
function range(prefix) {
  return IDBKeyRange.bound(prefix, `${prefix}\uffff`);
}

/**
 * @template T
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
async function inTime(promise) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(trouble("blocked")), PATIENCE);
  });
  try {
    return await /** @type {Promise<T>} */ (Promise.race([promise, late]));
  } finally {
    clearTimeout(timer);
  }
}
