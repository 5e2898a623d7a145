/** The bandwidth of a pairing. */

/**
 * Bytes; a quota of 0 means that there is none.
 * @typedef {{dayBytes: number, dayQuota: number, monthBytes: number, monthQuota: number}} Usage
 */

/**
 * What the relay said when it greeted, and what went over this connection since.
 * @param {{dailyQuotaBytes: number | null, dailyUsedBytes: number | null,
 *   monthlyQuotaBytes: number | null, monthlyUsedBytes: number | null}} greeting
 * @param {number} traffic bytes since the greeting
 * @returns {Usage | null} null where the relay does not tell
 */
export function usageOf(greeting, traffic) {
  const { dailyQuotaBytes, dailyUsedBytes, monthlyQuotaBytes, monthlyUsedBytes } = greeting;
  if (dailyUsedBytes === null && monthlyUsedBytes === null) return null;
  return {
    dayBytes: (dailyUsedBytes ?? 0) + traffic,
    dayQuota: dailyQuotaBytes ?? 0,
    monthBytes: (monthlyUsedBytes ?? 0) + traffic,
    monthQuota: monthlyQuotaBytes ?? 0,
  };
}
