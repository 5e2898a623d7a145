/** Pictures, as large as the screen. */

import { html, useEffect, useLayoutEffect, useRef, useState } from "../html.js";
import { t } from "../i18n.js";
import { save } from "./download.js";
import { Icon } from "./icons.js";
import { useUrl } from "./picture.js";

/** @typedef {import("../model/message.js").Picture} Picture */

/**
 * @param {object} props
 * @param {Picture[]} props.pictures of the conversation
 * @param {Picture} props.first the one to begin with
 * @param {() => void} props.onClose
 */
export function Viewer({ pictures, first, onClose }) {
  const [picture, setPicture] = useState(first);
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useLayoutEffect(() => {
    const before = document.activeElement;
    const element = dialog.current;
    element?.showModal();
    return () => {
      element?.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  const leave = useBack(onClose);
  const index = pictures.indexOf(picture);
  const to = (/** @type {number} */ step) => {
    const next = pictures[index + step];
    if (next) setPicture(next);
  };
  // One that is still on its way up is none of those that can be gone through.
  const several = index >= 0 && pictures.length > 1;
  const title = several ? t("chat.viewer", { index: index + 1, count: pictures.length }) : "";
  return html`<dialog
    ref=${dialog}
    class="viewer"
    aria-label=${title ? `${title}: ${picture.name}` : picture.name}
    onCancel=${(/** @type {Event} */ event) => {
      event.preventDefault();
      leave();
    }}
    onKeyDown=${(/** @type {KeyboardEvent} */ event) => {
      const forward = document.documentElement.dir === "rtl" ? "ArrowLeft" : "ArrowRight";
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
        to(event.key === forward ? 1 : -1);
      }
    }}
  >
    <div class="viewer-bar">
      <button type="button" class="icon-button" aria-label=${t("app.close")} onClick=${leave}>
        <${Icon} name="close" />
      </button>
      <p class="viewer-name">
        <bdi>${picture.name}</bdi>
        ${title && html`<span class="small">${title}</span>`}
      </p>
      <button
        type="button"
        class="icon-button"
        aria-label=${t("app.save")}
        onClick=${() => save(picture)}
      >
        <${Icon} name="export" class="upside-down" />
      </button>
    </div>
    <${Large} key=${picture.id} picture=${picture} />
    ${
      several &&
      html`<div class="viewer-steps">
        <button
          type="button"
          class="icon-button"
          aria-label=${t("chat.previousPicture")}
          disabled=${index === 0}
          onClick=${() => to(-1)}
        >
          <${Icon} name="back" />
        </button>
        <button
          type="button"
          class="icon-button"
          aria-label=${t("chat.nextPicture")}
          disabled=${index === pictures.length - 1}
          onClick=${() => to(1)}
        >
          <${Icon} name="next" />
        </button>
      </div>`
    }
  </dialog>`;
}

/**
 * An entry of its own in the history, for as long as it is drawn: Back leaves the picture, not
 * what lies beneath it.
 *
 * @param {() => void} onBack
 * @returns {() => void} goes back. The browser does so in its own time: only then is `onBack`
 *   called, so that nothing is opened anew upon an entry that is about to go.
 */
function useBack(onBack) {
  const leaving = useRef(false);
  useLayoutEffect(() => {
    const { state } = history;
    const depth = (state?.depth ?? 0) + 1;
    history.pushState({ ...state, depth, viewer: true }, "", location.pathname);
    window.addEventListener("popstate", onBack);
    return () => {
      window.removeEventListener("popstate", onBack);
      if (history.state?.depth === depth && !leaving.current) history.back();
    };
  }, []);
  return () => {
    if (leaving.current) return;
    leaving.current = true;
    history.back();
  };
}

/** @param {{picture: Picture}} props */
function Large({ picture }) {
  const { url, missing, lose } = useUrl(picture);
  const [zoomed, setZoomed] = useState(/** @type {{x: number, y: number} | null} */ (null));
  const stage = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    const element = stage.current;
    if (!zoomed || !element) return;
    // What was clicked comes to the middle.
    element.scrollLeft = zoomed.x * element.scrollWidth - element.clientWidth / 2;
    element.scrollTop = zoomed.y * element.scrollHeight - element.clientHeight / 2;
  }, [zoomed]);
  return html`<div class=${`viewer-stage ${zoomed ? "zoomed" : ""}`} ref=${stage} tabindex="-1">
    ${
      missing
        ? html`<p>${t("chat.pictureMissing")}</p>`
        : url &&
          html`<button
            type="button"
            aria-label=${t("chat.zoom")}
            aria-pressed=${Boolean(zoomed)}
            onClick=${(/** @type {MouseEvent & {currentTarget: HTMLElement}} */ event) => {
              const box = event.currentTarget.getBoundingClientRect();
              const x = event.detail ? (event.clientX - box.left) / box.width : 0.5;
              const y = event.detail ? (event.clientY - box.top) / box.height : 0.5;
              setZoomed(zoomed ? null : { x, y });
            }}
          >
            <img src=${url} alt=${picture.name} onError=${lose} />
          </button>`
    }
  </div>`;
}
