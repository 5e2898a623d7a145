/**
 * Seals what is kept: AES-256-GCM under a key that the browser never hands out.
 *
 * Whoever copies the browser's files gets bytes that say nothing without that browser's own key
 * store. The name of a record is authenticated with it, so that none can be put in another's place.
 */

const IV_BYTES = 12;

/**
 * A record at rest.
 * @typedef {object} Sealed
 * @property {Uint8Array<ArrayBuffer>} iv
 * @property {ArrayBuffer} data the ciphertext, with its tag of 16 bytes at the end
 */

/**
 * A new key, which can be kept in IndexedDB and never be read.
 * @returns {Promise<CryptoKey>}
 */
export function newKey() {
  return crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
}

export class Vault {
  #key;

  /** @param {CryptoKey} key */
  constructor(key) {
    this.#key = key;
  }

  /**
   * @param {string} name of the record
   * @param {BufferSource} bytes
   * @returns {Promise<Sealed>}
   */
  async seal(name, bytes) {
    const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES));
    return { iv, data: await crypto.subtle.encrypt(this.#parameters(name, iv), this.#key, bytes) };
  }

  /**
   * @param {string} name
   * @param {Sealed} sealed
   * @returns {Promise<ArrayBuffer>} rejects where the record is not what was sealed under this name
   */
  async open(name, { iv, data }) {
    return await crypto.subtle.decrypt(this.#parameters(name, iv), this.#key, data);
  }

  /**
   * @param {string} name
   * @param {Uint8Array<ArrayBuffer>} iv
   */
  #parameters(name, iv) {
    return { name: "AES-GCM", iv, additionalData: new TextEncoder().encode(name) };
  }
}
