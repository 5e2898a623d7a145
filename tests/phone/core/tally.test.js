/** What is used of the bandwidth, from one day to the next. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Tally } from "../../../static/phone/core/tally.js";

const at = (/** @type {string} */ time) => Date.parse(`${time}Z`);

test("traffic is added to what the relay said, until another day or month begins", () => {
  const tally = new Tally({ dailyUsedBytes: 100, monthlyUsedBytes: 1_000 }, at("2026-01-30T23:00"));
  tally.add(7, at("2026-01-30T23:59:59"));
  assert.deepEqual(tally.at(at("2026-01-30T23:59:59")), { dayBytes: 107, monthBytes: 1_007 });
  assert.deepEqual(tally.at(at("2026-01-31T00:00")), { dayBytes: 0, monthBytes: 1_007 });
  tally.add(5, at("2026-01-31T12:00"));
  assert.deepEqual(tally.at(at("2026-01-31T12:00")), { dayBytes: 5, monthBytes: 1_012 });
  tally.add(3, at("2026-02-01T00:00"));
  assert.deepEqual(tally.at(at("2026-02-01T00:00")), { dayBytes: 3, monthBytes: 3 });
});

test("a relay that does not say is not answered for", () => {
  const tally = new Tally({ dailyUsedBytes: null, monthlyUsedBytes: 4 }, 0);
  tally.add(3, 0);
  assert.deepEqual(tally.at(0), { dayBytes: null, monthBytes: 7 });
  assert.deepEqual(tally.at(40 * 24 * 3_600_000), { dayBytes: null, monthBytes: 0 });
});
