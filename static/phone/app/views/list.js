/** The pairings of this browser, and how to get the first one. */

import { html, useModel, useState } from "../html.js";
import { moment, t, unturned, when } from "../i18n.js";
import { tell } from "./announcer.js";
import { Avatar, Dot } from "./avatar.js";
import { copyText } from "./clipboard.js";
import { askText, confirm, Menu } from "./dialog.js";
import { Icon } from "./icons.js";
import { useMidnight } from "./midnight.js";

/** @typedef {import("../model/pairing.js").Pairing} Pairing */
/** @typedef {import("../i18n.js").Key} Key */

/** States of the connection that a row tells of, since the user has to do something or to wait. */
const HINTS = [
  "replaced",
  "elsewhere-tab",
  "revoked",
  "unauthorized",
  "refused",
  "no-answer",
  "lost",
  "quota",
  "storage",
];

/**
 * @param {object} props
 * @param {import("../model/phonebook.js").Phonebook} props.phonebook
 * @param {string | null} props.current id of the pairing whose chat is open beside the list
 * @param {string} props.relay the address for the command that is taught
 * @param {(pairing: Pairing) => void} props.onOpen
 * @param {(pairing: Pairing) => void} props.onDetails
 * @param {() => void} props.onAdd
 * @param {() => void} props.onSettings
 */
export function List({ phonebook, current, relay, onOpen, onDetails, onAdd, onSettings }) {
  useModel(phonebook);
  const { pairings, damaged } = phonebook;
  const some = pairings.length + damaged.length > 0;
  return html`<div class="bar">
      <h1 tabindex="-1">${t("app.name")}</h1>
      <button
        type="button"
        class="icon-button"
        aria-label=${t("list.settings")}
        onClick=${onSettings}
      >
        <${Icon} name="settings" />
      </button>
    </div>
    <div class="scroll">
      ${
        !some
          ? html`<${Empty} relay=${relay} onAdd=${onAdd} />`
          : html`<ul class="list" aria-label=${t("list.title")}>
              ${pairings.map(
                (pairing) => html`<${Row}
                  key=${pairing.id}
                  pairing=${pairing}
                  current=${pairing.id === current}
                  onOpen=${() => onOpen(pairing)}
                  onDetails=${() => onDetails(pairing)}
                />`,
              )}
              ${damaged.map(
                (id) =>
                  html`<${Damaged} key=${id} onForget=${() => forgetDamaged(phonebook, id)} />`,
              )}
            </ul>`
      }
    </div>
    ${
      some &&
      html`<div class="list-foot">
        <button type="button" class="button primary add" onClick=${onAdd}>
          <${Icon} name="add" />${t("list.add")}
        </button>
      </div>`
    }`;
}

/**
 * @param {object} props
 * @param {Pairing} props.pairing
 * @param {boolean} props.current
 * @param {() => void} props.onOpen
 * @param {() => void} props.onDetails
 */
function Row({ pairing, current, onOpen, onDetails }) {
  useMidnight();
  useModel(pairing, "change", "banner");
  const { name, lastMessage: last, unread } = pairing;
  return html`<li class="row">
    <button
      type="button"
      class="row-open"
      data-pairing=${pairing.id}
      aria-current=${current ? "true" : undefined}
      onClick=${onOpen}
    >
      <span class="row-avatar">
        <${Avatar} pairing=${pairing} />
        <${Dot} online=${pairing.online} />
      </span>
      <span class="row-name"><bdi>${unturned(name)}</bdi></span>
      ${
        last &&
        html`<time class="row-time" datetime=${new Date(last.at).toISOString()} title=${moment(last.at)}>
          ${when(last.at)}
        </time>`
      }
      <span class="row-line">
        <${Preview} pairing=${pairing} />
        ${
          unread > 0 &&
          html`<span class="badge">
            <span aria-hidden="true">${unread > 99 ? "99+" : unread}</span>
            <span class="visually-hidden">${t("list.unread", { count: unread })}</span>
          </span>`
        }
      </span>
    </button>
    <${Menu}
      label=${t("list.menu", { name })}
      items=${[
        { label: t("list.rename"), icon: "edit", onClick: () => rename(pairing) },
        { label: t("list.details"), icon: "settings", onClick: onDetails },
        { label: t("list.forget"), icon: "trash", danger: true, onClick: () => forget(pairing) },
      ]}
    />
  </li>`;
}

