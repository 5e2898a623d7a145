/** What a phone can ask besides questions: a method for each request of the protocol. */

import { printable } from "./clear_messages.js";
import { InvalidAnswer } from "./errors.js";

/** @typedef {Record<string, any>} Payload */

/** @typedef {{role: string, content: string, timestamp: number | string | null}} HistoryEntry */
/**
 * @typedef {{id: string, name: string, description: string | null, avatarUrl: string | null,
 *   model: string | null}} AgentProfile
 */
/** @typedef {{ok: boolean, action: string, agent: AgentProfile | null, error: string | null}} AgentChange */
/** @typedef {{path: string, snippet: string, score: number | null}} MemoryHit */
/** @typedef {{roomId: string, messages: Payload[]}} GroupMessages */
/** @typedef {{roomId: string, message: Payload}} GroupMessage */
/**
 * Percent, GB (10^9 bytes) and seconds; null where the agent does not say.
 * @typedef {{cpuPercent: number | null, memoryPercent: number | null,
 *   memoryUsedGb: number | null, memoryTotalGb: number | null, gpuPercent: number | null,
 *   uptimeSeconds: number | null}} SystemStatus
 */

/** @typedef {{timeout?: number}} Limit `timeout` is in milliseconds, for all of it */

// Milliseconds: such requests are answered from what the agent has.
const REQUEST_MS = 30_000;

// How much is taken of agents: programs keep it, and show it to people.
const MAX_AGENTS = 100;
const ID_CHARACTERS = 128;
const MODEL_CHARACTERS = 128;
const DESCRIPTION_CHARACTERS = 1000;
const URL_CHARACTERS = 2048;

/**
 * The requests of PROTOCOL.md and their results.
 *
 * All reject with what `Phone.ready` rejects with, and AgentError, RelayRefused, RequestTimeout,
 * ConnectionLost, MessageLost and InvalidAnswer, each with the request's id in `ids`.
 */
export class Queries extends EventTarget {
  /**
   * Ask, and read the answer, which must be of the type `result`.
   * @template T
   * @param {string} _type
   * @param {Payload} _payload
   * @param {string} _result
   * @param {number} _timeout
   * @param {(payload: Payload) => T} _parse
   * @returns {Promise<T>}
   */
  request(_type, _payload, _result, _timeout, _parse) {
    throw new TypeError("Queries is the base of Phone.");
  }

  /**
   * The last messages with an agent, oldest first as the agent gives them. `timestamp` is mostly
   * Unix milliseconds.
   * @param {{agentId?: string, limit?: number} & Limit} [options]
   * @returns {Promise<HistoryEntry[]>}
   */
  history({ agentId = "", limit = 50, timeout = REQUEST_MS } = {}) {
    const payload = { agent_id: agentId, limit };
    return this.request("chat.history", payload, "chat.history.result", timeout, ({ messages }) =>
      list(messages, (entry) => ({
        role: text(entry.role),
        content: text(entry.content),
        timestamp: typeof entry.timestamp === "string" ? entry.timestamp : number(entry.timestamp),
      })),
    );
  }

  /**
   * The agents behind this pairing.
   * @param {Limit} [options]
   * @returns {Promise<AgentProfile[]>}
   */
  agents({ timeout = REQUEST_MS } = {}) {
    return this.request("agent.list", {}, "agent.list.result", timeout, ({ agents }) =>
      list(Array.isArray(agents) ? agents.slice(0, MAX_AGENTS) : agents, profile),
    );
  }

  /**
   * Make an agent: `name`, `model`, `system_prompt`, …, as the agent's side knows them.
   * @param {Payload} fields
   * @param {Limit} [options]
   * @returns {Promise<AgentChange>}
   */
  createAgent(fields, { timeout = REQUEST_MS } = {}) {
    return this.request("agent.create", fields, "agent.result", timeout, change);
  }

  /**
   * @param {string} id
   * @param {Payload} fields
   * @param {Limit} [options]
   * @returns {Promise<AgentChange>}
   */
  updateAgent(id, fields, { timeout = REQUEST_MS } = {}) {
    return this.request("agent.update", { ...fields, id }, "agent.result", timeout, change);
  }

  /**
   * @param {string} id
   * @param {Limit} [options]
   * @returns {Promise<AgentChange>}
   */
  deleteAgent(id, { timeout = REQUEST_MS } = {}) {
    return this.request("agent.delete", { id }, "agent.result", timeout, change);
  }

