/** Where messages are written. */

import { html, useEffect, useLayoutEffect, useRef, useState } from "../html.js";
import { t } from "../i18n.js";
import { AttachButton, Previews, usePictures } from "./attach.js";
import { failureText } from "./failures.js";
import { Icon } from "./icons.js";

/** @typedef {import("../model/conversation.js").Conversation} Conversation */

/** Banners with which nothing can be sent any more, not even later. */
const OVER = new Set(["revoked", "unauthorized", "refused", "lost"]);

/**
 * @param {object} props
 * @param {import("../model/pairing.js").Pairing} props.pairing
 * @param {Conversation} props.conversation
 * @param {HTMLElement | null} props.area where pictures can be dropped
 */
export function Composer({ pairing, conversation, area }) {
  const [text, setText] = useState(conversation.draft);
  const [trouble, setTrouble] = useState("");
  const pictures = usePictures(conversation, pairing.version, setTrouble);
  const field = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const edited = useRef(false);
  const touch = useTouch();
  const dragging = useDrop(area, pictures.add);
  const asking = useAsking(conversation);

  // The draft is read after the conversation was shown.
  useEffect(() => {
    edited.current = false;
    const read = () => {
      if (!edited.current) setText(conversation.draft);
    };
    read();
    conversation.addEventListener("change", read);
    return () => conversation.removeEventListener("change", read);
  }, [conversation]);

  useEffect(() => {
    if (!touch) field.current?.focus({ preventScroll: true });
  }, [conversation, touch]);

  useLayoutEffect(() => grow(field.current), [text]);

  const write = (/** @type {string} */ value) => {
    edited.current = true;
    setText(value);
    conversation.draft = value;
  };

  const over = pairing.banner && OVER.has(pairing.banner.kind);
  const why = over
    ? t("chat.cannotSend")
    : (pictures.items.find((item) => item.trouble)?.trouble ?? "");
  const empty = !text.trim() && !pictures.items.length;

  const send = () => {
    if (empty || why) return;
    try {
      const chosen = pictures.items.map(({ name, type, data }) => ({ name, type, data }));
      conversation.send(text.trim(), chosen);
    } catch (error) {
      if (!(error instanceof Error && error.name === "AttachmentError")) throw error;
      const { name, code } = /** @type {Error & {code: string}} */ (error);
      setTrouble(failureText({ name, code }));
      return;
    }
    write("");
    // At once: a draft of what was sent would be sent a second time.
    conversation.flush();
    setTrouble("");
    pictures.clear();
    field.current?.focus({ preventScroll: true });
  };

  return html`<form
    class="composer"
    onSubmit=${(/** @type {Event} */ event) => {
      event.preventDefault();
      send();
    }}
  >
    <div class="composer-column">
      <${Previews} pictures=${pictures} version=${pairing.version} />
      ${trouble && html`<p class="composer-trouble" role="alert">${trouble}</p>`}
      <div class="composer-box">
        <${AttachButton} pictures=${pictures} touch=${touch} />
        <textarea
          ref=${field}
          rows="1"
          dir="auto"
          aria-label=${t("chat.message")}
          placeholder=${over ? t("chat.cannotSend") : t("chat.message")}
          enterkeyhint=${touch ? "enter" : "send"}
          disabled=${over}
          value=${text}
          onInput=${(/** @type {InputEvent & {currentTarget: HTMLTextAreaElement}} */ event) =>
            write(event.currentTarget.value)}
          onKeyDown=${(/** @type {KeyboardEvent} */ event) => {
            // Enter ends a syllable while a Korean or Japanese one is being composed.
            if (event.key !== "Enter" || event.isComposing || event.keyCode === 229) return;
            if (event.shiftKey || event.altKey || touch) return;
            event.preventDefault();
            send();
          }}
          onPaste=${(/** @type {ClipboardEvent} */ event) => {
            const files = [...(event.clipboardData?.files ?? [])];
            if (!files.length) return;
            event.preventDefault();
            pictures.add(files);
          }}
        ></textarea>
        ${
          asking &&
          html`<button
            type="button"
            class="round stop"
            aria-label=${t("chat.stop")}
            title=${t("chat.stop")}
            onClick=${() => {
              conversation.stop(asking);
              field.current?.focus({ preventScroll: true });
            }}
          >
            <${Icon} name="stop" />
          </button>`
        }
        ${
          !(asking && empty) &&
          html`<button
            type="submit"
            class="round send"
            aria-label=${t("chat.send")}
            title=${why || t("chat.send")}
            disabled=${empty || Boolean(why)}
          >
            <${Icon} name="send" />
          </button>`
        }
      </div>
    </div>
    ${dragging && html`<div class="drop" aria-hidden="true"><p>${t("chat.drop")}</p></div>`}
  </form>`;
}

/**
 * As high as its text where CSS cannot do it.
 *
 * @param {HTMLTextAreaElement | null} field
 */
function grow(field) {
  if (!field || CSS.supports("field-sizing", "content")) return;
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

/** Whether people write with a thumb: Enter makes a new line there. */
function useTouch() {
  const [touch, setTouch] = useState(() => matchMedia("(pointer: coarse)").matches);
  useEffect(() => {
    const query = matchMedia("(pointer: coarse)");
    const listener = () => setTouch(query.matches);
    query.addEventListener("change", listener);
    return () => query.removeEventListener("change", listener);
  }, []);
  return touch;
}

/**
 * The question or answer that "stop" is for.
 *
 * @param {Conversation} conversation
 * @returns {import("../model/message.js").Message | null}
 */
function useAsking(conversation) {
  const find = () =>
    conversation.messages.findLast(
      ({ state, role }) => state === "streaming" || (role === "user" && state === "sending"),
    ) ?? null;
  const [asking, setAsking] = useState(find);
  useEffect(() => {
    const look = () => setAsking(find());
    look();
    const events = ["change", "append", "remove"];
    for (const event of events) conversation.addEventListener(event, look);
    return () => {
      for (const event of events) conversation.removeEventListener(event, look);
    };
  }, [conversation]);
  return asking;
}

/**
 * Whether files hover over an element; they are given to `add` when they are dropped.
 *
 * @param {HTMLElement | null} area
 * @param {(files: Iterable<File>) => void} add
 */
function useDrop(area, add) {
  const [over, setOver] = useState(false);
  const adding = useRef(add);
  adding.current = add;
  useEffect(() => {
    if (!area) return undefined;
    const files = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");
    const onOver = (/** @type {DragEvent} */ event) => {
      if (!files(event)) return;
      event.preventDefault();
      setOver(true);
    };
    const onLeave = (/** @type {DragEvent} */ event) => {
      if (!area.contains(/** @type {Node | null} */ (event.relatedTarget))) setOver(false);
    };
    const onDrop = (/** @type {DragEvent} */ event) => {
      if (!files(event)) return;
      event.preventDefault();
      setOver(false);
      adding.current(event.dataTransfer?.files ?? []);
    };
    area.addEventListener("dragover", onOver);
    area.addEventListener("dragleave", onLeave);
    area.addEventListener("drop", onDrop);
    return () => {
      area.removeEventListener("dragover", onOver);
      area.removeEventListener("dragleave", onLeave);
      area.removeEventListener("drop", onDrop);
    };
  }, [area]);
  return over;
}
