/** The clipboard. */

import { t } from "../i18n.js";
import { tell } from "./announcer.js";

/**
 * Copies a text, and tells so; or that the browser did not let it.
 *
 * @param {string} text
 * @returns {Promise<boolean>} whether it is copied
 */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    tell(t("app.copyFailed"));
    return false;
  }
  tell(t("app.copied"));
  return true;
}
