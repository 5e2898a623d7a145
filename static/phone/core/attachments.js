/**
 * What travels with a message: a picture or another file, and its version 1 form.
 *
 * To an agent of version 2 an attachment travels as `file.*` (files.js); to one of version 1 it
 * stands inside the message: `{"type":"image","mime_type","content_b64"}` (PROTOCOL.md, "Types").
 */

import { decode, encode } from "./base64.js";
import { MAX_FILE_BYTES, MAX_MESSAGE_BYTES } from "./codes.js";
import { AttachmentError } from "./errors.js";

/**
 * A file that is here as a whole. `name` is a bare file name that is safe to show and to write;
 * `type` is lower case without parameters, and where it says `image/…` the bytes have been looked
 * at.
 * @typedef {{name: string, type: string, size: number, data: Uint8Array<ArrayBuffer>}} Whole
 */

/**
 * A file that is only named, by an http(s) URL. Nothing here ever fetches it. `name` is "" where the
 * agent gave none.
 * @typedef {{name: string, type: string, url: string}} Remote
 */

// Bytes (UTF-8) of a name. File systems take 255; the rest is room for a suffix such as " (2)".
const MAX_NAME_BYTES = 200;

// Longer types do not exist (RFC 6838, section 4.2, bounds each half at 127).
const TYPE = /^[a-z0-9][a-z0-9!#$&^_.+-]{0,126}\/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}$/;

const UNKNOWN = "application/octet-stream";

// Other schemes (javascript:, file:) would do harm as soon as somebody shows a link.
const URL_FORM = /^https?:\/\/[^\s\p{Cc}]{1,8000}$/iu;

/** @type {Record<string, string>} other names of the same formats, as programs write them */
const ALIASES = {
  "image/jpg": "image/jpeg",
  "image/pjpeg": "image/jpeg",
  "image/x-png": "image/png",
  "image/x-bmp": "image/bmp",
  "image/x-ms-bmp": "image/bmp",
  "image/heif": "image/heic",
  "image/heic-sequence": "image/heic",
  "image/heif-sequence": "image/heic",
  "image/avif-sequence": "image/avif",
};

const utf8 = new TextEncoder();

/**
 * Look at a file before it goes out, or after it came. Without a type it is found by the bytes.
 * Throws AttachmentError for a picture that is none.
 * @param {Uint8Array} data
 * @param {string} type
 * @param {string} name
 * @returns {Whole}
 */
export function checked(data, type, name) {
  const found = sniff(data);
  const told = checkedType(type || found || UNKNOWN);
  if (told.startsWith("image/") && found !== told) throw notThatPicture(told, found);
  const bytes = /** @type {Uint8Array<ArrayBuffer>} */ (data);
  return { name: safeName(name), type: told, size: data.length, data: bytes };
}

/**
 * The bytes of a file to send, looked at. Rejects with AttachmentError.
 * @param {import("./phone.js").Attachment} attachment
 * @returns {Promise<Whole>}
 */
export async function opened({ name, type, data }) {
  const size = data instanceof Uint8Array ? data.length : data.size;
  if (size > MAX_FILE_BYTES) {
    throw new AttachmentError(
      `The file is too large: at most ${megabytes(MAX_FILE_BYTES)} are sent. Send a smaller one.`,
      { code: "TOO_LARGE" },
    );
  }
  return checked(
    data instanceof Uint8Array ? data : new Uint8Array(await data.arrayBuffer()),
    type,
    name,
  );
}

/** @param {{type: string}} attachment */
export function isPicture({ type }) {
  return type.startsWith("image/");
}

/**
 * The version 1 form. Throws AttachmentError for anything but a picture.
 * @param {Whole} attachment
 */
export function toInline(attachment) {
  if (!isPicture(attachment)) {
    throw new AttachmentError(
      "The agent speaks version 1, which carries pictures only. Pair by link for version 2, " +
        "which carries any file.",
      { code: "PICTURES_ONLY" },
    );
  }
  return { type: "image", mime_type: attachment.type, content_b64: encode(attachment.data) };
}

/**
 * Read an entry of `attachments` with `content_b64` or `url`. Throws AttachmentError.
 *
 * A picture under the name of another picture format is taken for what it is: programs in the
 * field write image/jpeg beside everything. What is no picture is refused.
 * @param {Record<string, unknown>} item
 * @returns {Whole | Remote}
 */
export function fromInline({ type: kind, mime_type, content_b64: content, url, name }) {
  const shown = typeof name === "string" ? name : "";
  let type = typeof mime_type === "string" ? mime_type : "";
  if ((content === undefined || content === null) && typeof url === "string") {
    if (!URL_FORM.test(url)) {
      throw new AttachmentError("The attachment's url does not begin with http:// or https://.");
    }
    return { name: shown && safeName(shown), type: checkedType(type || UNKNOWN), url };
  }
  if (typeof content !== "string") {
    throw new AttachmentError("The attachment has neither content_b64 nor url, as texts.");
  }
  if (content.length > base64Size(MAX_FILE_BYTES)) {
    throw new AttachmentError(
      `The attachment is too large: at most ${megabytes(MAX_FILE_BYTES)} are taken.`,
      { code: "TOO_LARGE" },
    );
  }
  let data;
  try {
    data = decode(content);
  } catch {
    throw new AttachmentError("The attachment's content_b64 is not base64.");
  }
  const found = sniff(data);
  const picture = found?.startsWith("image/") === true;
  if (kind === "image" && !picture) throw notThatPicture(type || "image", found);
  if (picture && (!type || type.toLowerCase().startsWith("image/"))) type = found;
  return checked(data, type, shown);
}

// What the bytes say

/**
 * The type that the first bytes tell of, or null; pictures and PDF are known.
 * @param {Uint8Array} data
 * @returns {string | null}
 */
export function sniff(data) {
  /**
   * @param {number} at
   * @param {string} text of Latin-1 characters
   */
  const has = (at, text) =>
    Array.from(text).every((character, index) => data[at + index] === character.charCodeAt(0));
  if (has(0, "\x89PNG\r\n\x1a\n")) return "image/png";
  if (has(0, "\xff\xd8\xff")) return "image/jpeg";
  if (has(0, "GIF87a") || has(0, "GIF89a")) return "image/gif";
  if (has(0, "RIFF") && has(8, "WEBP")) return "image/webp";
  // "BM" alone begins many a text: the reserved bytes and the length of the second header are
  // looked at as well.
  if (has(0, "BM") && has(6, "\0\0\0\0") && has(15, "\0\0\0")) {
    return [12, 40, 52, 56, 64, 108, 124].includes(data[14]) ? "image/bmp" : null;
  }
  if (has(0, "II*\0") || has(0, "MM\0*")) return "image/tiff";
  if (has(4, "ftyp")) return ofBrands(data);
  if (has(0, "%PDF-")) return "application/pdf";
  return null;
}

const AVIF = ["avif", "avis"];
const HEIC = ["heic", "heix", "heim", "heis"];

/**
 * ISO/IEC 14496-12: the box `ftyp` lists what a file can be read as; videos have it too.
 * @param {Uint8Array} data
 */
function ofBrands(data) {
  const told = new DataView(data.buffer, data.byteOffset, 4).getUint32(0);
  const end = Math.min(told, 256, data.length);
  /** @param {number} at */
  const brand = (at) => String.fromCharCode(...data.subarray(at, at + 4));
  const brands = [brand(8)];
  for (let at = 16; at + 4 <= end; at += 4) brands.push(brand(at));
  if (![...AVIF, ...HEIC, "mif1", "msf1"].includes(brands[0])) return null;
  const known = brands.find((each) => AVIF.includes(each) || HEIC.includes(each));
  return known !== undefined && AVIF.includes(known) ? "image/avif" : "image/heic";
}

/** @param {string} text */
function checkedType(text) {
  const type = text.split(";")[0].trim().toLowerCase();
  if (!TYPE.test(type)) throw new AttachmentError("The type must look like image/png.");
  return ALIASES[type] ?? type;
}

/**
 * @param {string} type
 * @param {string | null} found
 */
function notThatPicture(type, found) {
  const told = TYPE.test(type) ? type : "a picture";
  const what = found
    ? `its bytes are ${found}`
    : "its bytes are not those of a picture that is known";
  return new AttachmentError(
    `The attachment is said to be ${told}, but ${what}. Send it as PNG, JPEG, GIF, WebP, BMP, ` +
      "TIFF, AVIF or HEIC under its own type.",
    { code: "NOT_A_PICTURE" },
  );
}

// Names

// Marks that turn the reading direction: "exe.gpj" is shown as "jpg.exe" behind one. Control
// characters, halves of characters, line and paragraph separators.
const UNSHOWN = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\p{Cc}\p{Cs}\p{Zl}\p{Zp}]/gu;

