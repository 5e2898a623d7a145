/** A CryptoProvider as an app would write it that has no WebCrypto: on node:crypto, keys as bytes. */

import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  hkdfSync,
  randomBytes,
} from "node:crypto";

const TAG = 16;
// What stands before the 32 bytes of a public key in SPKI (RFC 8410, section 4).
const SPKI = Buffer.from("302a300506032b656e032100", "hex");

/** @type {import("../../../static/phone/core/crypto.js").CryptoProvider} */
export const nativeCrypto = {
  randomBytes: (length) => new Uint8Array(randomBytes(length)),
  sha256: async (data) => new Uint8Array(createHash("sha256").update(data).digest()),
  importSecret: async (bytes) => Buffer.from(bytes),
  async generateKeyPair() {
    const { publicKey, privateKey } = generateKeyPairSync("x25519");
    const spki = publicKey.export({ type: "spki", format: "der" });
    return { publicKey: new Uint8Array(spki.subarray(SPKI.length)), privateKey };
  },
  async agree(privateKey, raw) {
    const key = Buffer.concat([SPKI, raw]);
    const publicKey = createPublicKey({ key, format: "der", type: "spki" });
    const shared = diffieHellman({ privateKey, publicKey });
    if (shared.every((byte) => byte === 0)) throw new Error("no shared secret");
    return shared;
  },
  hkdf: async (secret, salt, info, length) =>
    new Uint8Array(hkdfSync("sha256", secret, salt, info, length)),
  importKey: async (key) => Buffer.from(key),
  async seal(key, nonce, ad, plaintext) {
    const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(ad);
    const sealed = [cipher.update(plaintext), cipher.final(), cipher.getAuthTag()];
    return new Uint8Array(Buffer.concat(sealed));
  },
  async open(key, nonce, ad, ciphertext) {
    const decipher = createDecipheriv("aes-256-gcm", key, nonce).setAAD(ad);
    decipher.setAuthTag(ciphertext.subarray(-TAG));
    const opened = [decipher.update(ciphertext.subarray(0, -TAG)), decipher.final()];
    return new Uint8Array(Buffer.concat(opened));
  },
};
