/**
 * Pairing links: how the relay's address, the token and the secret reach a phone.
 *
 *     https://<relay>/phone#token=...&psk=...        for a camera and a browser
 *     coralmux://pair?relay=...&token=...#psk=...    for programs
 *     openclaw://pair?token=...&relay=...            the field's, without a secret
 *
 * See PROTOCOL.md, "Links". A server never sees what stands behind the `#` of a link, and that
 * is the only place where the secret may stand. Everything here is strict where two readers could
 * understand a link differently (tests/vectors/links.json), and no error repeats anything of the
 * link it is about.
 */

import { hidesSomething, normaliseRelay, parseAddress, trimmed, written } from "./address.js";
import * as base64 from "./base64.js";
import { LinkError } from "./errors.js";

/** @typedef {import("./address.js").Part} Part */

const SECRET_BYTES = 32;

// Characters: twice what a page's and a relay's address, the latter tripled by percent-encoding,
// and the rest come to, so that nothing that can be made is too long to be read.
const MAX_LINK = 16_384;

const ESCAPES = /^(?:[^%]|%[0-9A-Fa-f]{2})*$/;
const TOKEN = /^[!-~]{1,256}$/;

/** @type {Part[]} */
const PARTS = ["relay", "token", "psk"];

/**
 * A relay, a token, and the secret that only the two ends may know.
 *
 * `relay`: `ws://` or `wss://` URL that ends in `/ws`. `token`: 1 to 256 printable ASCII characters
 * without a space. `secret`: 32 bytes, or null for a pairing by token alone, which speaks version
 * 1. As text, in JSON and in the console it shows the relay alone.
 */
export class PairingLink {
  #relay;
  #token;
  #secret;

  /**
   * @param {{relay: string, token: string, secret?: Uint8Array | null}} values
   * @throws {LinkError} where a value is none of these
   */
  constructor({ relay, token, secret = null }) {
    this.#relay = normaliseRelay(relay);
    if (!TOKEN.test(token)) {
      throw new LinkError(
        "The token must be 1 to 256 printable ASCII characters without spaces. Copy it again " +
          "from where the relay showed it.",
        { part: "token" },
      );
    }
    if (secret !== null && !(secret instanceof Uint8Array && secret.length === SECRET_BYTES)) {
      throw new LinkError(`The secret of a pairing is ${SECRET_BYTES} bytes.`, { part: "psk" });
    }
    this.#token = token;
    this.#secret = secret;
  }

  /**
   * Read a link of any of the three forms. White space around it is taken off, since people
   * paste. The field's form takes its relay percent-encoded or not, with `/ws` or without; a query
   * of that relay is dropped, for a relay has no use for one. Unknown fields are ignored.
   * @param {string} text
   * @param {{page?: string | {href: string} | null}} [setting]  `page`: the address of the page
   *   whose fragment the text is, where it begins with `#` (such as `location`)
   * @returns {PairingLink}
   * @throws {LinkError}
   */
  static parse(text, { page = null } = {}) {
    if (text.length > MAX_LINK) {
      throw new LinkError("The text is too long for a pairing link. Copy only the link.", {
        part: "form",
      });
    }
    let link = trimmed(text);
    if (page !== null && link.startsWith("#")) {
      link = partition(typeof page === "string" ? page : page.href, "#")[0] + link;
    }
    if (hidesSomething(link)) {
      throw new LinkError(
        "The link holds spaces, line breaks or invisible characters. Copy it again in one " +
          "piece, or scan the code.",
        { part: "form" },
      );
    }
    const scheme = partition(link, ":")[0].toLowerCase();
    const read = Object.hasOwn(FORMS, scheme) ? FORMS[scheme] : null;
    if (read !== null) {
      return new PairingLink(read(link));
    }
    throw new LinkError(
      scheme === "wss" || scheme === "ws"
        ? "This is the address of a relay, not a pairing link. Make a link on the agent's side " +
            "and paste that."
        : "A pairing link begins with https://, coralmux:// or openclaw://. Copy it whole from " +
            "the agent's side.",
      { part: "scheme" },
    );
  }

