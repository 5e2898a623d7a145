/**
 * The envelope: one JSON object for each WebSocket message.
 *
 *     {"v":1,"type":"chat.send","id":"…","ts":<unix ms>,"payload":{…}}
 *
 * Only `type` is required; unknown keys are ignored.
 */

import { encodeUrl } from "./base64.js";
import { MAX_COUNTER } from "./codes.js";
import { webCrypto } from "./crypto.js";

const VERSION = 1;

/** @typedef {Record<string, any>} Payload  a JSON object */

/**
 * @typedef {object} Envelope
 * @property {string} type
 * @property {string} id        "" where there is none
 * @property {number} ts        Unix milliseconds; 0 where there is none
 * @property {Payload} payload
 * @property {number} [size]    of the message as it came, in UTF-16 units
 */

/** A message breaks the contract. The text says how, and repeats none of it. */
export class InvalidMessage extends Error {
  name = "InvalidMessage";
}

/**
 * An id for a message: 12 random bytes, 16 characters.
 * @param {Pick<import("./crypto.js").CryptoProvider, "randomBytes">} [crypto]
 */
export function newId(crypto = webCrypto) {
  return encodeUrl(crypto.randomBytes(12));
}

/**
 * @param {{type: string, id?: string, ts?: number, payload?: Payload}} message
 * @returns {string}
 */
export function encode({ type, id = newId(), ts = Date.now(), payload = {} }) {
  return JSON.stringify({ v: VERSION, type, id, ts, payload });
}

/**
 * Read a message.
 * @param {unknown} text  what a WebSocket gave; anything but a string is refused
 * @returns {Envelope}
 * @throws {InvalidMessage}
 */
export function decode(text) {
  if (typeof text !== "string") {
    throw new InvalidMessage("Not a text message");
  }
  const { type, id = "", ts = 0, payload = {}, v = VERSION } = parseObject(text);
  if (typeof type !== "string" || typeof id !== "string") {
    throw new InvalidMessage("Not a valid envelope: type and id are texts");
  }
  if (!isInteger(v) || !isInteger(ts) || Math.abs(ts) > MAX_COUNTER) {
    throw new InvalidMessage("Not a valid envelope: v and ts are integers");
  }
  if (!isObject(payload)) {
    throw new InvalidMessage("Not a valid envelope: payload is an object");
  }
  return { type, id, ts, payload, size: text.length };
}

// A byte order mark is no JSON, so it is kept for the parser to refuse.
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Read a payload, which must be a JSON object.
 * @param {Uint8Array} data
 * @returns {Payload}
 * @throws {InvalidMessage}
 */
export function decodeObject(data) {
  let text;
  try {
    text = utf8.decode(data);
  } catch {
    throw new InvalidMessage("The payload is not valid JSON");
  }
  return parseObject(text);
}

// JavaScript that cuts a text between two deltas may cut an emoji in half and write the halves as
// lone escapes. RFC 8259 (section 8.2) allows that; they become U+FFFD.
const LONE_SURROGATES = /\p{Cs}/gu;
// Arrays and objects within each other: who reads them may call himself for each level.
const DEPTH = 500;

/**
 * The object's own members may have any name, `__proto__` too; none of them is inherited.
 * @param {string} text
 * @returns {Payload}
 */
function parseObject(text) {
  let value;
  try {
    value = JSON.parse(text, text.includes("\\u") ? mended : undefined);
  } catch {
    throw new InvalidMessage("Not valid JSON");
  }
  if (!isObject(value)) {
    throw new InvalidMessage("Not a JSON object");
  }
  if (tooDeep(text, value)) {
    throw new InvalidMessage("JSON nested too deeply");
  }
  return value;
}

/** @param {string} _key @param {unknown} value */
function mended(_key, value) {
  return typeof value === "string" ? value.replace(LONE_SURROGATES, "\uFFFD") : value;
}

/** @param {string} text @param {object} value */
function tooDeep(text, value) {
  // Most messages are too short for it; the others are walked one level at a time.
  if (text.length < 2 * DEPTH) {
    return false;
  }
  let level = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth === DEPTH) {
      return true;
    }
    level = level.flatMap((each) => Object.values(each).filter((v) => v && typeof v === "object"));
  }
  return false;
}

/** @param {unknown} value @returns {value is Payload} */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @param {unknown} value @returns {value is number} */
function isInteger(value) {
  return Number.isInteger(value);
}