/**
 * A pairing that is kept and cannot be read.
 *
 * @param {{onForget: () => void}} props
 */
function Damaged({ onForget }) {
  return html`<li class="row damaged">
    <${Icon} name="alert" class="warn" />
    <p class="damaged-text">${t("list.damaged")}</p>
    <button type="button" class="button plain" onClick=${onForget}>${t("list.forget")}</button>
  </li>`;
}

/**
 * One line: what is wrong with the connection, else what was said last.
 *
 * @param {{pairing: Pairing}} props
 */
function Preview({ pairing }) {
  const { banner, lastMessage: last } = pairing;
  if (banner && HINTS.includes(banner.kind)) {
    return html`<span class="row-text hint">${t(/** @type {Key} */ (`list.hint.${banner.kind}`))}</span>`;
  }
  if (!last) return html`<span class="row-text">${t("list.nothingSaid")}</span>`;
  const text = plain(last.text) || t("list.picture");
  return html`<span class="row-text">
    <bdi>${last.role === "user" ? t("list.you", { text }) : text}</bdi>
  </span>`;
}

/**
 * Markdown without its marks, good enough for one line.
 *
 * @param {string} text
 */
function plain(text) {
  return text.replace(/```\w*|\*\*|__|`|^\s*(?:#+|>|[-*])\s/gm, "").trim();
}

/** @param {Pairing} pairing */
export async function rename(pairing) {
  await askText({
    title: t("list.rename"),
    label: t("list.renameLabel"),
    hint: t("list.renameHint"),
    value: pairing.name,
    action: t("app.save"),
    keep: (name) => pairing.rename(name === pairing.agentName ? "" : name),
  });
}

/**
 * @param {Pairing} pairing
 * @returns {Promise<boolean>} whether it is gone
 */
export async function forget(pairing) {
  return await forgetNamed(pairing.name, () => pairing.forget());
}

/**
 * @param {import("../model/phonebook.js").Phonebook} phonebook
 * @param {string} id
 */
function forgetDamaged(phonebook, id) {
  return forgetNamed(t("list.damagedName"), () => phonebook.forgetDamaged(id));
}

/**
 * @param {string} name
 * @param {() => Promise<void>} work
 * @returns {Promise<boolean>} whether it is gone
 */
async function forgetNamed(name, work) {
  const sure = await confirm({
    title: t("list.forgetTitle", { name }),
    text: t("list.forgetText"),
    action: t("list.forget"),
    danger: true,
  });
  if (!sure) return false;
  try {
    await work();
    tell(t("list.forgotten", { name }));
    // Its row is gone, and the focus with it.
    requestAnimationFrame(() => {
      if (document.activeElement !== document.body) return;
      /** @type {HTMLElement | null} */ (document.querySelector("h1[tabindex]"))?.focus();
    });
    return true;
  } catch {
    await confirm({
      title: t("list.forget"),
      text: t("list.forgetFailed"),
      action: t("app.ok"),
      cancel: false,
    });
    return false;
  }
}

/**
 * The three steps, for who has no agent yet.
 *
 * @param {{relay: string, onAdd: () => void}} props
 */
function Empty({ relay, onAdd }) {
  const [copied, setCopied] = useState(false);
  const command = `coralmux-agent run --relay ${relay}`;
  return html`<div class="column stack first-steps">
    <h2>${t("list.empty.title")}</h2>
    <p class="quiet">${t("list.empty.text")}</p>
    <ol class="steps">
      <li>
        <h3>${t("list.empty.run")}</h3>
        <p>${t("list.empty.runText")}</p>
        <div class="command">
          <code dir="ltr">${command}</code>
          <button
            type="button"
            class="icon-button"
            aria-label=${t(copied ? "app.copied" : "list.empty.copy")}
            onClick=${async () => {
              setCopied(await copyText(command));
            }}
          >
            <${Icon} name=${copied ? "check" : "copy"} />
          </button>
        </div>
      </li>
      <li>
        <h3>${t("list.empty.scan")}</h3>
        <p>${t("list.empty.scanText")}</p>
      </li>
      <li>
        <h3>${t("list.empty.chat")}</h3>
        <p>${t("list.empty.chatText")}</p>
      </li>
    </ol>
    <button type="button" class="button primary wide" onClick=${onAdd}>
      <${Icon} name="scan" />${t("list.add")}
    </button>
  </div>`;
}
