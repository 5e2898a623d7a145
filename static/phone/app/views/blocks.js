/**
 * Markdown cut into blocks, at a bounded cost whatever the text is.
 *
 * `marked` cuts, in windows of a few kilobytes, and the words inside of a block are read only when
 * the block is built. Where a text would cost it more than a moment (a line or a block without end,
 * quotes within quotes within quotes), the rest of the text is left as it stands.
 */

import { Lexer, Tokenizer } from "marked";

/** @typedef {import("marked").Token} Token */
/** @typedef {import("marked").Tokens.Generic} Generic */
/** @typedef {{type: "plain", raw: string}} Plain */

/** `words` gives the inner tokens of a token of the block.
 * @typedef {{token: Generic | Plain, words: (tokens: Token[]) => Generic[]}} Block */

/** What the blocks of one message share: what references stand for, and whether the rest of it is
 * left as it stands.
 * @typedef {{links: Record<string, any>, plain: boolean}} Context */

const FORMATTED = 200_000; // characters; beyond, a text is no message but a file
const LINE = 20_000;
const WINDOW = 16_384;
const PIECE = 4_096; // of plain text in one block
const LARGEST = 65_536; // of a block whose cost may grow with the square of its size
const LINES = 4_000; // of such a block, for the same reason
const DELIMITERS = 1_000; // of emphasis in one paragraph; its cost grows with their square

// More than 32 levels of quotes and lists on one line, or of indentation before a list.
const DEEP =
  /^(?:(?:[ \t]*(?:>|[-*+][ \t]|\d{1,9}[.)][ \t])){33}|(?: {2}|\t){32,}(?:[-*+]|\d{1,9}[.)])[ \t])/m;

/** Without headings that are underlined: while a text streams, each list would flash as one. */
class Blocks extends Tokenizer {
  /** @returns {undefined} */
  lheading() {
    return undefined;
  }
}

/**
 * The blocks of `text`, which begins where a block begins. The last block is as far as the text
 * goes; all others stay as they are whatever follows. A generator, to be left between two blocks.
 *
 * @param {string} text
 * @param {Context} context of the message; what is met is noted in it
 * @returns {Generator<Block, void, void>}
 */
export function* blocks(text, context) {
  const limit = context.plain ? 0 : formatted(text);
  let at = 0;
  let window = WINDOW;
  while (at < limit) {
    const end = cut(text, at, Math.min(at + window, limit));
    const { tokens, words } = lex(text.slice(at, end), context.links);
    const last = tokens.findLastIndex(({ type }) => type !== "space");
    const whole = end === text.length;
    if (!whole && last <= 0) {
      const linear = ["code", "table"].includes(tokens[0]?.type);
      const small = window < LARGEST && text.slice(at, end).split("\n", LINES).length < LINES;
      if (end < limit && (linear || small)) {
        window *= 2;
        continue;
      }
      // One block fills all that may be formatted.
      if (end < limit) break;
    }
    window = WINDOW;
    const finished = whole || (end === limit && last <= 0) ? tokens.length : last;
    for (const token of tokens.slice(0, finished)) {
      at += token.raw.length;
      yield { token, words };
    }
  }
  if (at < text.length) context.plain = true;
  for (const raw of pieces(text.slice(at))) {
    yield { token: { type: "plain", raw }, words: () => [] };
  }
}

/**
 * A text in pieces, cut where a line or a word ends if that is near.
 *
 * @param {string} text
 * @returns {string[]}
 */
export function pieces(text) {
  const all = [];
  for (let from = 0; from < text.length; ) {
    let end = from + PIECE;
    if (end < text.length) {
      const newline = text.lastIndexOf("\n", end - 1);
      const space = text.lastIndexOf(" ", end - 1);
      if (newline > from) end = newline + 1;
      else if (space > from) end = space + 1;
      else if (/[\ud800-\udbff]/.test(text[end - 1])) end += 1;
    }
    all.push(text.slice(from, end));
    from = end;
  }
  return all;
}

/**
 * How many characters from the front may be formatted.
 *
 * @param {string} text
 */
function formatted(text) {
  if (text.length > FORMATTED) return 0;
  for (let from = 0; from < text.length; ) {
    const newline = text.indexOf("\n", from);
    const end = newline < 0 ? text.length : newline;
    if (end - from > LINE) return from;
    from = end + 1;
  }
  const deep = DEEP.exec(text);
  return deep ? deep.index : text.length;
}

/**
 * @param {string} text
 * @param {number} start
 * @param {number} end
 * @returns {number} the end of the last line before `end`
 */
function cut(text, start, end) {
  if (end === text.length) return end;
  const newline = text.lastIndexOf("\n", end - 1);
  return newline > start ? newline + 1 : end;
}

/**
 * @param {string} text
 * @param {Record<string, any>} links
 */
function lex(text, links) {
  const lexer = new Lexer({ gfm: true, breaks: true, tokenizer: new Blocks() });
  lexer.tokens.links = links;
  const tokens = /** @type {Generic[]} */ (lexer.blockTokens(text, []));
  const unread = new Map(lexer.inlineQueue.map(({ src, tokens }) => [tokens, src]));
  return {
    tokens,
    words: (/** @type {Token[]} */ tokens) => {
      const src = unread.get(tokens);
      if (src !== undefined) {
        unread.delete(tokens);
        if (src.length > LINE || (src.match(/[*_~]/g)?.length ?? 0) > DELIMITERS) {
          tokens.push({ type: "text", raw: src, text: src });
        } else {
          lexer.inlineTokens(src, tokens);
        }
      }
      return /** @type {Generic[]} */ (tokens);
    },
  };
}
