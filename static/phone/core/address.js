/**
 * The address of a relay: many spellings in, one out.
 *
 * Strict where two programs could read an address differently (Python's and the browser's idea
 * of a URL differ in many corners): a link must lead every reader to the same host, and that the
 * host that a person sees.
 */

import { LinkError } from "./errors.js";

/** Characters of an address. */
const MAX_RELAY = 2048;

// What people paste along with a link.
const AROUND = " \\t\\r\\n\\f\\v\\u00a0\\ufeff";
const AROUND_BEFORE = new RegExp(`^[${AROUND}]+`);
const AROUND_BEHIND = new RegExp(`[${AROUND}]$`);

// Spaces, controls, and what turns or hides the text next to it (bidi, zero width).
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Z}]/u;

// Characters of a host name (RFC 1035, section 2.3.4, less the length bytes of both ends).
const HOST = 253;

const URL_PARTS = /^([A-Za-z][A-Za-z0-9+.-]*):\/\/([^/?#]*)([^?#]*)/;
const LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;
const NUMBER = /^(?:[0-9]+|0x[0-9a-f]*)$/;
const AUTHORITY = /^(\[[^[\]]*\]|[^:[\]]*)(?::(.*))?$/s;
const PORT = /^[0-9]{1,5}$/;
const PATH = /^(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*$/;

// Characters that the two standards for names (IDNA 2003 and 2008) spell differently, so that
// two programs would dial two hosts.
const DISPUTED = /[ßςẞ\u200c\u200d]/;
// What may stand in a name between characters that are not ASCII.
const ODD_ASCII = /[^A-Za-z0-9_\u0080-\u{10ffff}-]/u;

/** What is wrong with a link: its scheme, its layout as a whole (`form`), or one of its values. */
/** @typedef {"scheme" | "form" | "relay" | "token" | "psk"} Part */

/** Part `form` stands for the address of a page. @typedef {"relay" | "form"} Whose */

/**
 * A URL taken apart. `port` is "" for the default one; `path` is "" or begins with /.
 * @typedef {{secure: boolean, host: string, port: string, path: string}} Address
 */

/**
 * Without the white space around it.
 * @param {string} text
 */
export function trimmed(text) {
  let end = text.length;
  while (end > 0 && AROUND_BEHIND.test(text[end - 1])) {
    end -= 1;
  }
  return text.slice(0, end).replace(AROUND_BEFORE, "");
}

/**
 * Whether the text holds what people cannot see, or makes them see something else.
 * @param {string} text
 */
export function hidesSomething(text) {
  return UNSEEN.test(text);
}

/**
 * The one spelling of a relay's address: `ws://` or `wss://`, host, path, `/ws`. Takes http and
 * https too, with `/ws` or without. The host comes out in lower case, an international name in its
 * `xn--` spelling, a default port not at all.
 * @param {string} text
 * @returns {string}
 * @throws {LinkError} `relay`, for user names, queries, and whatever two readers could understand
 *   differently
 */
export function normaliseRelay(text) {
  const address = parseAddress(trimmed(text), "relay", ["wss", "ws", "https", "http"]);
  const path = address.path.replace(/\/$/, "");
  const relay = written({ ...address, path: path.endsWith("/ws") ? path : `${path}/ws` }, "ws");
  // An address that grew beyond the limit could not be read back.
  if (relay.length > MAX_RELAY) {
    throw tooLong("relay");
  }
  return relay;
}

/**
 * An address as text again, with `scheme` or its secure sister.
 * @param {Address} address
 * @param {"ws" | "http"} scheme
 */
export function written({ secure, host, port, path }, scheme) {
  return `${scheme}${secure ? "s" : ""}://${host}${port && `:${port}`}${path}`;
}

/**
 * Take an absolute URL without user, query or fragment apart.
 * @param {string} text
 * @param {Whose} part
 * @param {string[]} schemes
 * @returns {Address}
 * @throws {LinkError} with `part`
 */
export function parseAddress(text, part, schemes) {
  const what = `The ${whose(part)} address`;
  if (text.length > MAX_RELAY) {
    throw tooLong(part);
  }
  const match = URL_PARTS.exec(text);
  const scheme = match?.[1].toLowerCase() ?? "";
  if (!match || !schemes.includes(scheme)) {
    const named = schemes.slice(0, 2).join(":// or ");
    throw new LinkError(`${what} must begin with ${named}:// and name a host.`, { part });
  }
  if (match[0].length !== text.length) {
    throw new LinkError(`${what} must have no query (?) and no fragment (#). Leave it out.`, {
      part,
    });
  }
  const [, , authority, path] = match;
  if (authority.includes("@")) {
    throw new LinkError(`${what} holds a user name (before the @). Leave it out.`, { part });
  }
  const split = AUTHORITY.exec(authority);
  const host = split ? hostOf(split[1]) : "";
  if (!split || !host) {
    throw new LinkError(
      `The host in the ${whose(part)} address is not valid. Write a name such as ` +
        "relay.example.com (an international one as xn--...) or an IP address.",
      { part },
    );
  }
  const secure = scheme === "wss" || scheme === "https";
  let port = "";
  if (split[2] !== undefined) {
    const number = PORT.test(split[2]) ? Number(split[2]) : 0;
    if (number < 1 || number > 65535) {
      throw new LinkError(`The port in the ${whose(part)} address must be 1 to 65535.`, { part });
    }
    port = number === (secure ? 443 : 80) ? "" : String(number);
  }
  const steps = path.toLowerCase().replaceAll("%2e", ".").replace(/\/$/, "").split("/").slice(1);
  if (!PATH.test(path) || steps.some((step) => ["", ".", ".."].includes(step))) {
    throw new LinkError(
      `The path in the ${whose(part)} address is not valid. Percent-encode what is not ASCII, ` +
        "and leave out empty steps, . and ..",
      { part },
    );
  }
  return { secure, host, port, path };
}

/** @param {Whose} part */
function whose(part) {
  return part === "relay" ? "relay's" : "page's";
}

/** @param {Whose} part */
function tooLong(part) {
  const text = `The ${whose(part)} address is longer than ${MAX_RELAY} characters. Use a shorter one.`;
  return new LinkError(text, { part });
}

/** The one spelling of a host, or "" for what is none. @param {string} text */
function hostOf(text) {
  if (text.startsWith("[")) {
    return ipv6(text.slice(1, -1));
  }
  const labels = text.split(".").map(labelOf);
  const host = labels.join(".");
  if (labels.includes("") || host.length > HOST) {
    return "";
  }
  // Browsers read 127.1 and 0x7f000001 as IPv4 addresses; only the plain spelling is the same
  // to everybody.
  if (NUMBER.test(labels[labels.length - 1])) {
    return ipv4(host) ? host : "";
  }
  return host;
}

/** @param {string} text */
function labelOf(text) {
  let label = text.toLowerCase();
  if (!/^[\0-\x7f]*$/.test(text)) {
    if (DISPUTED.test(text) || hidesSomething(text) || ODD_ASCII.test(text)) {
      return "";
    }
    label = international(text);
    // What ends as plain ASCII was a disguise: full-width letters, a slash or a dot.
    if (!label.startsWith("xn--")) {
      return "";
    }
  }
  return LABEL.test(label) ? label : "";
}

/** The `xn--` spelling, by the engine's own URL; "" where there is none. @param {string} text */
function international(text) {
  try {
    return new URL(`https://${text}.example`).hostname.replace(/\.example$/, "");
  } catch {
    return "";
  }
}

/** The four numbers, or null. @param {string} text */
function ipv4(text) {
  const numbers = text.split(".");
  const plain = numbers.every((number) => /^(?:0|[1-9][0-9]{0,2})$/.test(number));
  return numbers.length === 4 && plain && numbers.every((number) => Number(number) <= 255)
    ? numbers.map(Number)
    : null;
}

/** The shortest spelling (RFC 5952), in brackets, or "". @param {string} text */
function ipv6(text) {
  const halves = text.split("::").map(groupsOf);
  const [before, behind] = halves;
  if (halves.length > 2 || before === null || behind === null) {
    return "";
  }
  const groups = [...before, ...(behind ?? [])];
  if (behind === undefined ? groups.length !== 8 : groups.length > 7) {
    return "";
  }
  if (behind !== undefined) {
    groups.splice(before.length, 0, ...new Array(8 - groups.length).fill(0));
  }
  return `[${shortest(groups)}]`;
}

/** The 16-bit groups of one side of `::`, or null. @param {string} text */
function groupsOf(text, /** @type {number} */ side, /** @type {string[]} */ { length }) {
  if (text === "") {
    return length > 1 ? [] : null;
  }
  const parts = text.split(":");
  const groups = [];
  for (const [index, part] of parts.entries()) {
    const last = index === parts.length - 1 && side === length - 1;
    const numbers = last && part.includes(".") ? ipv4(part) : null;
    if (numbers) {
      const [a, b, c, d] = numbers;
      groups.push(a * 256 + b, c * 256 + d);
    } else if (/^[0-9A-Fa-f]{1,4}$/.test(part)) {
      groups.push(Number.parseInt(part, 16));
    } else {
      return null;
    }
  }
  return groups;
}

/** @param {number[]} groups  eight of them */
function shortest(groups) {
  let [start, length] = [0, 1];
  for (let first = 0; first < groups.length; first++) {
    let end = first;
    while (groups[end] === 0) {
      end += 1;
    }
    if (end - first > length) {
      [start, length] = [first, end - first];
    }
  }
  /** @param {number[]} some */
  const hex = (some) => some.map((group) => group.toString(16)).join(":");
  return length > 1
    ? `${hex(groups.slice(0, start))}::${hex(groups.slice(start + length))}`
    : hex(groups);
}