/**
 * A bare file name: what stands behind the last slash, fit to be shown and written.
 *
 * Control characters and marks that turn the reading direction are taken out, a colon becomes "_"
 * (on Windows it names a drive or a stream), and at most 200 bytes are kept, the extension among
 * them. Where nothing is left, "file".
 * @param {string} name
 */
export function safeName(name) {
  // An agent may name a file with megabytes; no more is looked at than can matter.
  const shown = name.slice(-4096).replace(UNSHOWN, "");
  const last =
    shown
      .replace(/[/\\ ]+$/, "")
      .split(/[/\\]/)
      .at(-1) ?? "";
  // A dot or space at the end is dropped by Windows, and "." and ".." are no files.
  return (
    shortened(
      last
        .replaceAll(":", "_")
        .trim()
        .replace(/[. ]+$/, ""),
    ) || "file"
  );
}

/** @param {string} name */
function shortened(name) {
  if (utf8.encode(name).length <= MAX_NAME_BYTES) return name;
  const dot = name.lastIndexOf(".");
  const tail = dot > 0 && utf8.encode(name.slice(dot)).length <= 20 ? name.slice(dot) : "";
  const room = MAX_NAME_BYTES - tail.length * 3;
  let stem = "";
  let bytes = 0;
  for (const character of name.slice(0, tail ? dot : undefined)) {
    bytes += utf8.encode(character).length;
    if (bytes > room) break;
    stem += character;
  }
  return stem.trimEnd() + tail;
}

