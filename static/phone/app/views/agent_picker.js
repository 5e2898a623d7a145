/** Which of the agents behind a pairing is talked to. */

import { html } from "../html.js";
import { t } from "../i18n.js";

/** @param {{pairing: import("../model/pairing.js").Pairing}} props */
export function AgentPicker({ pairing }) {
  const { agents, agentId } = pairing;
  if (agents.length < 2) return null;
  return html`<select
    class="agent-picker"
    aria-label=${t("chat.chooseAgent")}
    value=${agentId}
    onChange=${(/** @type {Event & {currentTarget: HTMLSelectElement}} */ event) =>
      pairing.chooseAgent(event.currentTarget.value)}
  >
    ${agents.map(
      ({ id, name }) =>
        html`<option value=${id} selected=${id === agentId}>
          ${id ? name || id : t("chat.anyAgent")}
        </option>`,
    )}
  </select>`;
}
