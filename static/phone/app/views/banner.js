/** The one quiet line about a pairing's connection, and what can be done about it. */

import { html, useEffect, useModel, useState } from "../html.js";
import { day, t, time } from "../i18n.js";

/** @typedef {import("../model/banner.js").Banner} Model */

// A connection that is there within this time needs no words.
const PATIENCE = 800;
const QUICK = new Set(["connecting", "reconnecting"]);

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
      html`<p>
          <span class="visually-hidden">${t(`banner.${shown.kind}`)}</span>
          <${Words} banner=${shown} />
        </p>
        ${
          shown.action &&
          html`<button type="button" class="banner-button" onClick=${act[shown.action]}>
            ${t(shown.action === "pair-again" ? "banner.pairAgain" : `banner.${shown.action}`)}
          </button>`
        }`
    }
  </div>`;
}

/**
 * What is seen: it may count down, which nobody wants to be read each second.
 *
 * @param {{banner: Model}} props
 */
function Words({ banner }) {
  const seconds = useSeconds(banner.until);
  return html`<span aria-hidden="true">${words(banner, seconds)}</span>`;
}

/**
 * @param {Model} banner
 * @param {number} seconds until `banner.until`
 */
function words({ kind, until }, seconds) {
  if (kind === "reconnecting" && seconds > 0) return t("banner.reconnectingIn", { seconds });
  if (kind === "rate-limit" && seconds > 0) return t("banner.rateLimitIn", { seconds });
  if (kind === "quota" && until)
    return t("banner.quotaUntil", { when: `${day(until)}, ${time(until)}` });
  return t(`banner.${kind}`);
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
