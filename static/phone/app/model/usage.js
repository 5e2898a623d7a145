/** The bandwidth of a pairing. */

/**
 * Bytes; a quota of 0 means that there is none.
 * @typedef {{dayBytes: number, dayQuota: number, monthBytes: number, monthQuota: number}} Usage
 */

/**
 * What of the relay's greeting is about bandwidth; null where it does not say.
 * @typedef {{dailyQuotaBytes: number | null, dailyUsedBytes: number | null,
 *   monthlyQuotaBytes: number | null, monthlyUsedBytes: number | null}} Told
 */

/**
 * @param {Told | null | undefined} greeting
 * @param {import("../../core/tally.js").Used} used
 * @returns {Usage | null} null where the relay does not tell
 */
export function usageOf(greeting, { dayBytes, monthBytes }) {
  if (!greeting || (dayBytes === null && monthBytes === null)) return null;
  return {
    dayBytes: dayBytes ?? 0,
    dayQuota: greeting.dailyQuotaBytes ?? 0,
    monthBytes: monthBytes ?? 0,
    monthQuota: greeting.monthlyQuotaBytes ?? 0,
  };
}

/**
 * Whether something of both quotas is left.
 * @param {Told | null} greeting
 */
export function quotaLeft(greeting) {
  if (!greeting) return false;
  const { dailyQuotaBytes, dailyUsedBytes, monthlyQuotaBytes, monthlyUsedBytes } = greeting;
  const left = (/** @type {number | null} */ quota, /** @type {number | null} */ used) =>
    !quota || (used ?? 0) < quota;
  return left(dailyQuotaBytes, dailyUsedBytes) && left(monthlyQuotaBytes, monthlyUsedBytes);
}
