/** What is kept of a pairing, sealed. */

/** @typedef {import("../../core/queries.js").AgentProfile} AgentProfile */

/**
 * @typedef {object} PairingRecord
 * @property {string} relay
 * @property {string} token
 * @property {1 | 2} version
 * @property {string} name the user's
 * @property {string} agentName the agent's
 * @property {boolean} verified
 * @property {number} addedAt
 * @property {string} agentId
 * @property {AgentProfile[]} agents
 * @property {{[agentId: string]: Chat}} chats
 */

/**
 * What is remembered of the conversation with one agent: answers that were not seen, how many
 * questions are under way, whether the agent was asked for what it remembers, and what was said
 * last.
 * @typedef {{unread: number, open: number, fetched: boolean, last: Last | null}} Chat
 */

/** @typedef {{text: string, at: number, role: "user" | "agent"}} Last the beginning of its text */

/**
 * @param {import("../../core/link.js").PairingLink} link
 * @param {string} name
 * @returns {PairingRecord}
 */
export function newRecord(link, name) {
  return {
    relay: link.relay,
    token: link.token,
    version: link.secret ? 2 : 1,
    name,
    agentName: "",
    verified: false,
    addedAt: Date.now(),
    agentId: "",
    agents: [],
    chats: byAgent({}),
  };
}

/**
 * @param {any} kept
 * @returns {PairingRecord}
 */
export function recordFrom(kept) {
  return { ...kept, chats: byAgent(kept.chats) };
}

/**
 * Agents choose their ids: "__proto__" has to be one like any other.
 * @param {{[agentId: string]: Chat}} chats
 * @returns {{[agentId: string]: Chat}}
 */
function byAgent(chats) {
  return Object.assign(Object.create(null), chats);
}
