/** The settings of the app: language, storage, and what it is. */

import { html, useEffect, useId, useModel, useState } from "../html.js";
import { bytes, chooseLanguage, chosenLanguage, languages, negotiate, t } from "../i18n.js";
import { Avatar } from "./avatar.js";
import { BackButton } from "./bar.js";
import { Icon } from "./icons.js";

/** The version is a part of the files' addresses. */
const VERSION = new URL(import.meta.url).pathname.match(/\/(?:static\/|files-)([^/]+)\//)?.[1];

/**
 * @param {object} props
 * @param {import("../model/phonebook.js").Phonebook} props.phonebook
 * @param {() => void} props.onBack
 * @param {(pairing: import("../model/pairing.js").Pairing) => void} props.onDetails
 */
export function Settings({ phonebook, onBack, onDetails }) {
  useModel(phonebook);
  const { pairings } = phonebook;
  return html`<header class="bar">
      <${BackButton} onBack=${onBack} />
      <h1 tabindex="-1">${t("settings.title")}</h1>
    </header>
    <div class="scroll">
      <div class="column stack settings">
        <section class="card"><${Language} /></section>
        ${
          pairings.length > 0 &&
          html`<section>
            <h2>${t("settings.agents")}</h2>
            <div class="card actions-list">
              ${pairings.map(
                (pairing) => html`<${Agent}
                  key=${pairing.id}
                  pairing=${pairing}
                  onDetails=${() => onDetails(pairing)}
                />`,
              )}
            </div>
          </section>`
        }
        <section>
          <h2>${t("settings.storage")}</h2>
          <div class="card stack"><${Kept} /></div>
        </section>
        <section>
          <h2>${t("settings.about")}</h2>
          <dl class="card facts">
            <div>
              <dt>${t("app.name")}</dt>
              <dd>${t("settings.version")} <span dir="ltr">${VERSION}</span></dd>
            </div>
          </dl>
        </section>
      </div>
    </div>`;
}

/**
 * @param {{pairing: import("../model/pairing.js").Pairing, onDetails: () => void}} props
 */
function Agent({ pairing, onDetails }) {
  useModel(pairing);
  const { usage } = pairing;
  return html`<button type="button" onClick=${onDetails}>
    <${Avatar} pairing=${pairing} size="small" />
    <span>
      <bdi>${pairing.name}</bdi>
      ${
        usage &&
        html`<span class="quiet small used">
          ${t("settings.usage", { day: bytes(usage.dayBytes), month: bytes(usage.monthBytes) })}
        </span>`
      }
    </span>
    <${Icon} name="next" />
  </button>`;
}

function Language() {
  const id = useId();
  const browser = negotiate(navigator.languages).language;
  return html`<div class="field">
    <label for=${id}>${t("settings.language")}</label>
    <select
      id=${id}
      class="input"
      onChange=${(/** @type {Event} */ event) =>
        chooseLanguage(/** @type {HTMLSelectElement} */ (event.currentTarget).value || null)}
    >
      <option value="" selected=${chosenLanguage() === null}>
        ${t("settings.languageBrowser", { language: String(languages[browser]["language.name"]) })}
      </option>
      ${Object.entries(languages).map(
        ([code, texts]) => html`<option
          value=${code}
          lang=${code}
          selected=${chosenLanguage() === code}
        >
          ${texts["language.name"]}
        </option>`,
      )}
    </select>
  </div>`;
}

/** What this browser keeps, and for how long. */
function Kept() {
  const [used, setUsed] = useState(/** @type {number | null} */ (null));
  const [persistent, setPersistent] = useState(true);
  const [refused, setRefused] = useState(false);
  useEffect(() => {
    navigator.storage?.estimate?.().then(({ usage }) => setUsed(usage ?? null));
    navigator.storage?.persisted?.().then(setPersistent);
  }, []);
  const persist = async () => {
    const granted = await navigator.storage.persist();
    setPersistent(granted);
    setRefused(!granted);
  };
  return html`<p>
      ${
        used === null
          ? t("settings.storageUnknown")
          : t("settings.storageUsed", { used: bytes(used) })
      }
    </p>
    <p class="quiet small">${t("settings.storageText")}</p>
    <p class="quiet small" role="status">
      ${t(
        persistent
          ? "settings.persistent"
          : refused
            ? "settings.persistRefused"
            : "settings.notPersistent",
      )}
    </p>
    ${
      !persistent &&
      html`<button type="button" class="button wide" onClick=${persist}>
        ${t("settings.persist")}
      </button>`
    }`;
}
