import assert from "node:assert/strict";
import { test } from "node:test";
import { endOf, fateOf, pauseOf } from "../../../static/phone/app/model/fate.js";
import { ConnectionLost, MessageLost, PeerOffline } from "../../../static/phone/core/errors.js";

const NOW = Date.UTC(2026, 1, 3, 12);
const DAY = 86_400_000;

test("a rate limit keeps questions back for as long as the relay says, within reason", () => {
  const until = (retryAfterMs) => pauseOf("RATE_LIMITED", retryAfterMs, NOW).until - NOW;
  assert.equal(until(250), 250);
  assert.equal(until(null), 10_000);
  assert.equal(until(10 ** 12), 120_000);
});

test("a quota keeps questions back until it begins anew", () => {
  const until = (code, retryAfterMs = null) => pauseOf(code, retryAfterMs, NOW).until;
  assert.equal(until("DAILY_QUOTA_EXCEEDED"), Date.UTC(2026, 1, 4));
  assert.equal(until("MONTHLY_QUOTA_EXCEEDED"), Date.UTC(2026, 2, 1));
  assert.equal(until("DAILY_QUOTA_EXCEEDED", 5000), NOW + 5000);
  assert.equal(until("MONTHLY_QUOTA_EXCEEDED", 400 * DAY), NOW + 32 * DAY);
});

test("other refusals keep nothing back", () => {
  assert.equal(pauseOf("PEER_OFFLINE", 1000, NOW), null);
});

test("a pairing is over where waiting cannot help", () => {
  assert.deepEqual(endOf({ kind: "revoked" }), { name: "Stopped" });
  assert.deepEqual(endOf({ kind: "unauthorized" }), { name: "Stopped" });
  assert.deepEqual(endOf({ kind: "lost" }), { name: "SecretLost" });
  assert.deepEqual(endOf({ kind: "refused", failure: "SECRET_REFUSED" }), {
    name: "PairingRefused",
  });
  for (const kind of ["ready", "waiting", "storage", "replaced", "agent-offline"]) {
    assert.equal(endOf({ kind }), null);
  }
  assert.equal(endOf({ kind: "refused", failure: "NO_ANSWER" }), null);
});

test("what may have arrived is sent again by itself in version 2 alone", () => {
  const facts = { heard: false, tries: 1, now: NOW };
  const lost = new ConnectionLost("The connection broke.");
  assert.deepEqual(fateOf(lost, { ...facts, version: 2 }), { kind: "again" });
  assert.deepEqual(fateOf(lost, { ...facts, version: 1 }), {
    kind: "failed",
    failure: { name: "ConnectionLost" },
  });
});

test("what is known not to have arrived is sent again, though not for ever", () => {
  const facts = { heard: false, tries: 1, now: NOW };
  for (const version of [1, 2]) {
    assert.equal(fateOf(new PeerOffline("Away."), { ...facts, version }).kind, "again");
  }
  const lost = new MessageLost("It did not arrive.");
  assert.equal(fateOf(lost, { ...facts, version: 2 }).kind, "again");
  assert.equal(fateOf(lost, { ...facts, version: 2, tries: 3 }).kind, "failed");
});