  get relay() {
    return this.#relay;
  }

  get token() {
    return this.#token;
  }

  get secret() {
    return this.#secret;
  }

  /** The relay's host with its port, as people read it. */
  get host() {
    return this.#relay.split("/")[2];
  }

  /**
   * A name for the pairing that does not tell its token: 16 hexadecimal digits.
   * @param {Pick<import("./crypto.js").CryptoProvider, "sha256">} crypto
   */
  async id(crypto) {
    const hash = await crypto.sha256(new TextEncoder().encode(this.#token));
    return Array.from(hash.slice(0, 8), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /** The same relay and token with another secret, or with none. @param {Uint8Array | null} secret */
  withSecret(secret) {
    return new PairingLink({ relay: this.#relay, token: this.#token, secret });
  }

  /** The link for a camera and a browser: it leads to the relay's own page. */
  web() {
    const own = parseAddress(this.#relay, "relay", ["wss", "ws"]);
    const page = written({ ...own, path: own.path.replace(/\/ws$/, "/phone") }, "http");
    const psk = this.#secret === null ? "" : `&psk=${base64.encodeUrl(this.#secret)}`;
    return `${page}#token=${quoted(this.#token)}${psk}`;
  }

  /** The link for programs, which no browser turns into a request. */
  uri() {
    const psk = this.#secret === null ? "" : `#psk=${base64.encodeUrl(this.#secret)}`;
    return `coralmux://pair?relay=${quoted(this.#relay)}&token=${quoted(this.#token)}${psk}`;
  }

  toString() {
    return `PairingLink(${this.#relay})`;
  }

  toJSON() {
    return { relay: this.#relay };
  }
}

/** @typedef {{relay: string, token: string, secret: Uint8Array | null}} Values */

/** @type {Record<string, (text: string) => Values>} */
const FORMS = {
  https: readWeb,
  http: readWeb,
  coralmux: readUri,
  openclaw: readField,
};

/** @param {string} text @returns {Values} */
function readWeb(text) {
  const [place, sharp, fragment] = partition(text, "#");
  const [address, , query] = partition(place, "?");
  for (const name of ["psk", "token"]) {
    if (names(query).has(name)) {
      throw exposed(name);
    }
  }
  const values = fields(fragment, sharp !== "");
  let relay = "";
  if (values.relay === undefined) {
    const page = parseAddress(address, "relay", ["https", "http"]);
    const path = page.path.replace(/\/$/, "");
    if (!path.endsWith("/phone")) {
      throw new LinkError(
        "This is not a pairing link: its address must end in /phone. Copy the link whole from " +
          "the agent's side.",
        { part: "form" },
      );
    }
    relay = written({ ...page, path: path.replace(/\/phone$/, "/ws") }, "ws");
  } else {
    parseAddress(address, "form", ["https", "http"]);
    relay = unquoted(values.relay, "relay");
  }
  return { relay, token: tokenOf(values), secret: secretOf(values) };
}

/** @param {string} text @returns {Values} */
function readUri(text) {
  const [place, sharp, fragment] = partition(text, "#");
  const query = queryOf(place);
  if (names(query).has("psk")) {
    throw exposed("psk");
  }
  const values = fields(query, true);
  return {
    relay: unquoted(relayOf(values), "relay"),
    token: tokenOf(values),
    secret: secretOf(fields(fragment, sharp !== "")),
  };
}

/** @param {string} text @returns {Values} */
function readField(text) {
  const [place, , fragment] = partition(text, "#");
  const query = queryOf(place);
  const values = fields(query, false);
  const named = relayOf(values);
  // An address in the clear may hold escapes of its own, which stay.
  const address = named.includes("://") ? named : unquoted(named, "relay");
  const [relay, , asked] = partition(address, "?");
  if (names(query).has("psk") || names(asked).has("psk")) {
    throw exposed("psk");
  }
  if (names(fragment).has("psk")) {
    throw new LinkError(
      "An openclaw:// link cannot carry the pairing's secret. Ask for the https:// or " +
        "coralmux:// link.",
      { part: "psk" },
    );
  }
  return { relay, token: tokenOf(values), secret: null };
}

/** The query of `scheme://pair?query`; only the first question mark counts. @param {string} place */
function queryOf(place) {
  const [before, mark, query] = partition(place, "?");
  if (!mark || !["//pair", "//pair/"].includes(partition(before, ":")[2].toLowerCase())) {
    throw new LinkError(
      "The link must go on with //pair? behind its first colon. Copy it whole from the " +
        "agent's side.",
      { part: "form" },
    );
  }
  return query;
}

/** @param {string} text */
function names(text) {
  return new Set(text.split("&").map((field) => partition(field, "=")[0]));
}

/**
 * The known `name=value` fields, still encoded; `whole`: nothing else may stand there.
 * @param {string} text
 * @param {boolean} whole
 * @returns {Partial<Record<Part, string>>}
 */
function fields(text, whole) {
  /** @type {Partial<Record<Part, string>>} */
  const values = {};
  for (const field of text.split("&")) {
    const [name, equals, value] = partition(field, "=");
    // A shell cuts an unquoted link at its &, and what is left must not pass for a pairing by
    // token alone.
    if (whole && !equals) {
      throw new LinkError("The link was cut off. Copy it whole; in a shell, put it in quotes.", {
        part: "form",
      });
    }
    const part = PARTS.find((known) => known === name);
    if (part !== undefined && values[part] !== undefined) {
      throw new LinkError(`The link names ${part}= twice. Make a new link.`, { part });
    }
    if (part !== undefined) {
      values[part] = value;
    }
  }
  return values;
}

/** @param {Partial<Record<Part, string>>} values */
function relayOf({ relay }) {
  if (!relay) {
    throw new LinkError("The link names no relay (relay=). Copy it whole.", { part: "relay" });
  }
  return relay;
}

/** @param {Partial<Record<Part, string>>} values */
function tokenOf({ token }) {
  if (!token) {
    throw new LinkError("The link holds no token (token=). Copy it whole.", { part: "token" });
  }
  return unquoted(token, "token");
}

/** 32 bytes in their one spelling. @param {Partial<Record<Part, string>>} values */
function secretOf({ psk }) {
  if (psk === undefined) {
    return null;
  }
  try {
    return base64.decodeUrl(psk, SECRET_BYTES);
  } catch {
    throw new LinkError(
      "The link's secret (psk=) must be 43 characters of A-Z, a-z, 0-9, - and _, without = at " +
        "the end. The link was changed or cut off: copy it whole, or make a new one.",
      { part: "psk" },
    );
  }
}

/** @param {string} name */
function exposed(name) {
  return new LinkError(
    `The link carries ${name}= in its query, which servers read and log; it belongs behind the ` +
      "#. Take it as known to others: make a new link and use that.",
    { part: name },
  );
}

/** Percent-decoded; a plus sign is a plus sign. @param {string} text @param {Part} part */
function unquoted(text, part) {
  try {
    if (ESCAPES.test(text)) {
      return decodeURIComponent(text);
    }
  } catch {
    // Escapes that are not UTF-8.
  }
  throw new LinkError(`The link's ${part}= is not percent-encoded UTF-8. Make a new link.`, {
    part,
  });
}

/** Percent-encoded but for letters, digits and -._~ (RFC 3986, section 2.3). @param {string} text */
function quoted(text) {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/**
 * What stands before the first `mark`, the mark or "", and what stands behind.
 * @param {string} text
 * @param {string} mark
 * @returns {[string, string, string]}
 */
function partition(text, mark) {
  const index = text.indexOf(mark);
  return index === -1
    ? [text, "", ""]
    : [text.slice(0, index), mark, text.slice(index + mark.length)];
}
