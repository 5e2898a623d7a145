/** Questions to the user, and menus: the browser's own <dialog> and popover, so that Escape, the
 * phone's Back and the focus do what people expect. */

import { html, render, useId, useLayoutEffect, useRef, useState } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "./icons.js";

/**
 * @typedef {object} Action
 * @property {string} label
 * @property {() => void} [onClick] none: the button submits the dialog's form
 * @property {"primary" | "danger" | "plain"} [kind]
 */

/**
 * A modal dialog, open for as long as it is drawn.
 *
 * @param {object} props
 * @param {string} props.title
 * @param {() => void} props.onClose after Escape, Back or a tap beside it
 * @param {() => void} [props.onSubmit] Enter in a field, or an action without onClick
 * @param {Action[]} [props.actions]
 * @param {import("../html.js").Children} [props.children]
 */
function Dialog({ title, onClose, onSubmit, actions = [], children }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const heading = useId();
  useLayoutEffect(() => {
    const before = document.activeElement;
    const element = dialog.current;
    element?.showModal();
    return () => {
      element?.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return html`<dialog
    ref=${dialog}
    class="dialog"
    aria-labelledby=${heading}
    onCancel=${(/** @type {Event} */ event) => {
      event.preventDefault();
      onClose();
    }}
    onClick=${(/** @type {MouseEvent} */ event) => {
      // The dialog's own box is filled by its form; only its backdrop is the dialog itself.
      const box = /** @type {HTMLElement} */ (event.currentTarget);
      if (event.target === box && beside(box, event)) onClose();
    }}
  >
    <form
      method="dialog"
      onSubmit=${(/** @type {Event} */ event) => {
        event.preventDefault();
        onSubmit?.();
      }}
    >
      <h2 id=${heading}>${title}</h2>
      ${children}
      ${
        actions.length > 0 &&
        html`<div class="actions">
          ${actions.map(
            ({ label, onClick, kind = "plain" }) =>
              html`<button
                type=${onClick ? "button" : "submit"}
                class=${`button ${kind}`}
                onClick=${onClick}
              >
                ${label}
              </button>`,
          )}
        </div>`
      }
    </form>
  </dialog>`;
}

/**
 * @param {HTMLElement} element
 * @param {MouseEvent} event
 */
function beside(element, { clientX, clientY }) {
  const { left, right, top, bottom } = element.getBoundingClientRect();
  return clientX < left || clientX > right || clientY < top || clientY > bottom;
}

/**
 * Draws a dialog outside of the app's tree until it is answered.
 *
 * @template T
 * @param {(answer: (value: T) => void) => unknown} view
 * @returns {Promise<T>}
 */
function open(view) {
  const host = document.createElement("div");
  document.body.append(host);
  return new Promise((resolve) => {
    const answer = (/** @type {T} */ value) => {
      render(null, host);
      host.remove();
      resolve(value);
    };
    render(/** @type {any} */ (view(answer)), host);
  });
}

/**
 * Asks a question that is answered by yes or no; without `cancel` it tells something.
 *
 * @param {{title: string, text: string, action: string, danger?: boolean, cancel?: boolean}} question
 * @returns {Promise<boolean>}
 */
export function confirm({ title, text, action, danger = false, cancel = true }) {
  return open(
    (answer) => html`<${Dialog}
      title=${title}
      onClose=${() => answer(false)}
      actions=${[
        ...(cancel ? [{ label: t("app.cancel"), onClick: () => answer(false) }] : []),
        { label: action, onClick: () => answer(true), kind: danger ? "danger" : "primary" },
      ]}
    >
      <p>${text}</p>
    <//>`,
  );
}

/**
 * Asks for a line of text, and stays until it is kept; where `keep` rejects it says so. Null
 * where the user cancels.
 *
 * @param {{title: string, label: string, action: string, hint?: string, value?: string,
 *   maxLength?: number, keep?: (text: string) => Promise<void>}} question
 * @returns {Promise<string | null>}
 */
export function askText({ keep = async () => {}, ...question }) {
  return open(
    (answer) => html`<${TextDialog}
      ...${question}
      keep=${keep}
      onAnswer=${answer}
    />`,
  );
}

/**
 * @param {object} props
 * @param {string} props.title
 * @param {string} props.label
 * @param {string} props.action
 * @param {string} [props.hint]
 * @param {string} [props.value]
 * @param {number} [props.maxLength]
 * @param {(text: string) => Promise<void>} props.keep
 * @param {(text: string | null) => void} props.onAnswer
 */
function TextDialog(props) {
  const { title, label, action, hint = "", value = "", maxLength = 80, keep, onAnswer } = props;
  const [text, setText] = useState(value);
  const [failed, setFailed] = useState(false);
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const id = useId();
  // Behind the dialog's own effect, which focuses it, and before any key can come.
  useLayoutEffect(() => input.current?.select(), []);
  return html`<${Dialog}
    title=${title}
    onClose=${() => onAnswer(null)}
    onSubmit=${() => {
      setFailed(false);
      keep(text.trim()).then(
        () => onAnswer(text.trim()),
        () => setFailed(true),
      );
    }}
    actions=${[
      { label: t("app.cancel"), onClick: () => onAnswer(null) },
      { label: action, kind: "primary" },
    ]}
  >
    <div class="field">
      <label for=${id}>${label}</label>
      <input
        id=${id}
        ref=${input}
        class="input"
        dir="auto"
        autocomplete="off"
        maxlength=${maxLength}
        value=${text}
        onInput=${(/** @type {InputEvent} */ event) =>
          setText(/** @type {HTMLInputElement} */ (event.currentTarget).value)}
        aria-describedby=${hint ? `${id}-hint` : undefined}
      />
      ${hint && html`<p id=${`${id}-hint`} class="quiet small">${hint}</p>`}
    </div>
    <p role="alert" class="error">${failed && t("app.keepFailed")}</p>
  <//>`;
}

/**
 * @typedef {object} Item
 * @property {string} label
 * @property {() => void} onClick
 * @property {import("./icons.js").IconName} [icon]
 * @property {boolean} [danger]
 */

/**
 * A button that opens a menu beneath itself. Arrow keys, Home and End move in it.
 *
 * @param {{label: string, items: Item[], icon?: import("./icons.js").IconName}} props
 */
export function Menu({ label, items, icon = "more" }) {
  const id = useId();
  const button = useRef(/** @type {HTMLButtonElement | null} */ (null));
  const menu = useRef(/** @type {HTMLElement | null} */ (null));
  const [opened, setOpened] = useState(false);

  const place = () => {
    if (!button.current || !menu.current) return;
    const from = button.current.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = menu.current;
    const below = from.bottom + height + 8 <= window.innerHeight;
    const rtl = getComputedStyle(button.current).direction === "rtl";
    const left = rtl ? from.left : from.right - width;
    menu.current.style.left = `${Math.max(8, Math.min(left, window.innerWidth - width - 8))}px`;
    menu.current.style.top = `${Math.max(8, below ? from.bottom : from.top - height)}px`;
  };

  return html`<button
      ref=${button}
      type="button"
      class="icon-button"
      aria-label=${label}
      aria-haspopup="menu"
      aria-expanded=${opened}
      popovertarget=${id}
    >
      <${Icon} name=${icon} />
    </button>
    <div
      ref=${menu}
      id=${id}
      class="menu"
      popover="auto"
      role="menu"
      aria-label=${label}
      onToggle=${(/** @type {ToggleEvent} */ event) => {
        const open = event.newState === "open";
        setOpened(open);
        if (open) {
          place();
          moveFocus(menu.current, 0);
        }
      }}
      onKeyDown=${(/** @type {KeyboardEvent} */ event) => onMenuKey(event, menu.current)}
    >
      ${items.map(
        (item) => html`<button
          type="button"
          role="menuitem"
          tabindex="-1"
          class=${item.danger ? "danger" : ""}
          onClick=${() => {
            menu.current?.hidePopover();
            item.onClick();
          }}
        >
          ${item.icon && html`<${Icon} name=${item.icon} />`}${item.label}
        </button>`,
      )}
    </div>`;
}

/**
 * @param {KeyboardEvent} event
 * @param {HTMLElement | null} menu
 */
function onMenuKey(event, menu) {
  const at = items(menu).indexOf(/** @type {HTMLElement} */ (document.activeElement));
  const target = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
  if (event.key === "Tab") menu?.hidePopover();
  if (target === undefined) return;
  event.preventDefault();
  moveFocus(menu, target);
}

/**
 * @param {HTMLElement | null} menu
 * @param {number} index counted round the ends
 */
function moveFocus(menu, index) {
  const all = items(menu);
  all.at(index % all.length)?.focus();
}

/**
 * @param {HTMLElement | null} menu
 * @returns {HTMLElement[]}
 */
function items(menu) {
  return [...(menu?.querySelectorAll('[role="menuitem"]') ?? [])].map(
    (item) => /** @type {HTMLElement} */ (item),
  );
}
