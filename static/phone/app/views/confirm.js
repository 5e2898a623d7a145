/** What a link names, before anything is connected; and how connecting goes on. */

import { html, useEffect, useModel, useRef, useState } from "../html.js";
import { t } from "../i18n.js";
import { AlreadyPaired } from "../model/phonebook.js";
import { Avatar } from "./avatar.js";
import { BackButton } from "./bar.js";
import { Icon } from "./icons.js";
import { forget } from "./list.js";

/** @typedef {import("../model/pairing.js").Pairing} Pairing */
/** @typedef {import("../model/phonebook.js").Phonebook} Phonebook */
/** @typedef {import("../model/phonebook.js").Reading} Reading */
/** @typedef {import("../i18n.js").Key} Key */

/** Words for states in which it goes on by itself. */
const WAITING = /** @type {Record<string, Key>} */ ({
  offline: "confirm.offline",
  reconnecting: "confirm.noRelay",
  "agent-offline": "confirm.noAgent",
  quota: "confirm.quota",
  "no-answer": "confirm.noAnswer",
});

/** Words for states in which it goes on when the user says so. */
const HELD = /** @type {Record<string, Key>} */ ({
  replaced: "confirm.replaced",
  "elsewhere-tab": "confirm.otherTab",
  storage: "confirm.storage",
});

/** Words for states in which it does not. */
const ENDED = /** @type {Record<string, Key>} */ ({
  unauthorized: "confirm.unauthorized",
  revoked: "confirm.revoked",
  refused: "confirm.refused",
  lost: "banner.lost",
});

/** Words for why an agent refused, where it said so. */
const REFUSED = /** @type {Record<string, Key>} */ ({
  NO_VERSION_2: "confirm.noVersion2",
  NO_VERSION_1: "confirm.noVersion1",
});

/**
 * @param {object} props
 * @param {Phonebook} props.phonebook
 * @param {Reading} props.reading what a link names
 * @param {() => void} props.onBack
 * @param {(pairing: Pairing) => void} props.onOpen
 */
export function Confirm({ phonebook, reading, onBack, onOpen }) {
  useModel(phonebook);
  const [pairing, setPairing] = useState(/** @type {Pairing | null} */ (null));
  const { elsewhere } = reading;
  // Once it is forgotten, the link is like any other.
  const known = reading.known && phonebook.get(reading.known.id);
  const shown = pairing
    ? html`<${Progress} pairing=${pairing} onBack=${onBack} onOpen=${onOpen} />`
    : known
      ? html`<${Known} pairing=${known} onBack=${onBack} onOpen=${onOpen} />`
      : elsewhere
        ? html`<${Elsewhere} link=${reading.link} url=${elsewhere} onBack=${onBack} />`
        : html`<${Question}
            phonebook=${phonebook}
            link=${reading.link}
            onPaired=${setPairing}
            onBack=${onBack}
          />`;
  return html`<header class="bar"><${BackButton} onBack=${onBack} /></header>
    <div class="scroll"><div class="column stack confirm">${shown}</div></div>`;
}

/**
 * @param {object} props
 * @param {Phonebook} props.phonebook
 * @param {import("../../core/link.js").PairingLink} props.link
 * @param {(pairing: Pairing) => void} props.onPaired
 * @param {() => void} props.onBack
 */
function Question({ phonebook, link, onPaired, onBack }) {
  const [busy, setBusy] = useState(false);
  const [trouble, setTrouble] = useState(/** @type {Key | null} */ (null));
  const verified = link.secret !== null;
  const connect = async () => {
    if (busy) return;
    setBusy(true);
    try {
      onPaired(await phonebook.add(link));
    } catch (error) {
      // Another tab was faster: its pairing is here in a moment.
      const paired = error instanceof AlreadyPaired;
      const damaged = paired && phonebook.damaged.includes(error.id);
      setTrouble(damaged ? "list.damaged" : paired ? "confirm.knownTitle" : "confirm.storage");
      setBusy(false);
    }
  };
  return html`<h1 tabindex="-1">${t("confirm.title")}</h1>
    <p class="quiet">${t("confirm.text")}</p>
    <dl class="card facts">
      <div>
        <dt>${t("confirm.relay")}</dt>
        <dd><span dir="ltr">${link.host}</span></dd>
      </div>
      <div>
        <dt>${t("confirm.agent")}</dt>
        <dd>${t("confirm.noName")}</dd>
      </div>
      <div>
        <dt>${t("confirm.security")}</dt>
        <dd>
          ${
            verified
              ? html`<span class="tag"><${Icon} name="shield" />${t("confirm.willVerify")}</span>`
              : html`<${Verified} verified=${false} />`
          }
          <p class="quiet small">
            ${t(verified ? "confirm.verifiedText" : "confirm.notVerifiedText")}
          </p>
        </dd>
      </div>
    </dl>
    <div role="alert">
      ${
        trouble &&
        html`<p class="note">
          <${Icon} name="alert" />
          <span>${t(trouble)}</span>
        </p>`
      }
    </div>
    <div class="decision">
      <button type="button" class="button primary wide" aria-disabled=${busy} onClick=${connect}>
        ${t("confirm.connect")}
      </button>
      <button type="button" class="button plain wide" onClick=${onBack}>
        ${t("confirm.notNow")}
      </button>
    </div>
    <${Trust} />`;
}

/**
 * @param {{verified: boolean}} props
 */
export function Verified({ verified }) {
  return html`<span class=${`tag ${verified ? "good" : "warn"}`}>
    <${Icon} name=${verified ? "shield" : "alert"} />
    ${t(verified ? "confirm.verified" : "confirm.notVerified")}
  </span>`;
}

