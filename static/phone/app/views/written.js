/** What the user wrote: as it stands, with its addresses as links. */

import { html, useMemo } from "../html.js";
import { pieces } from "./blocks.js";

const ADDRESS = /https?:\/\/[^\s<>"]+[^\s<>"'.,;:!?)\]}]/g;

/** @param {{text: string}} props */
export function Written({ text }) {
  const parts = useMemo(() => pieces(text), [text]);
  return html`<div class="written">
    ${parts.map((part) => html`<p class="plain" dir="auto">${withLinks(part.replace(/\n$/, ""))}</p>`)}
  </div>`;
}

/** @param {string} text */
function withLinks(text) {
  /** @type {import("../html.js").Children[]} */
  const parts = [];
  let from = 0;
  for (const { 0: address, index } of text.matchAll(ADDRESS)) {
    parts.push(
      text.slice(from, index),
      html`<a href=${address} target="_blank" rel="noopener noreferrer">${address}</a>`,
    );
    from = index + address.length;
  }
  return [...parts, text.slice(from)];
}
