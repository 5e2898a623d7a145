/** The one quiet line about a pairing's connection, and what can be done about it. */

import { html, useEffect, useModel, useState } from "../html.js";
import { day, t, time } from "../i18n.js";

/** @typedef {import("../model/banner.js").Banner} Model */
/** @typedef {import("../i18n.js").Key} Key */

// A connection that is there within this time needs no words.
const PATIENCE = 800;
const QUICK = new Set(["connecting", "reconnecting"]);
// Why an agent refused, where it said so.
const REFUSED = /** @type {Record<string, Key>} */ ({
  NO_VERSION_2: "banner.noVersion2",
  NO_VERSION_1: "banner.noVersion1",
});
// The words of those that go on by themselves within seconds.
const COUNTED = /** @type {const} */ ({
  reconnecting: "banner.reconnectingIn",
  "rate-limit": "banner.rateLimitIn",
});

/**
 * @param {object} props
 * @param {import("../model/pairing.js").Pairing} props.pairing
 * @param {() => void} props.onPairAgain
 */
export function Banner({ pairing, onPairAgain }) {
  useModel(pairing, "banner");
  const { banner } = pairing;
  const kind = banner?.kind ?? null;
  const [late, setLate] = useState(false);
  useEffect(() => {
    setLate(false);
    if (!kind || !QUICK.has(kind)) return undefined;
    const timer = setTimeout(() => setLate(true), PATIENCE);
    return () => clearTimeout(timer);
  }, [kind]);
  const shown = banner && (late || !QUICK.has(banner.kind)) ? banner : null;
  const act = { now: () => pairing.now(), here: () => pairing.here(), "pair-again": onPairAgain };
  // The region stays, so that screen readers hear of what comes into it.
  return html`<div class=${`banner ${shown ? `shown ${shown.kind}` : ""}`} role="status">
    ${
      shown &&
      html`<p><${Words} banner=${shown} /></p>
        ${
          shown.action &&
          html`<button
            type="button"
            class="banner-button"
            onClick=${(
              /** @type {MouseEvent & {currentTarget: HTMLElement}} */ { currentTarget },
            ) => {
              // It goes with what it was about.
              const chat = currentTarget.closest(".chat");
              /** @type {HTMLElement | null | undefined} */ (
                chat?.querySelector(".messages")
              )?.focus();
              act[/** @type {keyof typeof act} */ (shown.action)]();
            }}
          >
            ${t(shown.action === "pair-again" ? "banner.pairAgain" : `banner.${shown.action}`)}
          </button>`
        }`
    }
  </div>`;
}

/**
 * What is seen may count down, which nobody wants to be read each second.
 *
 * @param {{banner: Model}} props
 */
function Words({ banner: { kind, until, code } }) {
  const counted = COUNTED[/** @type {keyof typeof COUNTED} */ (kind)];
  const seconds = useSeconds(counted && until);
  if (kind === "quota" && until)
    return t("banner.quotaUntil", { when: `${day(until)}, ${time(until)}` });
  if (!counted || !seconds)
    return t(REFUSED[(kind === "refused" && code) || ""] ?? `banner.${kind}`);
  return html`<span class="visually-hidden">${t(`banner.${kind}`)}</span>
    <span aria-hidden="true">${t(counted, { seconds })}</span>`;
}

/**
 * Whole seconds until a time, drawn again as each of them goes by.
 *
 * @param {number | undefined} until Unix milliseconds
 */
function useSeconds(until) {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    if (!until) return undefined;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 1_000);
    return () => clearInterval(timer);
  }, [until]);
  return until ? Math.max(0, Math.ceil((until - now) / 1_000)) : 0;
}
