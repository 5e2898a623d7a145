/** What bars at the top of panes share. */

import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "./icons.js";

/**
 * @param {{onBack: () => void}} props
 */
export function BackButton({ onBack }) {
  return html`<button
    type="button"
    class="icon-button back"
    aria-label=${t("app.back")}
    onClick=${onBack}
  >
    <${Icon} name="back" />
  </button>`;
}
