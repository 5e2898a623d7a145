/** One message: what was said, its pictures, how it stands with it. */

import { html, useLayoutEffect, useReducer } from "../html.js";
import { moment, t, time } from "../i18n.js";
import { failureText } from "./failures.js";
import { Icon } from "./icons.js";
import { Markdown } from "./markdown.js";
import { PictureView } from "./picture.js";
import { Written } from "./written.js";

/** @typedef {import("../model/message.js").Message} Model */
/** @typedef {import("../model/message.js").Picture} Picture */

/**
 * What a message can ask of the list that it stands in.
 * @typedef {object} Doings
 * @property {(message: Model, redraw: () => void) => () => void} watch has it drawn again when it changes
 * @property {(message: Model) => void} copy
 * @property {(message: Model) => void} retry
 * @property {(message: Model, picture: Picture) => void} open
 * @property {(message: Model, event: MouseEvent | PointerEvent) => void} menu
 */

/**
 * @param {object} props
 * @param {Model} props.message
 * @param {string} props.name the agent's
 * @param {boolean} props.joined it goes on from the message before
 * @param {Doings} props.doings
 */
export function Message({ message, name, joined, doings }) {
  const [, redraw] = useReducer((/** @type {number} */ count) => count + 1, 0);
  useLayoutEffect(() => doings.watch(message, () => redraw(undefined)), [message, doings]);
  const { role, text, at, state, error, tool, pictures, links } = message;
  const mine = role === "user";
  const streaming = state === "streaming";
  const silent = streaming && !text && !pictures.length;
  const wordless = !mine && state === "done" && !text && !pictures.length && !links.length;
  const label = t("chat.said", { who: mine ? t("chat.me") : name, when: moment(at) });
  const classes = ["message", mine ? "me" : "agent", joined ? "joined" : "", state].join(" ");
  return html`<article
    class=${classes}
    data-id=${message.id}
    tabindex="-1"
    aria-label=${label}
    onContextMenu=${(/** @type {MouseEvent} */ event) => {
      if (wantsMenu(event, mine)) doings.menu(message, event);
    }}
  >
    <div class="said">
      ${mine && html`<${Pictures} ...${{ message, doings }} />`}
      ${mine && text && html`<div class="bubble"><${Written} text=${text} /></div>`}
      ${
        !mine &&
        !silent &&
        (text || streaming) &&
        html`<${Markdown} text=${text} streaming=${streaming} />`
      }
      ${!mine && html`<${Pictures} ...${{ message, doings }} />`}
      ${links.length > 0 && html`<${Links} links=${links} />`}
      ${silent && !tool && html`<${Thinking} name=${name} />`}
      ${wordless && html`<p class="quiet small">${t("chat.wordless")}</p>`}
      ${streaming && tool && html`<${ToolLine} tool=${tool} />`}
      ${error && html`<p class="failure"><${Icon} name="alert" /><bdi>${failureText(error)}</bdi></p>`}
    </div>
    ${!streaming && html`<${Foot} message=${message} doings=${doings} />`}
  </article>`;
}

/**
 * @param {{message: Model, doings: Doings}} props
 */
function Pictures({ message, doings }) {
  const { pictures, role } = message;
  if (!pictures.length) return null;
  const several = pictures.filter(({ shown }) => shown).length > 1;
  return html`<div class=${`pictures ${several ? "several" : ""}`}>
    ${pictures.map(
      (picture) => html`<${PictureView}
        key=${picture.id}
        picture=${picture}
        progress=${picture.progress}
        mine=${role === "user"}
        onOpen=${() => doings.open(message, picture)}
      />`,
    )}
  </div>`;
}

/**
 * Time and state, and what can be done.
 *
 * @param {{message: Model, doings: Doings}} props
 */