  /**
   * Search what an agent remembers.
   * @param {string} query
   * @param {{agentId?: string, limit?: number} & Limit} [options]
   * @returns {Promise<MemoryHit[]>}
   */
  searchMemory(query, { agentId = "", limit = 10, timeout = REQUEST_MS } = {}) {
    const payload = { agent_id: agentId, query, limit };
    return this.request("memory.search", payload, "memory.search.result", timeout, (result) =>
      // The field's connector has another name for them.
      list(result.results ?? result.memories, (hit) => ({
        path: text(hit.path, ""),
        snippet: text(hit.snippet, ""),
        score: number(hit.score),
      })),
    );
  }

  /**
   * The rooms that the agent is in, as it describes them.
   * @param {Limit} [options]
   * @returns {Promise<Payload[]>}
   */
  groups({ timeout = REQUEST_MS } = {}) {
    return this.request("group.list", {}, "group.list.result", timeout, ({ rooms }) =>
      list(rooms, (room) => room),
    );
  }

  /**
   * The last messages in a room.
   * @param {string} roomId
   * @param {{limit?: number} & Limit} [options]
   * @returns {Promise<GroupMessages>}
   */
  groupMessages(roomId, { limit = 50, timeout = REQUEST_MS } = {}) {
    const payload = { room_id: roomId, limit };
    return this.request("group.messages", payload, "group.messages.result", timeout, (result) => ({
      roomId: text(result.room_id, ""),
      messages: list(result.messages ?? [], (message) => message),
    }));
  }

  /**
   * Say something in a room; the message as it stands there.
   * @param {string} roomId
   * @param {string} said
   * @param {Limit} [options]
   * @returns {Promise<GroupMessage>}
   */
  sendGroupMessage(roomId, said, { timeout = REQUEST_MS } = {}) {
    const payload = { room_id: roomId, text: said };
    return this.request("group.send", payload, "group.message", timeout, groupMessage);
  }

  /**
   * How the agent's machine is doing.
   * @param {Limit} [options]
   * @returns {Promise<SystemStatus>}
   */
  systemStatus({ timeout = REQUEST_MS } = {}) {
    return this.request("system.status", {}, "system.status.result", timeout, (result) => ({
      cpuPercent: number(result.cpu_percent),
      memoryPercent: number(result.memory_percent),
      memoryUsedGb: number(result.memory_used_gb),
      memoryTotalGb: number(result.memory_total_gb),
      gpuPercent: number(result.gpu_percent),
      uptimeSeconds: number(result.uptime_seconds),
    }));
  }
}

/**
 * @param {Payload} payload
 * @returns {GroupMessage}
 */
export function groupMessage({ room_id, message }) {
  return { roomId: text(room_id, ""), message: message === undefined ? {} : object(message) };
}

/**
 * @param {Payload} payload
 * @returns {AgentChange}
 */
function change({ ok, action, agent, error }) {
  if (typeof ok !== "boolean") throw invalid();
  return {
    ok,
    action: text(action, ""),
    agent: agent === undefined || agent === null ? null : profile(object(agent)),
    error: text(error, null),
  };
}

/**
 * @param {Payload} agent
 * @returns {AgentProfile}
 */
function profile(agent) {
  const { description, avatar_url: avatar, model } = agent;
  return {
    id: printable(text(agent.id), ID_CHARACTERS),
    name: printable(text(agent.name, "")),
    description: description ? printable(text(description), DESCRIPTION_CHARACTERS) : null,
    avatarUrl: avatar ? printable(text(avatar), URL_CHARACTERS) : null,
    model: model ? printable(text(model), MODEL_CHARACTERS) : null,
  };
}

// How payloads are read. All throw InvalidAnswer, which repeats nothing of them.

/**
 * @template T
 * @param {unknown} value
 * @param {(item: Payload) => T} read
 * @returns {T[]}
 */
function list(value, read) {
  if (!Array.isArray(value)) throw invalid();
  return value.map((item) => read(object(item)));
}

/**
 * @param {unknown} value
 * @returns {Payload}
 */
function object(value) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw invalid();
  return value;
}

/**
 * A text; without a default it has to be there.
 * @template {string | null} [T=string]
 * @param {unknown} value
 * @param {T} [missing]
 * @returns {string | T}
 */
export function text(value, missing) {
  if (typeof value === "string") return value;
  if ((value === undefined || value === null) && missing !== undefined) return missing;
  throw invalid();
}

/** @param {unknown} value */
function number(value) {
  if (typeof value === "number") return value;
  if (value === undefined || value === null) return null;
  throw invalid();
}

/** What breaks the protocol; repeats nothing of it. */
export function invalid() {
  return new InvalidAnswer(
    "The agent sent something that breaks the protocol. Bring both ends to the same version.",
  );
}
