import assert from "node:assert/strict";
import { test } from "node:test";
import { Backoff, DEFAULT_TIMERS, ruleOf } from "../../../static/phone/core/backoff.js";
import { Pacer } from "../../../static/phone/core/pacer.js";

const highest = () => 1;

test("each close code has its rule, Daphne's too", () => {
  const rules = {
    stop: [4001, 4003],
    replaced: [4002],
    soon: [1012, 4012],
    later: [1013, 4013, 4029],
    again: [1000, 1002, 1006, 1007, 1009, 1011, 4004, 4008, 4011, 4999],
  };
  for (const [rule, codes] of Object.entries(rules)) {
    for (const code of codes) assert.equal(ruleOf(code), rule, `${code}`);
  }
});

test("pauses grow to a minute, and are never longer than the outage so far and a second", () => {
  const backoff = new Backoff(DEFAULT_TIMERS, highest);
  let now = 0;
  const pauses = [];
  for (let failure = 0; failure < 30; failure++) {
    const verdict = backoff.failed(now, 1006);
    assert.equal(verdict.kind, "again");
    assert.ok(verdict.ms <= now + 1000);
    pauses.push(verdict.ms);
    now += verdict.ms;
  }
  assert.deepEqual(pauses.slice(0, 3), [1000, 1500, 2250]);
  assert.equal(pauses.at(-1), 60_000);
});

test("only a connection that stayed makes the pauses short again", () => {
  const backoff = new Backoff(DEFAULT_TIMERS, highest);
  for (const now of [0, 100_000, 200_000]) backoff.failed(now, 1006);
  backoff.opened(300_000);
  assert.ok(backoff.failed(309_000, 1006).ms > 3000);
  backoff.opened(400_000);
  assert.equal(backoff.failed(410_000, 1006).ms, 1000);
});

test("what the relay asks for is waited for, within reason", () => {
  const backoff = new Backoff(DEFAULT_TIMERS, () => 0);
  assert.deepEqual(backoff.failed(0, 4029), { kind: "again", ms: 5000, notBefore: 0 });
  assert.deepEqual(backoff.failed(0, 4029, 7000), { kind: "again", ms: 7000, notBefore: 7000 });
  assert.equal(backoff.failed(0, 1006, 2 ** 52).ms, DEFAULT_TIMERS.longestRetryAfter);
  assert.deepEqual(backoff.failed(0, 4002), { kind: "stop", final: false });
  assert.deepEqual(backoff.failed(0, 4003), { kind: "stop", final: true });
});

test("a phone sends at nine tenths of the pace that is announced", () => {
  const pacer = new Pacer();
  pacer.announce(100, 0);
  for (let frame = 0; frame < 25; frame++) pacer.sent(0);
  let now = 0;
  let sent = 0;
  while (now < 10_000) {
    const wait = pacer.delay(now);
    if (wait > 0) {
      now += wait;
      continue;
    }
    pacer.sent(now);
    sent += 1;
  }
  assert.ok(sent > 890 && sent <= 1001, `${sent}`);
  pacer.announce(0, now);
  for (let frame = 0; frame < 10_000; frame++) pacer.sent(now);
  assert.equal(pacer.delay(now), 0);
});