function Foot({ message, doings }) {
  const { role, at, state, pictures } = message;
  const mine = role === "user";
  const scaled = pictures.some((picture) => picture.scaled);
  return html`<footer class="foot">
    ${
      state === "failed" &&
      html`<button
        type="button"
        class="foot-button strong"
        onClick=${(/** @type {MouseEvent & {currentTarget: HTMLElement}} */ { currentTarget }) => {
          // The button goes, and maybe the message.
          currentTarget.closest(/** @type {"div"} */ (".messages"))?.focus({ preventScroll: true });
          doings.retry(message);
        }}
      >
        <${Icon} name="retry" />${t("chat.retry")}
      </button>`
    }
    ${scaled && html`<span>${t("chat.wasScaled")}</span>`}
    <time datetime=${new Date(at).toISOString()}>${time(at)}</time>
    <${State} state=${state} mine=${mine} />
    ${
      !mine &&
      message.text &&
      html`<button
        type="button"
        class="foot-button"
        aria-label=${t("chat.copyMessage")}
        title=${t("chat.copyMessage")}
        onClick=${() => doings.copy(message)}
      >
        <${Icon} name="copy" />
      </button>`
    }
    <button
      type="button"
      class="foot-button more"
      aria-label=${t("chat.actions")}
      aria-haspopup="menu"
      onClick=${(/** @type {MouseEvent} */ event) => doings.menu(message, event)}
    >
      <${Icon} name="more" />
    </button>
  </footer>`;
}

/** @param {{state: import("../model/message.js").State, mine: boolean}} props */
function State({ state, mine }) {
  if (state === "cancelled") return html`<span>${t("chat.cancelled")}</span>`;
  if (!mine) return null;
  if (state === "waiting") {
    return html`<span class="state"><${Icon} name="clock" />${t("chat.waiting")}</span>`;
  }
  const said = { sending: t("chat.sending"), sent: t("chat.sent"), done: t("chat.answered") };
  const words = said[/** @type {keyof typeof said} */ (state)];
  if (!words) return null;
  const icon = state === "sending" ? "clock" : "check";
  return html`<span class="state" title=${words}>
    <${Icon} name=${icon} /><span class="visually-hidden">${words}</span>
  </span>`;
}

/** @param {{name: string}} props */
function Thinking({ name }) {
  return html`<p class="thinking">
    <span class="visually-hidden">${t("chat.thinking", { name })}</span>
    <span class="dots" aria-hidden="true"><span></span><span></span><span></span></span>
  </p>`;
}

/** @param {{tool: import("../model/message.js").Tool}} props */
function ToolLine({ tool: { tool, status } }) {
  const words = { running: "chat.toolRunning", done: "chat.toolDone", error: "chat.toolFailed" };
  const key = /** @type {import("../i18n.js").Key} */ (words[status] ?? words.running);
  return html`<p class="tool">
    <${Icon} name=${status === "error" ? "alert" : status === "done" ? "check" : "tool"} />
    <bdi>${t(key, { tool })}</bdi>
  </p>`;
}

/** @param {{links: {url: string, name: string}[]}} props */
function Links({ links }) {
  return html`<ul class="links">
    ${links.map(({ url, name }) =>
      /^https?:/i.test(url)
        ? html`<li>
            <a href=${url} target="_blank" rel="noopener noreferrer" dir="auto">${name || url}</a>
          </li>`
        : html`<li dir="auto">${name || url}</li>`,
    )}
  </ul>`;
}

/**
 * Whether a right click, or a long press, is for the message and not for what stands in it: links,
 * pictures, selected words. A finger that rests on an answer selects its words.
 *
 * @param {MouseEvent} event
 * @param {boolean} mine
 */
function wantsMenu(event, mine) {
  const touch = "pointerType" in event && event.pointerType === "touch";
  if (touch && !mine) return false;
  if (!(getSelection()?.isCollapsed ?? true)) return false;
  const target = event.target;
  return !(target instanceof Element && target.closest("a, pre, img, input"));
}
