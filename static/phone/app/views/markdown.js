/**
 * Markdown that grows. Blocks that are finished are drawn once; only the last one, which may still
 * change, is drawn again, at most once a frame. What takes long is done in slices, so that the page
 * always answers.
 */

import { html, useEffect, useLayoutEffect, useRef } from "../html.js";
import { blocks } from "./blocks.js";
import { elements, plain } from "./elements.js";

/** @typedef {import("./blocks.js").Block} Block */

const SLICE = 12; // milliseconds of work before the page has its turn
const PART = 50; // blocks
const PATIENT = 16_384; // characters of a block above which it is formatted only when finished

// The beginnings of a list, a fence, a rule: what they become shows with the next characters.
const BEGINNING = /(^|\n)[ \t>]*(?:[-*+_=~`#|]{1,3}|\d{1,9}[.)]?)[ \t]*$/;

/**
 * @param {object} props
 * @param {string} props.text
 * @param {boolean} [props.streaming] more is to come: there is a caret at its end
 */
export function Markdown({ text, streaming = false }) {
  const element = useRef(/** @type {HTMLElement | null} */ (null));
  const drawing = useRef(/** @type {ReturnType<typeof drawInto> | null} */ (null));
  useLayoutEffect(() => {
    if (!element.current) return;
    drawing.current ??= drawInto(element.current);
    drawing.current.draw(text, streaming);
  }, [text, streaming]);
  useEffect(() => () => drawing.current?.stop(), []);
  return html`<div class="markdown" ref=${element}></div>`;
}

/**
 * Draws a text into an element, and goes on with it as it grows.
 *
 * @param {HTMLElement} element
 * @returns {{draw: (text: string, streaming: boolean) => void, stop: () => void}}
 */
function drawInto(element) {
  let wanted = { text: "", streaming: false };
  let finished = "";
  let context = { links: {}, plain: false };
  /** @type {Node[]} The elements of what may still change. */
  let changing = [];
  const ready = document.createDocumentFragment();
  /** @type {{info: string, text: string, node: Text} | null} Code grows by what is new in it. */
  let growing = null;
  let resting = 0;
  let waiting = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} of the rest */
  let timer;
  let stopped = false;
  const caret = document.createElement("span");
  caret.className = "caret";

  let part = newPart();

  /** Blocks in one element: a browser skips those that are full while nobody sees them. */
  function newPart() {
    const next = document.createElement("div");
    next.className = "part";
    element.append(next);
    return next;
  }

  function* work() {
    try {
      yield* drawWanted();
    } catch (error) {
      // As it was written is better than not at all, and the other messages are drawn in any case.
      console.error(error);
      startAgain();
      show(plain(wanted.text));
    }
  }

  function* drawWanted() {
    let drawn;
    do {
      drawn = wanted;
      const { text, streaming } = drawn;
      if (!text.startsWith(finished)) startAgain();
      const before = performance.now();
      yield* drawRest(streaming ? text.replace(BEGINNING, "$1") : text, streaming);
      if (!streaming && known(context.links) && !relinked) {
        // Some words may point at links that stood further down.
        relinked = true;
        const { links } = context;
        startAgain();
        context.links = links;
        yield* drawRest(text, false);
      }
      const took = performance.now() - before;
      resting = took > SLICE ? performance.now() + 3 * took : 0;
    } while (drawn !== wanted && !resting);
    if (drawn !== wanted) later();
  }
  let relinked = false;

  function startAgain() {
    finished = "";
    context = { links: {}, plain: false };
    changing = [];
    growing = null;
    ready.replaceChildren();
    element.replaceChildren();
    part = newPart();
  }

  /**
   * @param {string} text
   * @param {boolean} streaming
   * @returns {Generator<void, void, void>}
   */
  function* drawRest(text, streaming) {
    /** @type {Block[]} the last block, and the space behind it */
    let last = [];
    for (const block of blocks(text.slice(finished.length), context)) {
      if (block.token.type !== "space" && last.length) {
        yield* finish(last);
        last = [];
      }
      last.push(block);
      yield;
    }
    if (streaming && last.length) {
      yield* change(last[0]);
    } else {
      yield* finish(last);
      show([]);
    }
    if (streaming) placeCaret();
    else caret.remove();
  }

  /**
   * @param {Block[]} last
   * @returns {Generator<void, void, void>}
   */
  function* finish(last) {
    for (const block of last) {
      ready.append(...directed(yield* elements(block)));
      growing = null;
      finished += block.token.raw;
      // The first is seen at once; for each of the others the browser would lay out anew.
      if (!part.firstChild || ready.childNodes.length >= PART) show([]);
    }
  }

  /**
   * @param {Block} block
   * @returns {Generator<void, void, void>}
   */
  function* change({ token, words }) {
    if (token.type === "code") {
      const { text, lang: info = "" } = token;
      if (growing && growing.info === info && text.startsWith(growing.text)) {
        growing.node.appendData(text.slice(growing.text.length));
        growing.text = text;
        return;
      }
      const nodes = yield* elements({ token, words });
      show(nodes);
      const node = /** @type {HTMLElement} */ (nodes[0]).querySelector("code")?.firstChild;
      growing = node instanceof Text ? { info, text, node } : null;
      return;
    }
    growing = null;
    const long = token.raw.length > PATIENT;
    show(long ? plain(token.raw) : directed(yield* elements({ token, words })));
  }

  /**
   * Puts what is ready where the changing elements were, and behind it the new ones of those.
   *
   * @param {Node[]} nodes
   */
  function show(nodes) {
    for (const node of changing) node.parentNode?.removeChild(node);
    while (ready.firstChild) {
      if (part.childNodes.length >= PART) {
        part.classList.add("full");
        part = newPart();
      }
      part.append(ready.firstChild);
    }
    part.append(...nodes);
    changing = nodes;
  }

  /** Behind the last letter. */
  function placeCaret() {
    let place = element;
    for (;;) {
      const inner =
        place.lastElementChild === caret ? caret.previousElementSibling : place.lastElementChild;
      if (!(inner instanceof HTMLElement) || /^(br|hr|input|button)$/.test(inner.localName)) break;
      if (inner.nextSibling && inner.nextSibling !== caret) break;
      place = inner;
    }
    place.append(caret);
  }

  function later() {
    // What is whole is drawn once more, and waits for no rest.
    const pause = wanted.streaming ? resting - performance.now() : 0;
    if (waiting && (pause > 0 || timer === undefined)) return;
    waiting = true;
    clearTimeout(timer);
    timer = pause > 0 ? setTimeout(rested, pause) : rested();
  }

  function rested() {
    requestAnimationFrame(start);
    return undefined;
  }

  function start() {
    waiting = false;
    timer = undefined;
    if (stopped) return;
    if (!jobs.has(job)) jobs.set(job, work());
    run();
  }

  const job = {};
  return {
    draw(text, streaming) {
      const first = wanted.text === "" && !part.firstChild;
      if (wanted.text === text && wanted.streaming === streaming && !first) return;
      wanted = { text, streaming };
      if (jobs.has(job)) return;
      if (first) start();
      else later();
    },
    stop() {
      stopped = true;
      jobs.delete(job);
    },
  };
}

/**
 * Each block is read in the direction of its first letters; what is in it follows.
 *
 * @param {HTMLElement[]} nodes
 */
function directed(nodes) {
  for (const node of nodes) if (node.className !== "code") node.dir = "auto";
  return nodes;
}

/** @param {object} links */
function known(links) {
  return Object.keys(links).length > 0;
}

/** Drawings that are under way. The youngest is worked on first: it is the one that people see.
 * @type {Map<object, Generator<void, void, void>>} */
const jobs = new Map();
let deadline = 0;
let scheduled = false;

/** Works until the slice is over, and then again after the page had its turn. */
function run() {
  const now = performance.now();
  // A slice is shared by all that begins in the same turn.
  if (now > deadline + SLICE) deadline = now + SLICE;
  while (jobs.size) {
    if (performance.now() > deadline) {
      if (!scheduled) setTimeout(resume);
      scheduled = true;
      return;
    }
    const [job, work] = [...jobs].at(-1) ?? [];
    if (!job || !work) return;
    // `next` may begin another job, or stop this one.
    if (work.next().done) jobs.delete(job);
  }
}

function resume() {
  scheduled = false;
  deadline = performance.now() + SLICE;
  run();
}
