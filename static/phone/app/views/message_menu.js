/** The menu of a message, where it was asked for. One for the whole list. */

import { html, useLayoutEffect, useRef } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "./icons.js";

/** @typedef {import("./dialog.js").Item} Item */

/**
 * @param {object} props
 * @param {{left: number, top: number}} props.at pixels of the viewport
 * @param {Item[]} props.items
 * @param {() => void} props.onClose
 */
export function MessageMenu({ at, items, onClose }) {
  const menu = useRef(/** @type {HTMLElement | null} */ (null));
  const close = useRef(() => {});
  useLayoutEffect(() => {
    const before = document.activeElement;
    const element = menu.current;
    if (!element) return undefined;
    element.showPopover();
    const { offsetWidth: width, offsetHeight: height } = element;
    const left = Math.min(at.left, window.innerWidth - width - 8);
    const top = at.top + height + 8 <= window.innerHeight ? at.top : at.top - height;
    element.style.left = `${Math.max(8, left)}px`;
    element.style.top = `${Math.max(8, top)}px`;
    move(element, 0);

    close.current = () => {
      element.hidePopover();
      // Before anything else is opened, which gives it back to whom it took it from.
      if (before instanceof HTMLElement && before.isConnected)
        before.focus({ preventScroll: true });
      onClose();
    };
    const onPointerDown = (/** @type {PointerEvent} */ event) => {
      if (!(event.target instanceof Node && element.contains(event.target))) close.current();
    };
    document.addEventListener("pointerdown", onPointerDown, true);
    // The phone's Back.
    const { CloseWatcher } = /** @type {any} */ (window);
    const watcher = CloseWatcher && new CloseWatcher();
    watcher?.addEventListener("close", () => close.current());
    return () => {
      document.removeEventListener("pointerdown", onPointerDown, true);
      watcher?.destroy();
    };
  }, [at]);
  // "auto" would close it as soon as the finger that opened it by a long press is lifted.
  return html`<div
    ref=${menu}
    class="menu"
    popover="manual"
    role="menu"
    aria-label=${t("chat.actions")}
    onKeyDown=${(/** @type {KeyboardEvent & {currentTarget: HTMLElement}} */ event) =>
      onKey(event, close.current)}
    onContextMenu=${(/** @type {Event} */ event) => event.preventDefault()}
  >
    ${items.map(
      ({ label, icon, danger, onClick }) => html`<button
        type="button"
        role="menuitem"
        tabindex="-1"
        class=${danger ? "danger" : ""}
        onClick=${() => {
          close.current();
          onClick();
        }}
      >
        ${icon && html`<${Icon} name=${icon} />`}${label}
      </button>`,
    )}
  </div>`;
}

/**
 * @param {KeyboardEvent & {currentTarget: HTMLElement}} event
 * @param {() => void} close
 */
function onKey(event, close) {
  const menu = event.currentTarget;
  if (event.key === "Tab" || event.key === "Escape") {
    if (event.key === "Escape") event.preventDefault();
    close();
    return;
  }
  const at = [...menu.children].indexOf(/** @type {Element} */ (document.activeElement));
  const target = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
  if (target === undefined) return;
  event.preventDefault();
  move(menu, target);
}

/**
 * @param {HTMLElement} menu
 * @param {number} index counted round the ends
 */
function move(menu, index) {
  const items = [...menu.children];
  const item = items.at(index % items.length);
  if (item instanceof HTMLElement) item.focus();
}
