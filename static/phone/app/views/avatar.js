/** The round picture that stands for an agent: initials, on a colour of its own. */

import { html } from "../html.js";
import { t } from "../i18n.js";

const COLOURS = 8;

/**
 * @param {{pairing: import("../model/pairing.js").Pairing, size?: "small" | "large"}} props
 */
export function Avatar({ pairing, size }) {
  const colour = Number.parseInt(pairing.id.slice(0, 4), 16) % COLOURS || 0;
  return html`<span class=${`avatar avatar-${colour} ${size ?? ""}`} aria-hidden="true">
    ${initials(pairing.name)}
  </span>`;
}

/**
 * Whether the agent is there: a dot, and a word for who does not see it.
 *
 * @param {{online: boolean}} props
 */
export function Dot({ online }) {
  return html`<span class=${`dot ${online ? "online" : ""}`}>
    <span class="visually-hidden">${t(online ? "list.online" : "list.offline")}</span>
  </span>`;
}

/**
 * The first letter of the first two words; one character of scripts that write words as one.
 *
 * @param {string} name
 */
function initials(name) {
  const words = name.match(/[\p{L}\p{N}\p{Extended_Pictographic}]+/gu) ?? ["?"];
  const firsts = words.slice(0, 2).map((word) => [...word][0]);
  const [first] = firsts;
  return /[\p{Script=Latin}\p{Script=Cyrillic}\p{Script=Greek}\p{N}]/u.test(first)
    ? firsts.join("").toLocaleUpperCase()
    : first;
}
