/** The settings of one pairing: what it is, what it uses, and how to end it. */

import { html, useModel, useState } from "../html.js";
import { bytes, moment, t } from "../i18n.js";
import { tell } from "./announcer.js";
import { Avatar, Dot } from "./avatar.js";
import { BackButton } from "./bar.js";
import { Verified } from "./confirm.js";
import { confirm } from "./dialog.js";
import { download } from "./download.js";
import { Icon } from "./icons.js";
import { forget, rename } from "./list.js";

/** @typedef {import("../model/pairing.js").Pairing} Pairing */
/** @typedef {import("../i18n.js").Key} Key */

/**
 * @param {object} props
 * @param {Pairing} props.pairing
 * @param {() => void} props.onBack
 * @param {() => void} props.onForgotten
 */
export function Details({ pairing, onBack, onForgotten }) {
  useModel(pairing, "change", "banner");
  const { agentName, agentVersion: version, name, relay, version: protocol } = pairing;
  return html`<header class="bar">
      <${BackButton} onBack=${onBack} />
      <h1 tabindex="-1">${t("details.title")}</h1>
    </header>
    <div class="scroll">
      <div class="column stack details">
        <div class="who">
          <span class="row-avatar">
            <${Avatar} pairing=${pairing} size="large" /><${Dot} online=${pairing.online} />
          </span>
          <h2><bdi>${name}</bdi></h2>
          <button
            type="button"
            class="icon-button"
            aria-label=${t("list.rename")}
            onClick=${() => rename(pairing)}
          >
            <${Icon} name="edit" />
          </button>
        </div>

        <dl class="card facts">
          <${Fact} name="details.agent">
            <span dir="auto">
              ${version ? t("details.agentVersion", { name: agentName, version }) : agentName}
            </span>
          <//>
          <${Fact} name="details.relay"><span dir="ltr">${relay}</span><//>
          <${Fact} name="details.security">
            <${Verified} verified=${pairing.verified} />
            <p class="quiet small">${t(security(pairing))}</p>
          <//>
          <${Fact} name="details.protocol">
            ${t("details.protocolVersion", { version: protocol })}
          <//>
          <${Fact} name="details.added">${moment(pairing.addedAt)}<//>
        </dl>

        <section class="card stack">
          <h2>${t("details.usage")}</h2>
          <${Bandwidth} usage=${pairing.usage} />
        </section>

        <${Actions} pairing=${pairing} onForgotten=${onForgotten} />
      </div>
    </div>`;
}

/**
 * @param {Pairing} pairing
 * @returns {Key}
 */
function security({ verified, version }) {
  if (verified) return "details.verifiedText";
  return version === 2 ? "details.notYetText" : "details.notVerifiedText";
}

/**
 * @param {{name: Key, children?: import("../html.js").Children}} props
 */
function Fact({ name, children }) {
  return html`<div>
    <dt>${t(name)}</dt>
    <dd>${children}</dd>
  </div>`;
}

/**
 * @param {{usage: import("../model/usage.js").Usage | null}} props
 */
function Bandwidth({ usage }) {
  if (!usage) return html`<p class="quiet">${t("details.usageNone")}</p>`;
  const now = new Date();
  const [year, month, date] = [now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate()];
  return html`<${Meter}
      name="details.today"
      used=${usage.dayBytes}
      quota=${usage.dayQuota}
      resets=${Date.UTC(year, month, date + 1)}
    />
    <${Meter}
      name="details.month"
      used=${usage.monthBytes}
      quota=${usage.monthQuota}
      resets=${Date.UTC(year, month + 1)}
    />`;
}

/**
 * @param {{name: Key, used: number, quota: number, resets: number}} props bytes, Unix milliseconds
 */
function Meter({ name, used, quota, resets }) {
  const words = quota
    ? t("details.usedOf", { used: bytes(used), quota: bytes(quota) })
    : t("details.used", { used: bytes(used) });
  const percent = quota ? Math.min(100, (100 * used) / quota) : 0;
  return html`<div class="meter">
    <div class="meter-words">
      <span>${t(name)}</span>
      <span class="quiet">${words}</span>
    </div>
    ${
      quota > 0 &&
      html`<div
          class="meter-bar"
          role="meter"
          aria-label=${t(name)}
          aria-valuemin="0"
          aria-valuemax="100"
          aria-valuenow=${Math.round(percent)}
          aria-valuetext=${words}
        >
          <span
            class=${percent >= 90 ? "nearly" : ""}
            style=${{ inlineSize: `${percent}%` }}
          ></span>
        </div>
        <p class="quiet small">${t("details.resets", { when: moment(resets) })}</p>`
    }
  </div>`;
}

/**
 * @param {{pairing: Pairing, onForgotten: () => void}} props
 */
function Actions({ pairing, onForgotten }) {
  const [busy, setBusy] = useState(false);
  const { name } = pairing;
  const busily = async (/** @type {() => Promise<void>} */ work) => {
    setBusy(true);
    await work().finally(() => setBusy(false));
  };
  const save = async () => {
    const words = { me: t("details.me"), date: moment };
    const file = await pairing.export(words);
    download(file.name, new Blob([file.text], { type: "text/markdown" }));
  };
  const clear = async () => {
    const sure = await confirm({
      title: t("details.clearTitle", { name }),
      text: t("details.clearText"),
      action: t("details.clear", { name }),
      danger: true,
    });
    if (!sure) return;
    tell(t((await pairing.clear()) ? "details.cleared" : "details.clearFailed"));
  };
  return html`<div class="card actions-list">
    <button type="button" disabled=${busy} onClick=${() => busily(save)}>
      <${Icon} name="export" />${t("details.export", { name })}
    </button>
    <button type="button" class="danger" disabled=${busy} onClick=${() => busily(clear)}>
      <${Icon} name="close" />${t("details.clear", { name })}
    </button>
    <button
      type="button"
      class="danger"
      disabled=${busy}
      onClick=${() => busily(async () => void ((await forget(pairing)) && onForgotten()))}
    >
      <${Icon} name="trash" />${t("details.forget")}
    </button>
  </div>`;
}
