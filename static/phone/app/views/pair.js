/** Where a link comes in: by camera, by a picture of the code, or pasted. Nothing is connected. */

import { LinkError } from "../../core/errors.js";
import { html, useId, useRef, useState } from "../html.js";
import { t } from "../i18n.js";
import { BackButton } from "./bar.js";
import { Icon } from "./icons.js";
import { readPicture, Scanner } from "./scanner.js";

/** @typedef {import("../i18n.js").Key} Key */
/** @typedef {import("../model/phonebook.js").Reading} Reading */

const LINK = /(?:https?|coralmux|openclaw):\/\/[^\s<>"]+/gi;
const PARTS = ["scheme", "form", "relay", "token", "psk"];

/**
 * What is wrong with a link, by the part that `phonebook.read` names.
 *
 * @param {unknown} error of phonebook.read
 * @returns {Key}
 */
export function wordsFor(error) {
  const part = error instanceof LinkError && PARTS.includes(error.part) ? error.part : "form";
  return /** @type {Key} */ (`pair.bad.${part}`);
}

/**
 * The first link in a text that says more, without the full stop or bracket behind it. A text
 * whose rest could belong to the link, which a line break cut in two, stays as it is: half a link
 * may be one that lacks its secret.
 *
 * @param {string} text
 * @returns {string}
 */
function linkIn(text) {
  const [link] = text.match(LINK) ?? [];
  if (!link || /[=&]/.test(text.replaceAll(LINK, ""))) return text;
  return link.replace(/[^\p{L}\p{N}_/-]+$/u, "");
}

/**
 * @param {object} props
 * @param {import("../model/phonebook.js").Phonebook} props.phonebook
 * @param {Key} [props.trouble] of the link that the page was opened with
 * @param {() => void} props.onBack
 * @param {(reading: Reading) => void} props.onRead
 */
export function Pair({ phonebook, trouble: first, onBack, onRead }) {
  const [scanning, setScanning] = useState(false);
  const [text, setText] = useState("");
  const [trouble, setTrouble] = useState(/** @type {Key | null} */ (first ?? null));
  const input = useId();
  const picture = useRef(/** @type {HTMLInputElement | null} */ (null));

  const read = (/** @type {string} */ link) => {
    try {
      onRead(phonebook.read(linkIn(link)));
    } catch (error) {
      setTrouble(wordsFor(error));
    }
  };
  const readFile = async (/** @type {File | undefined} */ file) => {
    if (!file) return;
    const link = await readPicture(file);
    if (link === null) setTrouble("pair.pictureFailed");
    else read(link);
  };

  return html`<header class="bar">
      <${BackButton} onBack=${onBack} />
      <h1 tabindex="-1">${t("pair.title")}</h1>
    </header>
    <div class="scroll">
      <div class="column stack">
        <p class="quiet"><${WithCommand} text=${t("pair.intro", { command: "\n" })} /></p>
        <div role="alert">
          ${
            trouble &&
            html`<p class="note">
              <${Icon} name="alert" />
              <span>${t(trouble)}</span>
            </p>`
          }
        </div>
        ${
          scanning &&
          html`<${Scanner}
            onText=${(/** @type {string} */ link) => {
              setScanning(false);
              read(link);
            }}
            onTrouble=${(/** @type {Key} */ key) => {
              setScanning(false);
              setTrouble(key);
            }}
          />`
        }
        <button
          type="button"
          class=${`button wide ${scanning ? "" : "primary"}`}
          onClick=${() => {
            setTrouble(null);
            setScanning(!scanning);
          }}
        >
          ${scanning ? t("pair.stop") : html`<${Icon} name="scan" />${t("pair.scan")}`}
        </button>
        <form
          class="stack paste"
          onSubmit=${(/** @type {Event} */ event) => {
            event.preventDefault();
            read(text);
          }}
        >
          <div class="field">
            <label for=${input}>${t("pair.pasteLabel")}</label>
            <input
              id=${input}
              class="input"
              type="text"
              inputmode="url"
              dir="ltr"
              autocomplete="off"
              autocapitalize="off"
              spellcheck=${false}
              placeholder=${t("pair.pastePlaceholder")}
              value=${text}
              onInput=${(/** @type {InputEvent} */ event) => {
                setText(/** @type {HTMLInputElement} */ (event.currentTarget).value);
                setTrouble(null);
              }}
            />
          </div>
          <button class=${`button wide ${text ? "primary" : ""}`} disabled=${!text.trim()}>
            ${t("pair.continue")}
          </button>
        </form>
        <input
          ref=${picture}
          type="file"
          accept="image/*"
          hidden
          onChange=${(/** @type {Event} */ event) => {
            const field = /** @type {HTMLInputElement} */ (event.currentTarget);
            readFile(field.files?.[0]);
            field.value = "";
          }}
        />
        <button
          type="button"
          class="button plain wide"
          onClick=${() => {
            setTrouble(null);
            picture.current?.click();
          }}
        >
          <${Icon} name="picture" />${t("pair.picture")}
        </button>
      </div>
    </div>`;
}

/**
 * @param {{text: string}} props with a line break where the command goes
 */
function WithCommand({ text }) {
  const [before, after] = text.split("\n");
  return html`${before}<code>coralmux-agent pair</code>${after}`;
}
