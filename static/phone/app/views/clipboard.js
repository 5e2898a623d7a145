/** The clipboard. */

import { t } from "../i18n.js";
import { announce } from "./announcer.js";

/**
 * Copies a text, and tells screen readers so.
 *
 * @param {string} text
 */
export async function copyText(text) {
  await navigator.clipboard.writeText(text);
  announce(t("app.copied"));
}
