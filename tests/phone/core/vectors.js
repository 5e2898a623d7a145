/** tests/vectors/*.json, which Python computes alike, and the fixed keys that they are made of. */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { webCrypto } from "../../../static/phone/core/crypto.js";

export const text = (data) => new TextDecoder().decode(data);
export const utf8 = (words) => new TextEncoder().encode(words);

/** @param {string} name */
export function vectors(name) {
  return JSON.parse(readFileSync(new URL(`../../vectors/${name}.json`, import.meta.url), "utf8"));
}

/** @param {string} digits  hexadecimal */
export function bytes(digits) {
  return Uint8Array.from(digits.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
}

/** @param {Uint8Array} data */
export function hex(data) {
  return Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Bytes as they come from anywhere, with one bit changed. */
export function flipped(data, position, bit = 1) {
  const changed = Uint8Array.from(data);
  changed[position] ^= bit;
  return changed;
}

/** Call k, from 0, for n bytes gives the first n of SHA-256 over the label, a space and k. */
export function countedBytes(label) {
  let calls = 0;
  const entropy = (length) => {
    const block = createHash("sha256").update(`${label} ${calls++}`).digest();
    if (length > block.length) {
      throw new RangeError("one block is all there is");
    }
    const drawn = Uint8Array.from(block.subarray(0, length));
    entropy.drawn.push(hex(drawn));
    return drawn;
  };
  entropy.drawn = [];
  return entropy;
}

/** The key pair of a private key: RFC 8410's PKCS#8 is a fixed head before the 32 bytes. */
export async function keyPair(privateBytes) {
  const { subtle } = globalThis.crypto;
  const pkcs8 = Uint8Array.from([...bytes("302e020100300506032b656e04220420"), ...privateBytes]);
  const usages = ["deriveKey"];
  const extractable = await subtle.importKey("pkcs8", pkcs8, "X25519", true, usages);
  const { x } = await subtle.exportKey("jwk", extractable);
  const privateKey = await subtle.importKey("pkcs8", pkcs8, "X25519", false, usages);
  return { publicKey: Uint8Array.from(Buffer.from(x, "base64url")), privateKey };
}

/** WebCrypto that draws its random bytes, ephemeral keys too, from `entropy`. */
export function drawing(entropy) {
  return {
    ...webCrypto,
    randomBytes: entropy,
    generateKeyPair: () => keyPair(entropy(32)),
  };
}

/** WebCrypto whose next ephemeral key is this one. */
export function withKey(privateBytes) {
  return { ...webCrypto, generateKeyPair: () => keyPair(privateBytes) };
}

/** Numbers from 0 up to and without 1, the same for the same seed (mulberry32). */
export function seeded(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
