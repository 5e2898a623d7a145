/**
 * The elements of a message's blocks. They are made one by one, and the message's own characters
 * only ever become text: nothing of it is read as HTML, so there is nothing to clean.
 */

import { t } from "../i18n.js";
import { pieces } from "./blocks.js";
import { copyText } from "./clipboard.js";

/** @typedef {import("./blocks.js").Block} Block */
/** @typedef {import("./blocks.js").Generic} Generic */

const ROWS = 50; // of a table in one element, where it is a giant
const GIANT = 1_000; // cells
const DEPTH = 32; // of words within words

/** Elements without attributes that agents write as HTML, and that do nothing but look. */
const HARMLESS = new Set(["b", "i", "kbd", "mark", "s", "sub", "sup", "u"]);

/** @type {Record<string, string>} */
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

/**
 * Makes the elements of a block; to be left after each `yield` and gone on with.
 *
 * @param {Block} block
 * @returns {Generator<void, HTMLElement[], void>}
 */
export function* elements({ token: any, words }) {
  const token = /** @type {Generic & {tokens: Generic[]}} */ (any);
  switch (token.type) {
    case "space":
    case "def":
      return [];
    case "plain":
      return plain(token.raw);
    case "heading":
      // Above them are the app's own name and the chat's.
      return [filled(`h${Math.min(6, token.depth + 2)}`, words, token.tokens)];
    case "hr":
      return [make("hr")];
    case "code":
      return [code(token.text, token.lang ?? "")];
    case "blockquote":
      return [yield* holding(make("blockquote"), token.tokens, words)];
    case "list":
      return [yield* list(token, words)];
    case "table":
      return yield* table(token, words);
    case "text":
      return token.tokens ? [filled("p", words, token.tokens)] : plain(token.text);
    case "paragraph":
      return [filled("p", words, token.tokens)];
    default:
      return plain(token.raw.trimEnd());
  }
}

/**
 * Text as it stands, in elements that a browser lays out only when they are seen.
 *
 * @param {string} text
 * @returns {HTMLElement[]}
 */
export function plain(text) {
  return pieces(text).map((piece) => {
    const element = make("p", { class: "plain", dir: "auto" });
    element.textContent = piece.replace(/\n$/, "");
    return element;
  });
}

/**
 * @param {string} text
 * @param {string} info what stands behind the fence
 */
export function code(text, info) {
  const language = info.split(/\s/, 1)[0].slice(0, 40);
  const box = make("div", { class: "code" });
  const head = make("div", { class: "code-head" });
  const label = make("bdi");
  label.textContent = language;
  const button = make("button", { type: "button", class: "code-copy" });
  button.textContent = t("app.copy");
  button.addEventListener("click", async () => {
    if (!(await copyText(body.textContent ?? ""))) return;
    button.textContent = t("app.copied");
    setTimeout(() => {
      button.textContent = t("app.copy");
    }, 2_000);
  });
  head.append(label, button);
  // It scrolls, so that the keyboard has to reach it.
  const pre = make("pre", { dir: "ltr", tabindex: "0", role: "group" });
  pre.setAttribute("aria-label", language ? t("chat.codeIn", { language }) : t("chat.code"));
  const body = make("code");
  body.append(text);
  pre.append(body);
  box.append(head, pre);
  return box;
}

/**
 * @param {HTMLElement} element
 * @param {Generic[]} tokens blocks
 * @param {Block["words"]} words
 * @returns {Generator<void, HTMLElement, void>}
 */
function* holding(element, tokens, words) {
  for (const token of tokens) {
    element.append(...(yield* elements({ token, words })));
    yield;
  }
  return element;
}

/**
 * @param {Generic} token
 * @param {Block["words"]} words
 * @returns {Generator<void, HTMLElement, void>}
 */
function* list(token, words) {
  const { ordered, start, loose, items } = /** @type {import("marked").Tokens.List} */ (token);
  const element = make(ordered ? "ol" : "ul");
  if (typeof start === "number" && start !== 1) element.setAttribute("start", String(start));
  for (const item of items) {
    const line = make("li");
    if (item.task) {
      line.className = "task";
      const box = make("input", { type: "checkbox", disabled: "" });
      /** @type {HTMLInputElement} */ (box).checked = Boolean(item.checked);
      box.setAttribute("aria-label", t(item.checked ? "chat.taskDone" : "chat.taskOpen"));
      line.append(box, " ");
    }
    for (const inner of /** @type {Generic[]} */ (item.tokens)) {
      if (inner.type === "checkbox") continue;
      if (inner.type === "text" && inner.tokens && !loose) {
        // A tight list: its lines are no paragraphs.
        const text = make("span");
        inside(text, words, inner.tokens, 0);
        line.append(text);
      } else {
        line.append(...(yield* elements({ token: inner, words })));
      }
    }
    element.append(line);
    yield;
  }
  return element;
}

/**
 * @param {Generic} token
 * @param {Block["words"]} words
 * @returns {Generator<void, HTMLElement[], void>}
 */
