/** The messages of a conversation, oldest first, and the way through them. */

import {
  html,
  useEffect,
  useLayoutEffect,
  useMemo,
  useReducer,
  useRef,
  useState,
} from "../html.js";
import { day, t } from "../i18n.js";
import { copyText } from "./clipboard.js";
import { confirm } from "./dialog.js";
import { Icon } from "./icons.js";
import { Message } from "./message.js";
import { MessageMenu } from "./message_menu.js";
import { useMidnight } from "./midnight.js";
import { keepPlace } from "./scrolling.js";
import { speaker } from "./speaker.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("../model/message.js").Message} Model */
/** @typedef {import("../model/message.js").Picture} Picture */
/** @typedef {import("../model/conversation.js").Conversation} Conversation */

// Messages of one side within this time stand together.
const TOGETHER = 5 * 60_000;
const NEAR = 600; // pixels from the beginning at which what is before it is read
const LONG_PRESS = 500; // milliseconds
const STEADY = 10; // pixels that a finger moves while it rests

/**
 * @param {object} props
 * @param {Conversation} props.conversation
 * @param {string} props.name the agent's
 * @param {string} props.hint for a conversation that is empty
 * @param {(scroller: HTMLElement | null) => void} props.onScroller
 */
export function MessageList({ conversation, name, hint, onScroller }) {
  const [, redraw] = useReducer((/** @type {number} */ count) => count + 1, 0);
  const [atEnd, setAtEnd] = useState(true);
  const [menu, setMenu] = useState(
    /** @type {{message: Model, at: {left: number, top: number}} | null} */ (null),
  );
  const [shown, setShown] = useState(/** @type {Picture | null} */ (null));
  const scroller = useRef(/** @type {HTMLElement | null} */ (null));
  const content = useRef(/** @type {HTMLElement | null} */ (null));
  const place = useRef(/** @type {ReturnType<typeof keepPlace> | null} */ (null));
  const restore = useRef(/** @type {(() => void) | null} */ (null));
  const watchers = useMemo(() => /** @type {Map<Model, () => void>} */ (new Map()), [conversation]);
  const rows = useMemo(() => /** @type {Map<Model, Row>} */ (new Map()), [conversation, name]);

  const doings = useMemo(
    () => ({
      watch(/** @type {Model} */ message, /** @type {() => void} */ draw) {
        watchers.set(message, draw);
        return () => {
          if (watchers.get(message) === draw) watchers.delete(message);
        };
      },
      copy: (/** @type {Model} */ message) => copyText(message.text),
      retry: (/** @type {Model} */ message) => conversation.retry(message),
      open: (/** @type {Model} */ _message, /** @type {Picture} */ picture) => setShown(picture),
      menu(/** @type {Model} */ message, /** @type {MouseEvent | PointerEvent} */ event) {
        event.preventDefault();
        const button = event.currentTarget;
        // A key opens it at the button, a pointer where it is.
        const box = button instanceof HTMLButtonElement ? button.getBoundingClientRect() : null;
        const at = box
          ? { left: box.left, top: box.bottom }
          : { left: event.clientX, top: event.clientY };
        // A long press may be told twice: by the time that went by, and by "contextmenu".
        setMenu((open) => (open?.message === message ? open : { message, at }));
      },
    }),
    [conversation, watchers],
  );

  useLayoutEffect(() => {
    if (!scroller.current || !content.current) return undefined;
    const keeping = keepPlace(scroller.current, content.current, setAtEnd);
    place.current = keeping;
    setAtEnd(true);
    onScroller(scroller.current);
    return () => {
      keeping.stop();
      onScroller(null);
    };
  }, [conversation]);

  useLayoutEffect(() => {
    const on = (/** @type {string} */ type, /** @type {(detail: any) => void} */ work) => {
      const listener = (/** @type {Event} */ event) =>
        work(/** @type {CustomEvent} */ (event).detail ?? {});
      conversation.addEventListener(type, listener);
      return () => conversation.removeEventListener(type, listener);
    };
    const speak = speaker(name, conversation.messages);
    const off = [
      on("change", ({ message }) => {
        if (!message) redraw(undefined);
        else watchers.get(message)?.();
        if (message) speak(message);
      }),
      on("append", ({ message }) => {
        if (message.role === "user") place.current?.toEnd();
        speak(message);
        redraw(undefined);
      }),
      on("remove", () => redraw(undefined)),
      on("older", () => {
        restore.current = place.current?.hold(firstSeen(scroller.current)) ?? null;
        redraw(undefined);
      }),
    ];
    redraw(undefined);
    return () => {
      for (const end of off) end();
    };
  }, [conversation, name, watchers]);

  useLayoutEffect(() => {
    restore.current?.();
    restore.current = null;
  });

  useMidnight();
  useSeen(conversation, atEnd);
  useOlder(conversation, scroller);
  const press = useLongPress(conversation, doings);

  const remove = async (/** @type {Model} */ message) => {
    const sure = await confirm({
      title: t("chat.deleteTitle"),
      text: t("chat.deleteText"),
      action: t("chat.delete"),
      danger: true,
    });
    if (!sure) return;
    const at = conversation.messages.indexOf(message);
    conversation.remove(message);
    const neighbour = conversation.messages[at] ?? conversation.messages[at - 1];
    const id = neighbour && CSS.escape(neighbour.id);
    const element = id && scroller.current?.querySelector(`[data-id="${id}"]`);
    const target = element instanceof HTMLElement ? element : scroller.current;
    target?.focus({ preventScroll: true });
  };

  const { messages, unread } = conversation;
  const there = new Set(messages);
  for (const message of rows.keys()) if (!there.has(message)) rows.delete(message);
  const pictures = messages.flatMap((message) =>
    message.pictures.filter((picture) => picture.shown && picture.progress === undefined),
  );

  return html`<div class="messages-frame">
    <div
      class="scroll messages"
      ref=${scroller}
      role="log"
      aria-live="off"
      aria-label=${t("chat.messages", { name })}
      tabindex="0"
      ...${press}
    >
      <div class="messages-content" ref=${content}>
        ${conversation.fetching && html`<p class="chat-note">${t("chat.fetching")}</p>`}
        ${
          conversation.loaded &&
          !conversation.fetching &&
          !messages.length &&
          html`<${Empty} name=${name} hint=${hint} />`
        }
        ${messages.map((message, index) =>
          row(rows, message, messages[index - 1], { name, doings }),
        )}
      </div>
    </div>
    ${
      !atEnd &&
      html`<button
        type="button"
        class="newest"
        aria-label=${unread ? t("chat.newestUnread", { count: unread }) : t("chat.newest")}
        onClick=${() => {
          place.current?.toEnd();
          scroller.current?.focus({ preventScroll: true });
        }}
      >
        <${Icon} name="down" />
        ${unread > 0 && html`<span class="badge" aria-hidden="true">${unread}</span>`}
      </button>`
    }
    ${
      menu &&
      html`<${MessageMenu}
        at=${menu.at}
        items=${itemsFor(menu.message, conversation, () => remove(menu.message))}
        onClose=${() => setMenu(null)}
      />`
    }
    ${
      shown &&
      html`<${Viewer} pictures=${pictures} first=${shown} onClose=${() => setShown(null)} />`
    }
  </div>`;
}

