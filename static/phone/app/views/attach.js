/** Pictures that go with the next message. */

import { sniff } from "../../core/attachments.js";
import { html, useEffect, useReducer, useRef, useState } from "../html.js";
import { bytes, t } from "../i18n.js";
import { SENDABLE_BYTES, scaled } from "../model/scaling.js";
import { Menu } from "./dialog.js";
import { Icon } from "./icons.js";

/** @typedef {{name: string, type: string, data: Blob, url: string, trouble: string}} Item */

const BEGINNING = 512; // bytes by which a file is recognized

/**
 * The pictures that were chosen and not sent; the conversation keeps them while it is not shown.
 *
 * @param {import("../model/conversation.js").Conversation} conversation another one never
 * @param {number} version of the pairing's protocol
 * @param {(trouble: string) => void} onTrouble
 */
export function usePictures(conversation, version, onTrouble) {
  const [, redraw] = useReducer((/** @type {number} */ count) => count + 1, 0);
  const judge = (/** @type {Blob} */ data) =>
    version === 2 && data.size > SENDABLE_BYTES
      ? t("chat.pictureTooLarge", { size: bytes(data.size), limit: bytes(SENDABLE_BYTES) })
      : "";
  const shown = (/** @type {{name: string, type: string, data: Blob}} */ picture) => ({
    ...picture,
    url: URL.createObjectURL(picture.data),
    trouble: judge(picture.data),
  });
  const [first] = useState(() => conversation.chosen.map(shown));
  const items = useRef(/** @type {Item[]} */ (first));
  const changed = (/** @type {Item[]} */ list) => {
    items.current = list;
    conversation.chosen = list.map(({ name, type, data }) => ({ name, type, data }));
    redraw(undefined);
  };
  useEffect(
    () => () => {
      for (const { url } of items.current) URL.revokeObjectURL(url);
    },
    [],
  );
  return {
    get items() {
      return items.current;
    },
    /** @param {Iterable<File>} files */
    async add(files) {
      const all = await Promise.all([...files].map(recognized));
      const pictures = all.filter((one) => one !== null);
      onTrouble(pictures.length < all.length ? t("chat.notAPicture") : "");
      changed([...items.current, ...pictures.map(shown)]);
    },
    /** @param {Item} item */
    remove(item) {
      URL.revokeObjectURL(item.url);
      changed(items.current.filter((one) => one !== item));
    },
    /** @param {Item} item */
    async shrink(item) {
      const smaller = await scaled(item.data, SENDABLE_BYTES);
      const name = `${item.name.replace(/\.[^.]*$/, "")}.jpg`;
      const next = smaller
        ? { ...item, name, type: smaller.type, data: smaller, trouble: "" }
        : { ...item, trouble: t("chat.cannotShrink") };
      changed(items.current.map((one) => (one === item ? next : one)));
    },
    /** They were sent. */
    clear() {
      for (const { url } of items.current) URL.revokeObjectURL(url);
      changed([]);
    },
  };
}

/**
 * The picture that a file is, whatever its name ends with; null where it is none.
 *
 * @param {File} file
 * @returns {Promise<{name: string, type: string, data: Blob} | null>}
 */
async function recognized(file) {
  const beginning = await file.slice(0, BEGINNING).arrayBuffer();
  const type = sniff(new Uint8Array(beginning));
  if (!type?.startsWith("image/")) return null;
  const data = file.type === type ? file : new Blob([file], { type });
  return { name: file.name || `picture.${type.slice("image/".length)}`, type, data };
}

/** @typedef {ReturnType<typeof usePictures>} Pictures */

/**
 * The button: on a phone camera or gallery, elsewhere files at once.
 *
 * @param {{pictures: Pictures, touch: boolean}} props
 */
export function AttachButton({ pictures, touch }) {
  const gallery = useRef(/** @type {HTMLInputElement | null} */ (null));
  const camera = useRef(/** @type {HTMLInputElement | null} */ (null));
  const take = (/** @type {Event & {currentTarget: HTMLInputElement}} */ event) => {
    pictures.add(event.currentTarget.files ?? []);
    // The same picture may be chosen again.
    event.currentTarget.value = "";
  };
  return html`<div class="attach">
    ${
      touch
        ? html`<${Menu}
            label=${t("chat.attach")}
            icon="add"
            items=${[
              { label: t("chat.camera"), icon: "camera", onClick: () => camera.current?.click() },
              {
                label: t("chat.gallery"),
                icon: "picture",
                onClick: () => gallery.current?.click(),
              },
            ]}
          />`
        : html`<button
            type="button"
            class="icon-button"
            aria-label=${t("chat.attach")}
            title=${t("chat.attach")}
            onClick=${() => gallery.current?.click()}
          >
            <${Icon} name="add" />
          </button>`
    }
    <input
      ref=${gallery}
      class="gallery"
      type="file"
      accept="image/*"
      multiple
      hidden
      onChange=${take}
    />
    <input
      ref=${camera}
      class="camera"
      type="file"
      accept="image/*"
      capture="environment"
      hidden
      onChange=${take}
    />
  </div>`;
}

/** @param {{pictures: Pictures, version: number}} props */
export function Previews({ pictures, version }) {
  if (!pictures.items.length) return null;
  return html`<ul class="previews">
    ${pictures.items.map(
      (item) => html`<li key=${item.url}><${Preview} item=${item} pictures=${pictures} /></li>`,
    )}
    ${version === 1 && html`<li class="quiet small">${t("chat.willScale")}</li>`}
  </ul>`;
}

/** @param {{item: Item, pictures: Pictures}} props */
function Preview({ item, pictures }) {
  const [busy, setBusy] = useState(false);
  const { name, url, trouble } = item;
  return html`<figure class=${`preview ${trouble ? "troubled" : ""}`}>
    <div class="preview-picture">
      <img src=${url} alt=${t("chat.picture", { name })} />
      <button
        type="button"
        class="preview-remove"
        aria-label=${t("chat.removePicture", { name })}
        onClick=${() => pictures.remove(item)}
      >
        <${Icon} name="close" />
      </button>
    </div>
    ${
      trouble &&
      html`<figcaption>
        <span role="alert">${trouble}</span>
        <button
          type="button"
          class="foot-button strong"
          disabled=${busy}
          onClick=${async () => {
            setBusy(true);
            await pictures.shrink(item);
            setBusy(false);
          }}
        >
          ${t("chat.shrink")}
        </button>
      </figcaption>`
    }
  </figure>`;
}
