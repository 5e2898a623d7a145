/**
 * Base64 as RFC 4648 writes it, and no other way: `decode` takes the padded alphabet of section 4
 * (ciphertexts, files), `decodeUrl` the unpadded one of section 5 (ids, secrets, links). White
 * space, missing padding and bits left over are refused, so that one value has one spelling.
 */

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const STANDARD = alphabet(`${LETTERS}+/`);
const URL_SAFE = alphabet(`${LETTERS}-_`);
const EQUALS = 0x3d;

/**
 * @typedef {object} Alphabet
 * @property {Uint8Array} codes   the character of each value
 * @property {Uint8Array} values  the value of each character below 128, or 255
 */

/** @param {string} letters @returns {Alphabet} */
function alphabet(letters) {
  const codes = new TextEncoder().encode(letters);
  const values = new Uint8Array(128).fill(255);
  codes.forEach((code, value) => {
    values[code] = value;
  });
  return { codes, values };
}

/**
 * @param {Uint8Array} data
 * @returns {string}
 */
export function encode(data) {
  return written(data, STANDARD, true);
}

/**
 * @param {string} text
 * @returns {Uint8Array<ArrayBuffer>}
 * @throws {SyntaxError} for anything that `encode` does not write
 */
export function decode(text) {
  if (text.length % 4 !== 0) {
    throw new SyntaxError("not base64");
  }
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  return read(text, text.length - padding, STANDARD);
}

/**
 * @param {Uint8Array} data
 * @returns {string}
 */
export function encodeUrl(data) {
  return written(data, URL_SAFE, false);
}

/**
 * @param {string} text
 * @param {number} [length]  of the data in bytes, where only one is right
 * @returns {Uint8Array<ArrayBuffer>}
 * @throws {SyntaxError} for anything that `encodeUrl` does not write
 */
export function decodeUrl(text, length) {
  const data = read(text, text.length, URL_SAFE);
  if (length !== undefined && data.length !== length) {
    throw new SyntaxError(`not ${length} bytes in base64url`);
  }
  return data;
}

/** @param {Uint8Array} data @param {Alphabet} alphabet @param {boolean} padded */
function written(data, { codes }, padded) {
  const length = Math.ceil((data.length * 4) / 3);
  const text = new Uint8Array(padded ? Math.ceil(length / 4) * 4 : length).fill(EQUALS);
  let position = 0;
  let bits = 0;
  let held = 0;
  for (const byte of data) {
    held = ((held & 0x3f) << 8) | byte;
    for (bits += 8; bits >= 6; ) {
      bits -= 6;
      text[position++] = codes[(held >> bits) & 0x3f];
    }
  }
  if (bits > 0) {
    text[position] = codes[(held << (6 - bits)) & 0x3f];
  }
  return new TextDecoder().decode(text);
}

/** @param {string} text @param {number} length  characters @param {Alphabet} alphabet */
function read(text, length, { values }) {
  const data = new Uint8Array(Math.floor((length * 3) / 4));
  let position = 0;
  let bits = 0;
  let held = 0;
  for (let index = 0; index < length; index++) {
    const value = values[text.charCodeAt(index)] ?? 255;
    if (value === 255) {
      throw new SyntaxError("not base64");
    }
    held = ((held & 0x3f) << 6) | value;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      data[position++] = (held >> bits) & 0xff;
    }
  }
  // A single character is no byte, and the bits behind the last byte are zero.
  if (length % 4 === 1 || held & ((1 << bits) - 1)) {
    throw new SyntaxError("not base64");
  }
  return data;
}