/** What was drawn for a message, to be left alone while nothing about it has changed.
 * @typedef {{day: string, joined: boolean, view: unknown}} Row */

/**
 * @param {Map<Model, Row>} rows
 * @param {Model} message
 * @param {Model | undefined} before
 * @param {{name: string, doings: import("./message.js").Doings}} props
 */
function row(rows, message, before, props) {
  const today = day(message.at);
  const newDay = !before || day(before.at) !== today ? today : "";
  const joined = !newDay && before?.role === message.role && message.at - before.at < TOGETHER;
  const known = rows.get(message);
  if (known && known.day === newDay && known.joined === joined) return known.view;
  const view = html`<div class="entry" key=${message.id}>
    ${newDay && html`<h2 class="day"><span>${newDay}</span></h2>`}
    <${Message} message=${message} joined=${joined} ...${props} />
  </div>`;
  rows.set(message, { day: newDay, joined, view });
  return view;
}

/** @param {{name: string, hint: string}} props */
function Empty({ name, hint }) {
  return html`<div class="chat-empty">
    <p><bdi>${t("chat.empty", { name })}</bdi></p>
    <p class="quiet small">${hint}</p>
  </div>`;
}

/**
 * @param {Model} message
 * @param {Conversation} conversation
 * @param {() => void} onDelete
 * @returns {import("./dialog.js").Item[]}
 */