/** What it means that a relay serves this page. */
function Trust() {
  const { host } = location;
  return html`<details class="trust quiet small">
    <summary>${t("confirm.trust", { host })} <u>${t("confirm.trustMore")}</u></summary>
    <p>${t("confirm.trustText", { host })}</p>
  </details>`;
}

/**
 * The link of a pairing that is there: its secret is never put in the place of the one that is
 * kept. Where that one is no use any more, the user forgets the pairing and begins anew.
 *
 * @param {object} props
 * @param {Pairing} props.pairing
 * @param {() => void} props.onBack
 * @param {(pairing: Pairing) => void} props.onOpen
 */
function Known({ pairing, onBack, onOpen }) {
  useModel(pairing, "change", "banner");
  const { banner, name } = pairing;
  if (banner?.action === "pair-again") {
    return html`<${Avatar} pairing=${pairing} size="large" />
      <h1 tabindex="-1">${t("confirm.endedTitle", { name })}</h1>
      <p>${t("confirm.endedText", { name })}</p>
      <div class="decision">
        <button type="button" class="button primary wide" onClick=${() => forget(pairing)}>
          ${t("confirm.forget", { name })}
        </button>
        <button type="button" class="button plain wide" onClick=${() => onOpen(pairing)}>
          ${t("confirm.open")}
        </button>
      </div>`;
  }
  return html`<${Avatar} pairing=${pairing} size="large" />
    <h1 tabindex="-1">${t("confirm.knownTitle")}</h1>
    <p>${t("confirm.knownText", { name })}</p>
    <div class="decision">
      <button type="button" class="button primary wide" onClick=${() => onOpen(pairing)}>
        ${t("confirm.open")}
      </button>
      <button type="button" class="button plain wide" onClick=${onBack}>
        ${t("confirm.notNow")}
      </button>
    </div>`;
}

/**
 * @param {object} props
 * @param {import("../../core/link.js").PairingLink} props.link
 * @param {string} props.url of the other relay's phone, with the link's secrets
 * @param {() => void} props.onBack
 */
function Elsewhere({ link, url, onBack }) {
  const relay = link.host;
  return html`<h1 tabindex="-1">${t("confirm.elsewhereTitle")}</h1>
    <p>${t("confirm.elsewhereText", { relay, here: location.host })}</p>
    <p class="quiet">${t("confirm.elsewhereWarning")}</p>
    <div class="decision">
      <a class="button primary wide" href=${url} rel="noopener noreferrer">
        ${t("confirm.elsewhereOpen", { relay })}
      </a>
      <button type="button" class="button plain wide" onClick=${onBack}>
        ${t("confirm.notNow")}
      </button>
    </div>`;
}

/**
 * @param {object} props
 * @param {Pairing} props.pairing
 * @param {() => void} props.onBack
 * @param {(pairing: Pairing) => void} props.onOpen
 */
function Progress({ pairing, onBack, onOpen }) {
  useModel(pairing, "change", "banner");
  const { banner, name, online, verified } = pairing;
  const open = useRef(/** @type {HTMLButtonElement | null} */ (null));
  const heading = useRef(/** @type {HTMLElement | null} */ (null));
  const ended = !online && banner ? ENDED[banner.kind] : undefined;
  const held = !online && banner ? HELD[banner.kind] : undefined;
  // What had the focus is not there any more.
  useEffect(() => {
    if (online) open.current?.focus();
    else heading.current?.focus();
  }, [online, ended, held]);
  if (ended) {
    const words = (banner?.kind === "refused" && REFUSED[banner.code ?? ""]) || ended;
    return html`<${Icon} name="alert" class="huge" />
      <h1 tabindex="-1" ref=${heading}>${t("confirm.failed")}</h1>
      <p role="alert">${t(words)}</p>
      <div class="decision">
        <button
          type="button"
          class="button primary wide"
          onClick=${async () => (await forget(pairing)) && onBack()}
        >
          ${t("confirm.remove")}
        </button>
        <button type="button" class="button plain wide" onClick=${onBack}>
          ${t("confirm.toList")}
        </button>
      </div>`;
  }
  if (held) {
    const again = banner?.action === "here";
    return html`<${Icon} name="alert" class="huge" />
      <h1 tabindex="-1" ref=${heading}>${t("confirm.held")}</h1>
      <p role="alert">${t(held)}</p>
      <div class="decision">
        <button
          type="button"
          class="button primary wide"
          onClick=${() => (again ? pairing.here() : pairing.now())}
        >
          ${t(again ? "banner.here" : "app.again")}
        </button>
        <button type="button" class="button plain wide" onClick=${onBack}>
          ${t("confirm.toList")}
        </button>
      </div>`;
  }
  const state = online
    ? t(verified ? "confirm.connectedVerified" : "confirm.connected", { name })
    : t((banner && WAITING[banner.kind]) ?? "confirm.waiting");
  return html`<div class="progress">
      ${
        online
          ? html`<${Avatar} pairing=${pairing} size="large" />`
          : html`<span class="spinner large"></span>`
      }
      <div role="status"><h1 tabindex="-1" ref=${heading}>${state}</h1></div>
      <p class="quiet">
        ${t(online ? (verified ? "details.verifiedText" : "details.notVerifiedText") : "confirm.later")}
      </p>
    </div>
    <div class="decision">
      <button
        type="button"
        class="button primary wide"
        ref=${open}
        disabled=${!online}
        onClick=${() => onOpen(pairing)}
      >
        ${t("confirm.open")}
      </button>
      <button type="button" class="button plain wide" onClick=${onBack}>
        ${t("confirm.toList")}
      </button>
    </div>`;
}