// The size of a version 1 message

// AES-GCM's tag behind the ciphertext.
const TAG_BYTES = 16;

// The envelope around the ciphertext, with room for a long id, type and time.
const ENVELOPE_BYTES = 256;

/** @param {number} size */
function base64Size(size) {
  return Math.ceil(size / 3) * 4;
}

/**
 * Bytes that pictures may have together in one version 1 message, beside a short text. They are
 * base64 inside encryption inside base64: 9/16 of the message.
 * @param {number} [maxMessageBytes]
 */
export function maxInlineBytes(maxMessageBytes = MAX_MESSAGE_BYTES) {
  const plaintext = Math.floor((maxMessageBytes - ENVELOPE_BYTES) / 4) * 3 - TAG_BYTES;
  return Math.max(0, Math.floor((plaintext - 1024) / 4) * 3);
}

/**
 * Throw AttachmentError if a payload of so many bytes of JSON is too large for version 1.
 * @param {number} payloadBytes
 * @param {number} maxMessageBytes what the relay announces in `auth.ok`
 */
export function checkInline(payloadBytes, maxMessageBytes) {
  const size = ENVELOPE_BYTES + base64Size(payloadBytes + TAG_BYTES);
  if (size <= maxMessageBytes) return;
  throw new AttachmentError(
    `Encrypted for an agent of version 1, this message has ${megabytes(size)}, and the relay ` +
      `takes ${megabytes(maxMessageBytes)}. Pictures may have about ` +
      `${megabytes(maxInlineBytes(maxMessageBytes))} together: scale them down, or pair by link ` +
      "for version 2, which sends files in parts.",
    { code: "TOO_LARGE_INLINE" },
  );
}

/**
 * A number of bytes for people: 5242880 is "5.2 MB".
 * @param {number} size
 */
export function megabytes(size) {
  if (size >= 1_000_000) return `${(size / 1_000_000).toFixed(1)} MB`;
  return size >= 1000 ? `${Math.round(size / 1000)} kB` : `${size} bytes`;
}
