/** What is shown where the phone cannot work, and what to do about it. */

import { html, useState } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "./icons.js";

/** @typedef {"http" | "old" | "storage"} Reason */

/**
 * @param {{reason: Reason}} props
 */
export function Insecure({ reason }) {
  // The link's secrets are taken along: the page that works asks for them anew.
  const [fragment] = useState(() => globalThis.coralmuxFragment?.() ?? "");
  const { host, pathname } = location;
  return html`<main class="app">
    <div class="pane">
      <div class="scroll">
        <div class="column stack insecure">
          <${Icon} name=${reason === "http" ? "lock" : "alert"} class="huge" />
          <h1>${t("insecure.title")}</h1>
          <p>${t(`insecure.${reason}`)}</p>
          ${
            reason === "http" &&
            html`<a
                class="button primary wide"
                href=${`https://${host}${pathname}${fragment}`}
                rel="noopener noreferrer"
              >
                ${t("insecure.https")}
              </a>
              <p class="quiet small">${t("insecure.operator")}</p>`
          }
          ${
            reason !== "http" &&
            html`<button
              type="button"
              class="button primary wide"
              onClick=${() => {
                history.replaceState(history.state, "", `${pathname}${fragment}`);
                location.reload();
              }}
            >
              ${t("app.again")}
            </button>`
          }
        </div>
      </div>
    </div>
  </main>`;
}
