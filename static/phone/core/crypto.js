/**
 * What the library needs of cryptography, and WebCrypto as the default for it. Another engine
 * (React Native) hands in a provider of its own. Every promise rejects where its work cannot be
 * done, whatever the reason.
 */

/**
 * An opaque handle on a pairing secret or a shared key. WebCrypto's is a CryptoKey of kind HKDF
 * that cannot be exported; IndexedDB takes it as it is.
 * @typedef {unknown} Secret
 */

/**
 * @typedef {object} KeyPair
 * @property {Uint8Array} publicKey  32 bytes
 * @property {unknown} privateKey    an opaque handle
 */

/**
 * @typedef {object} CryptoProvider
 * @property {(length: number) => Uint8Array} randomBytes
 * @property {(data: Uint8Array) => Promise<Uint8Array>} sha256
 * @property {(bytes: Uint8Array) => Promise<Secret>} importSecret  for `hkdf`; may be empty. The
 *   provider keeps no reference to `bytes`: the caller may overwrite them.
 * @property {() => Promise<KeyPair>} generateKeyPair  X25519
 * @property {(privateKey: any, publicKey: Uint8Array) => Promise<Secret>} agree  X25519; rejects
 *   where the result would be all zeros
 * @property {(secret: any, salt: Uint8Array, info: Uint8Array, length: number)
 *   => Promise<Uint8Array>} hkdf  RFC 5869 with SHA-256; `length` in bytes
 * @property {(key: Uint8Array) => Promise<unknown>} importKey  AES-256-GCM; like `importSecret`
 * @property {(key: any, nonce: Uint8Array, ad: Uint8Array, plaintext: Uint8Array)
 *   => Promise<Uint8Array>} seal  the ciphertext, 16 bytes of tag at its end
 * @property {(key: any, nonce: Uint8Array, ad: Uint8Array, ciphertext: Uint8Array)
 *   => Promise<Uint8Array>} open  rejects where the tag does not fit
 */

/**
 * The browser or the page cannot encrypt. `reason`: "insecure" (not https, so there is no
 * WebCrypto) or "old" (no X25519).
 */
export class CryptoUnavailable extends Error {
  name = "CryptoUnavailable";

  /** @param {"insecure" | "old"} reason */
  constructor(reason) {
    super(
      reason === "insecure"
        ? "Encryption works on https pages only. Open this page by its https address."
        : "This browser cannot make X25519 keys. Update it, or use another browser.",
    );
    this.reason = reason;
  }
}

/**
 * Whether `crypto` (an object such as `globalThis.crypto`) can do all that is needed: null, or
 * the reason why not.
 * @param {{subtle?: SubtleCrypto} | undefined} [crypto]
 * @returns {Promise<null | "insecure" | "old">}
 */
export async function supported(crypto = globalThis.crypto) {
  if (!crypto?.subtle) {
    return "insecure";
  }
  try {
    await crypto.subtle.generateKey("X25519", false, ["deriveKey"]);
    return null;
  } catch {
    return "old";
  }
}

// 65,536 bytes is what getRandomValues gives in one call; nobody asks for more.
/** @type {CryptoProvider} */
export const webCrypto = Object.freeze({
  /** @param {number} length */
  randomBytes(length) {
    return globalThis.crypto.getRandomValues(new Uint8Array(length));
  },

  /** @param {Uint8Array} data */
  async sha256(data) {
    return new Uint8Array(await subtle().digest("SHA-256", source(data)));
  },

  /** @param {Uint8Array} bytes */
  async importSecret(bytes) {
    return subtle().importKey("raw", source(bytes), "HKDF", false, ["deriveBits"]);
  },

  async generateKeyPair() {
    /** @type {CryptoKeyPair} */
    let pair;
    try {
      const made = await subtle().generateKey("X25519", false, ["deriveKey"]);
      pair = /** @type {CryptoKeyPair} */ (made);
    } catch (error) {
      throw error instanceof CryptoUnavailable ? error : new CryptoUnavailable("old");
    }
    const publicKey = new Uint8Array(await subtle().exportKey("raw", pair.publicKey));
    return { publicKey, privateKey: pair.privateKey };
  },

  /** @param {CryptoKey} privateKey @param {Uint8Array} publicKey */
  async agree(privateKey, publicKey) {
    const key = await subtle().importKey("raw", source(publicKey), "X25519", true, []);
    // WebCrypto refuses a result of zeros (W3C, "Secure Curves", section on X25519).
    const algorithm = { name: "X25519", public: key };
    return subtle().deriveKey(algorithm, privateKey, "HKDF", false, ["deriveBits"]);
  },

  /** @param {CryptoKey} secret @param {Uint8Array} salt @param {Uint8Array} info @param {number} length */
  async hkdf(secret, salt, info, length) {
    const algorithm = { name: "HKDF", hash: "SHA-256", salt: source(salt), info: source(info) };
    return new Uint8Array(await subtle().deriveBits(algorithm, secret, length * 8));
  },

  /** @param {Uint8Array} key */
  async importKey(key) {
    return subtle().importKey("raw", source(key), "AES-GCM", false, ["encrypt", "decrypt"]);
  },

  /** @param {CryptoKey} key @param {Uint8Array} nonce @param {Uint8Array} ad @param {Uint8Array} plaintext */
  async seal(key, nonce, ad, plaintext) {
    return new Uint8Array(await subtle().encrypt(gcm(nonce, ad), key, source(plaintext)));
  },

  /** @param {CryptoKey} key @param {Uint8Array} nonce @param {Uint8Array} ad @param {Uint8Array} ciphertext */
  async open(key, nonce, ad, ciphertext) {
    return new Uint8Array(await subtle().decrypt(gcm(nonce, ad), key, source(ciphertext)));
  },
});

function subtle() {
  const found = globalThis.crypto?.subtle;
  if (!found) {
    throw new CryptoUnavailable("insecure");
  }
  return found;
}

/** @param {Uint8Array} nonce @param {Uint8Array} ad */
function gcm(nonce, ad) {
  return { name: "AES-GCM", iv: source(nonce), additionalData: source(ad), tagLength: 128 };
}

/** TypeScript tells shared memory apart, which nobody hands in. @param {Uint8Array} data */
function source(data) {
  return /** @type {Uint8Array<ArrayBuffer>} */ (data);
}
