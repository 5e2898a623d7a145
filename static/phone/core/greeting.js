/** What the relay says when it takes a phone in: `auth.ok`. */

/**
 * What the relay announces to take from this phone.
 * @typedef {{maxMessageBytes: number | null, messagesPerMinute: number | null,
 *   streamFramesPerSecond: number | null}} Limits
 */

/**
 * Bytes of quota (0: there is none), and whether the agent is there. All but `paired` is null
 * where the relay does not say it, as relays of version 1 do not.
 * @typedef {object} Greeting
 * @property {boolean} paired
 * @property {number | null} dailyQuotaBytes
 * @property {number | null} dailyUsedBytes
 * @property {number | null} monthlyQuotaBytes
 * @property {number | null} monthlyUsedBytes
 * @property {Limits | null} limits
 * @property {string} serverName
 * @property {string} serverVersion
 */

// Characters of the relay's own words that are taken.
const MOST = 200;

/**
 * From a payload; what is not of the right type counts as not said.
 * @param {Record<string, any>} payload
 * @returns {Greeting}
 */
export function readGreeting(payload) {
  const limits = object(payload.limits);
  const server = object(payload.server) ?? {};
  return {
    paired: payload.paired === true,
    dailyQuotaBytes: count(payload.daily_quota_bytes),
    dailyUsedBytes: count(payload.daily_used_bytes),
    monthlyQuotaBytes: count(payload.monthly_quota_bytes),
    monthlyUsedBytes: count(payload.monthly_used_bytes),
    limits: limits && {
      maxMessageBytes: count(limits.max_message_bytes),
      messagesPerMinute: count(limits.messages_per_minute),
      streamFramesPerSecond: count(limits.stream_frames_per_second),
    },
    serverName: plain(server.name),
    serverVersion: plain(server.version),
  };
}

/**
 * A number that may stand on the wire, or null.
 * @param {unknown} value
 */
export function count(value) {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : null;
}

/**
 * @param {unknown} value
 * @returns {Record<string, any> | null}
 */
function object(value) {
  return typeof value === "object" && value !== null ? value : null;
}

/** @param {unknown} text */
function plain(text) {
  if (typeof text !== "string") return "";
  return text
    .slice(0, MOST)
    .replace(/[\p{C}\p{Zl}\p{Zp}]/gu, " ")
    .trim();
}
