/** Search within a conversation: field, count, from one find to the next, all of them marked. */

import { html, useEffect, useLayoutEffect, useRef, useState } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "./icons.js";

/** @typedef {import("../model/message.js").Message} Message */

const PAUSE = 150; // milliseconds without a key until the search begins

/**
 * @param {object} props
 * @param {import("../model/conversation.js").Conversation} props.conversation
 * @param {HTMLElement | null} props.scroller what holds the messages
 * @param {() => void} props.onClose
 */
export function Search({ conversation, scroller, onClose }) {
  const [text, setText] = useState("");
  const [found, setFound] = useState(/** @type {Message[] | null} */ (null));
  const [at, setAt] = useState(0);
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));

  useLayoutEffect(() => field.current?.focus(), []);

  useEffect(() => {
    let wanted = true;
    const timer = setTimeout(async () => {
      const all = text.trim() ? await conversation.search(text.trim()) : null;
      if (!wanted) return;
      setFound(all?.map(({ message }) => message) ?? null);
      setAt((all?.length ?? 0) - 1);
    }, PAUSE);
    return () => {
      wanted = false;
      clearTimeout(timer);
    };
  }, [text, conversation]);

  const current = found?.[at] ?? null;
  // Together with the count, not a frame behind it.
  useLayoutEffect(() => {
    if (!scroller) return undefined;
    const marking = markIn(scroller, found ?? [], current, text.trim());
    return marking.stop;
  }, [scroller, found, current]);

  const step = (/** @type {number} */ by) => {
    if (found?.length) setAt((at + by + found.length) % found.length);
  };
  const count = !found
    ? ""
    : found.length
      ? t("chat.searchCount", { index: at + 1, count: found.length })
      : t("chat.searchNone");
  return html`<form
    class="search"
    role="search"
    onSubmit=${(/** @type {Event} */ event) => {
      event.preventDefault();
      step(-1);
    }}
    onKeyDown=${(/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape" && !event.isComposing) onClose();
      else if (event.key === "ArrowUp") step(-1);
      else if (event.key === "ArrowDown") step(1);
      else return;
      event.preventDefault();
    }}
  >
    <${Icon} name="search" />
    <input
      ref=${field}
      type="search"
      class="search-field"
      dir="auto"
      autocomplete="off"
      enterkeyhint="search"
      aria-label=${t("chat.searchField")}
      placeholder=${t("chat.search")}
      value=${text}
      onInput=${(/** @type {InputEvent & {currentTarget: HTMLInputElement}} */ event) =>
        setText(event.currentTarget.value)}
    />
    <span class="search-count" role="status">${count}</span>
    <button
      type="button"
      class="icon-button up"
      aria-label=${t("chat.searchPrevious")}
      disabled=${!found?.length}
      onClick=${() => step(-1)}
    >
      <${Icon} name="back" />
    </button>
    <button
      type="button"
      class="icon-button down"
      aria-label=${t("chat.searchNext")}
      disabled=${!found?.length}
      onClick=${() => step(1)}
    >
      <${Icon} name="back" />
    </button>
    <button type="button" class="icon-button" aria-label=${t("app.close")} onClick=${onClose}>
      <${Icon} name="close" />
    </button>
  </form>`;
}

/**
 * Marks a text in messages, and brings the current one into sight.
 *
 * @param {HTMLElement} scroller
 * @param {Message[]} messages
 * @param {Message | null} current
 * @param {string} text
 */
function markIn(scroller, messages, current, text) {
  const element = (/** @type {Message} */ { id }) =>
    scroller.querySelector(`[data-id="${CSS.escape(id)}"]`);
  let frame = 0;
  let tries = 0;

  // What was just loaded is not all drawn yet: a few frames later it is.
  const mark = () => {
    const highlights = globalThis.CSS?.highlights;
    if (highlights) {
      const ranges = (/** @type {Message[]} */ some) =>
        some.flatMap((message) => rangesIn(element(message), text));
      const others = messages.filter((message) => message !== current);
      highlights.set("found", new Highlight(...ranges(others)));
      highlights.set("found-current", new Highlight(...ranges(current ? [current] : [])));
    }
    const target = current && element(current);
    for (const one of scroller.querySelectorAll(".message.found")) one.classList.remove("found");
    if (target) {
      if (!highlights) target.classList.add("found");
      const [range] = rangesIn(target, text);
      centre(scroller, range ?? target);
    }
    tries += 1;
    if (tries < 4 && current) frame = requestAnimationFrame(mark);
  };
  mark();
  return {
    stop() {
      cancelAnimationFrame(frame);
      globalThis.CSS?.highlights?.delete("found");
      globalThis.CSS?.highlights?.delete("found-current");
      for (const one of scroller.querySelectorAll(".message.found")) one.classList.remove("found");
    },
  };
}

/**
 * @param {HTMLElement} scroller
 * @param {Element | Range} target
 */
function centre(scroller, target) {
  const box = target.getBoundingClientRect();
  const frame = scroller.getBoundingClientRect();
  const off = box.top + box.height / 2 - (frame.top + frame.height / 2);
  if (box.top < frame.top + 40 || box.bottom > frame.bottom - 40) scroller.scrollTop += off;
}

/**
 * Where a text stands in an element, upper or lower case, also across words that look different.
 *
 * @param {Element | null} element
 * @param {string} text
 * @returns {Range[]}
 */
function rangesIn(element, text) {
  const said = element?.querySelector(".said");
  if (!said || !text) return [];
  const walker = document.createTreeWalker(said, NodeFilter.SHOW_TEXT);
  /** @type {{node: Text, start: number}[]} */
  const nodes = [];
  let whole = "";
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    nodes.push({ node: /** @type {Text} */ (node), start: whole.length });
    whole += node.nodeValue ?? "";
  }
  const { text: haystack, starts, ends } = folded(whole);
  const needle = folded(text).text;
  const ranges = [];
  for (
    let at = haystack.indexOf(needle);
    at >= 0;
    at = haystack.indexOf(needle, at + needle.length)
  ) {
    const range = document.createRange();
    const last = at + needle.length - 1;
    const first = starts ? starts[at] : at;
    const end = ends ? ends[last] : last + 1;
    const from = nodes.findLast(({ start }) => start <= first);
    const to = nodes.findLast(({ start }) => start < end);
    if (!from || !to) break;
    range.setStart(from.node, first - from.start);
    range.setEnd(to.node, end - to.start);
    ranges.push(range);
  }
  return ranges;
}

/**
 * A text as it is compared: composed and in small letters.
 *
 * @param {string} text
 * @returns {{text: string, starts?: number[], ends?: number[]}} where each place's letter begins
 *   and ends in `text` as it came; left out where all of them stand where they stood
 */
function folded(text) {
  const composed = text.normalize("NFC");
  const lower = composed.toLocaleLowerCase();
  if (composed === text && lower.length === text.length) return { text: lower };
  let whole = "";
  /** @type {number[]} */
  const starts = [];
  /** @type {number[]} */
  const ends = [];
  for (const { segment, index } of new Intl.Segmenter().segment(text)) {
    const letter = segment.normalize("NFC").toLocaleLowerCase();
    whole += letter;
    for (let count = 0; count < letter.length; count += 1) {
      starts.push(index);
      ends.push(index + segment.length);
    }
  }
  return { text: whole, starts, ends };
}