function* table(token, words) {
  const { header, rows } = /** @type {import("marked").Tokens.Table} */ (token);
  const giant = header.length * (rows.length + 1) > GIANT;
  const step = giant ? Math.max(1, Math.min(ROWS, Math.floor(GIANT / header.length))) : rows.length;
  const boxes = [];
  for (let from = 0; from === 0 || from < rows.length; from += Math.max(1, step)) {
    const element = make("table");
    if (from === 0) {
      const head = make("thead");
      head.append(yield* row(header, words, "th"));
      element.append(head);
    }
    const body = make("tbody");
    for (const cells of rows.slice(from, from + step)) body.append(yield* row(cells, words, "td"));
    element.append(body);
    const box = make("div", { class: "table", tabindex: "0", role: "group" });
    box.setAttribute("aria-label", t("chat.table"));
    if (giant) box.classList.add("giant");
    box.append(element);
    boxes.push(box);
  }
  return boxes;
}

/**
 * @param {import("marked").Tokens.TableCell[]} cells
 * @param {Block["words"]} words
 * @param {"th" | "td"} name
 * @returns {Generator<void, HTMLElement, void>}
 */
function* row(cells, words, name) {
  const line = make("tr");
  for (const [index, cell] of cells.entries()) {
    const element = filled(name, words, cell.tokens);
    if (cell.align) element.classList.add(`align-${cell.align}`);
    line.append(element);
    if (index % 100 === 99) yield;
  }
  yield;
  return line;
}

/**
 * @param {string} name
 * @param {Block["words"]} words
 * @param {import("marked").Token[]} tokens
 */
function filled(name, words, tokens) {
  const element = make(name);
  inside(element, words, tokens, 0);
  return element;
}

/**
 * Words into an element.
 *
 * @param {HTMLElement} parent
 * @param {Block["words"]} words
 * @param {import("marked").Token[]} tokens
 * @param {number} depth
 */
function inside(parent, words, tokens, depth) {
  /** @type {HTMLElement[]} */
  const open = [parent];
  for (const token of words(tokens)) {
    const target = open[open.length - 1];
    switch (token.type) {
      case "strong":
      case "em":
      case "del": {
        const inner = make(token.type);
        if (depth < DEPTH) inside(inner, words, token.tokens ?? [], depth + 1);
        else inner.append(token.text);
        target.append(inner);
        break;
      }
      case "codespan": {
        const inner = make("code");
        inner.textContent = token.text;
        target.append(inner);
        break;
      }
      case "br":
        target.append(make("br"));
        break;
      case "link": {
        const anchor = link(token.href);
        if (depth < DEPTH) inside(anchor ?? target, words, token.tokens ?? [], depth + 1);
        else (anchor ?? target).append(token.text);
        if (anchor) target.append(anchor);
        break;
      }
      case "image": {
        // Whoever sent it would learn who looks at it, and when.
        const anchor = link(token.href) ?? make("span");
        anchor.append(decoded(token.text) || token.href);
        target.append(anchor);
        break;
      }
      case "escape":
        target.append(token.text);
        break;
      case "html":
        tag(token.raw, open);
        break;
      default:
        target.append(decoded(token.text ?? token.raw));
    }
  }
}

/**
 * A tag in the text: one of the few that only look, or else shown as it is written.
 *
 * @param {string} raw
 * @param {HTMLElement[]} open the elements that tags have opened
 */
function tag(raw, open) {
  const target = open[open.length - 1];
  const [, slash, name] =
    /^<(\/?)([a-z]+)\s*\/?>$/i.exec(raw)?.map((part) => part.toLowerCase()) ?? [];
  if (name === "br") {
    target.append(make("br"));
  } else if (HARMLESS.has(name) && !slash && open.length < DEPTH) {
    const inner = make(name);
    target.append(inner);
    open.push(inner);
  } else if (slash && open.length > 1 && target.localName === name) {
    open.pop();
  } else {
    target.append(raw);
  }
}

/**
 * @param {string} href
 * @returns {HTMLElement | null} null where it leads to anything but a page or a letter
 */
function link(href) {
  let url;
  try {
    url = new URL(decoded(href));
  } catch {
    return null;
  }
  if (!["http:", "https:", "mailto:"].includes(url.protocol)) return null;
  return make("a", {
    href: url.href,
    target: "_blank",
    rel: "noopener noreferrer",
    title: url.href.slice(0, 500),
  });
}

/** @param {string} text */
function decoded(text) {
  return text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|([a-z]+));/gi, (all, decimal, hex, name) => {
    if (name) return ENTITIES[name] ?? all;
    const point = decimal ? Number(decimal) : Number.parseInt(hex, 16);
    return point > 0 && point <= 0x10ffff ? String.fromCodePoint(point) : "\ufffd";
  });
}

/**
 * @param {string} name
 * @param {Record<string, string>} [attributes]
 * @returns {HTMLElement}
 */
function make(name, attributes = {}) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
