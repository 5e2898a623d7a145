/** A picture in a message, or another file. */

import { html, useEffect, useState } from "../html.js";
import { bytes, t } from "../i18n.js";
import { save } from "./download.js";
import { Icon } from "./icons.js";

/** @typedef {import("../model/message.js").Picture} Picture */

/**
 * The object URL of a picture once it was read.
 *
 * @param {Picture} picture
 * @param {boolean} ready
 * @returns {{url: string | null, missing: boolean, lose: () => void}}
 */
export function useUrl(picture, ready = true) {
  const [url, setUrl] = useState(/** @type {string | null} */ (null));
  const [missing, setMissing] = useState(false);
  useEffect(() => {
    if (!ready) return undefined;
    let wanted = true;
    picture.url().then(
      (found) => wanted && setUrl(found),
      () => wanted && setMissing(true),
    );
    return () => {
      wanted = false;
    };
  }, [picture, ready]);
  return { url, missing, lose: () => setMissing(true) };
}

/**
 * @param {object} props
 * @param {Picture} props.picture
 * @param {number | undefined} props.progress 0 to 1 while it is on its way
 * @param {boolean} props.mine
 * @param {() => void} props.onOpen
 */
export function PictureView({ picture, progress, mine, onOpen }) {
  const coming = progress !== undefined && !mine;
  const { url, missing, lose } = useUrl(picture, picture.shown && !coming);
  const { name, width, height } = picture;
  if (!picture.shown) return html`<${FileView} picture=${picture} />`;
  const bar =
    progress !== undefined &&
    html`<progress
      max="1"
      value=${progress}
      aria-label=${t(mine ? "chat.uploading" : "chat.receiving", { name })}
    ></progress>`;
  if (missing) {
    return html`<p class="picture missing">
      <${Icon} name="picture" /><span>${t("chat.pictureMissing")}</span>
    </p>`;
  }
  return html`<div class=${`picture ${width && height ? "" : "unmeasured"}`}>
    ${
      url
        ? html`<button
            type="button"
            aria-label=${t("chat.openPicture", { name })}
            onClick=${onOpen}
          >
            <img src=${url} alt=${name} width=${width} height=${height} onError=${lose} />
          </button>`
        : html`<div
            class="picture-room"
            ref=${(/** @type {HTMLElement | null} */ element) => {
              if (element && width && height) {
                element.style.inlineSize = `${width}px`;
                element.style.aspectRatio = `${width} / ${height}`;
              }
            }}
          >
            <${Icon} name="picture" />
          </div>`
    }
    ${bar}
  </div>`;
}

/** @param {{picture: Picture}} props */
function FileView({ picture }) {
  const { name, size } = picture;
  return html`<button
    type="button"
    class="file"
    onClick=${() => save(picture)}
  >
    <${Icon} name="attach" /><span class="visually-hidden">${t("app.save")}</span>
    <bdi class="file-name">${name}</bdi>
    <span class="quiet">${bytes(size)}</span>
  </button>`;
}