function itemsFor(message, conversation, onDelete) {
  const { role, text, state } = message;
  /** @type {import("./dialog.js").Item[]} */
  const items = [];
  if (text) {
    items.push({ label: t("app.copy"), icon: "copy", onClick: () => copyText(text) });
  }
  if (state === "failed" || (role === "user" && message.settled)) {
    items.push({
      label: t("chat.retry"),
      icon: "retry",
      onClick: () => conversation.retry(message),
    });
  }
  if (state === "waiting" || state === "streaming") {
    items.push({ label: t("chat.stop"), icon: "stop", onClick: () => conversation.stop(message) });
  }
  items.push({
    label: t("chat.delete"),
    icon: "trash",
    danger: true,
    onClick: onDelete,
  });
  return items;
}

/**
 * What was said in the first message that is at least partly seen; without the day and the space
 * above it, which go when an older message of the same day comes in.
 *
 * @param {HTMLElement | null} scroller
 */
function firstSeen(scroller) {
  if (!scroller) return null;
  const { top } = scroller.getBoundingClientRect();
  const said = scroller.querySelectorAll(".said");
  return [...said].find((one) => one.getBoundingClientRect().bottom > top) ?? null;
}

/**
 * Marks as read what stands at the end of a list that people look at.
 *
 * @param {Conversation} conversation
 * @param {boolean} atEnd
 */
function useSeen(conversation, atEnd) {
  useEffect(() => {
    const see = () => {
      if (atEnd && document.visibilityState === "visible") conversation.markRead();
    };
    see();
    conversation.addEventListener("change", see);
    document.addEventListener("visibilitychange", see);
    return () => {
      conversation.removeEventListener("change", see);
      document.removeEventListener("visibilitychange", see);
    };
  }, [conversation, atEnd]);
}

/**
 * Reads older messages when the beginning comes near.
 *
 * @param {Conversation} conversation
 * @param {{current: HTMLElement | null}} scroller
 */
function useOlder(conversation, scroller) {
  useEffect(() => {
    const element = scroller.current;
    if (!element) return undefined;
    let wanted = true;
    let reading = false;
    const read = async () => {
      if (reading) return;
      reading = true;
      while (wanted && conversation.loaded && conversation.hasOlder) {
        // Only what is drawn tells how far it is to the beginning.
        await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
        if (element.scrollTop > NEAR) break;
        await conversation.loadOlder();
      }
      reading = false;
    };
    read();
    element.addEventListener("scroll", read, { passive: true });
    conversation.addEventListener("change", read);
    return () => {
      wanted = false;
      element.removeEventListener("scroll", read);
      conversation.removeEventListener("change", read);
    };
  }, [conversation]);
}

/**
 * A finger that rests on what the user wrote opens its menu, where the browser does not say so
 * itself by "contextmenu".
 *
 * @param {Conversation} conversation
 * @param {import("./message.js").Doings} doings
 */
function useLongPress(conversation, doings) {
  const timer = useRef(/** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined));
  const from = useRef({ x: 0, y: 0 });
  const end = () => clearTimeout(timer.current);
  return {
    onPointerDown(/** @type {PointerEvent} */ event) {
      end();
      if (event.pointerType !== "touch" || !(event.target instanceof Element)) return;
      const id = event.target.closest(".message.me")?.getAttribute("data-id");
      const message = conversation.messages.find((one) => one.id === id);
      if (!message || event.target.closest("a, button")) return;
      from.current = { x: event.clientX, y: event.clientY };
      timer.current = setTimeout(() => doings.menu(message, event), LONG_PRESS);
    },
    onPointerMove(/** @type {PointerEvent} */ { clientX, clientY }) {
      if (Math.hypot(clientX - from.current.x, clientY - from.current.y) > STEADY) end();
    },
    onPointerUp: end,
    onPointerCancel: end,
    onContextMenu: end,
  };
}
