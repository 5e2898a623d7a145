/** The library against a real relay and a real agent: connections that end, and pairings. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { MemoryStore, Phone, webCrypto } from "../../../static/phone/core/index.js";
import { event, onStage, phoneFor, please, state } from "./stage.js";

/** WebSockets that a test can take hold of. */
class Held extends (globalThis.WebSocket ?? Object) {
  static all = [];

  constructor(...given) {
    super(...given);
    Held.all.push(this);
  }
}

test("a link is good once, and its device goes on with what it kept", onStage, async (t) => {
  const pairing = await please("pair");
  const store = new MemoryStore();
  const first = phoneFor(t, pairing, { store });
  assert.equal((await first.ask("first time").finished).text, "You said: first time");
  first.close();
  assert.equal(first.state.kind, "closed");

  const again = phoneFor(t, pairing, { store });
  assert.equal((await again.ask("second time").finished).text, "You said: second time");
  again.close();

  const stranger = phoneFor(t, pairing);
  await assert.rejects(stranger.ready(), { name: "PairingRefused", failure: "SECRET_REFUSED" });
  assert.deepEqual([stranger.state.kind, stranger.state.failure], ["refused", "SECRET_REFUSED"]);
  await assert.rejects(stranger.ask("let me in").finished, { name: "PairingRefused" });
  stranger.close();

  const back = phoneFor(t, pairing, { store });
  assert.equal((await back.ask("third time").finished).text, "You said: third time");
});

test("without the link's secret a phone goes on with what it kept", onStage, async (t) => {
  const pairing = await please("pair");
  const store = new MemoryStore();
  const phone = phoneFor(t, pairing, { store });
  await phone.ready();
  phone.close();
  const bare = pairing.link.replace(/&psk=.*/, "");
  const again = phoneFor(t, { link: bare }, { store });
  assert.equal((await again.ready()).verified, true);
});

test(
  "a store that cannot keep the secret stops the phone, and spoils nothing",
  onStage,
  async (t) => {
    const pairing = await please("pair");
    const store = new MemoryStore();
    const broken = { load: async () => null, save: () => Promise.reject(new Error("full")) };
    const phone = phoneFor(t, pairing, { store: broken });
    await assert.rejects(phone.ready(), { name: "StoreError" });
    assert.equal((await state(phone, "storage")).cause?.includes("full"), false);
    await assert.rejects(phone.ask("lost").finished, { name: "StoreError" });

    const mended = phoneFor(t, pairing, { store });
    assert.equal((await mended.ask("kept").finished).text, "You said: kept");
  },
);

test("what is asked while the agent is away waits for it", onStage, async (t) => {
  const pairing = await please("pair", { served: false });
  const phone = phoneFor(t, pairing);
  await state(phone, "agent-offline");
  await assert.rejects(phone.ready({ timeout: 20 }), { name: "PeerOffline" });
  await assert.rejects(phone.agents({ timeout: 20 }), { name: "PeerOffline" });
  const answer = phone.ask("are you there?");
  await please("serve", { uri: pairing.uri });
  assert.equal((await answer.finished).text, "You said: are you there?");
  await please("leave", { uri: pairing.uri });
  await state(phone, "agent-offline");
});

test("an agent that leaves ends what it was answering", onStage, async (t) => {
  const pairing = await please("pair");
  const phone = phoneFor(t, pairing);
  const answer = phone.ask("hold it");
  await event(answer, "delta");
  await please("leave", { uri: pairing.uri });
  await assert.rejects(answer.finished, { name: "ConnectionLost", ids: [answer.id] });
  assert.equal(answer.text, "Held.");
});

test(
  "after a restart of the relay a question is sent again under its id, and taken once",
  onStage,
  async (t) => {
    const phone = phoneFor(t, await please("pair", { mortal: true }));
    const answer = phone.ask("hold fast");
    await event(answer, "delta");
    const restarted = please("restart");
    await assert.rejects(answer.finished, { name: "ConnectionLost", ids: [answer.id] });
    const waiting = await state(phone, "waiting");
    assert.equal(waiting.cause, "The relay restarts.");
    assert.ok(Math.abs(Number(waiting.retryAt) - Date.now()) < 2000);

    // The agent knows the question: it answers nothing twice.
    const again = phone.ask("hold fast", { id: answer.id });
    await assert.rejects(again.finished, { name: "AgentError", code: "DUPLICATE" });
    await restarted;
    assert.equal((await please("asked", { text: "hold fast" })).length, 1);
    assert.equal((await phone.ask("and now?").finished).text, "You said: and now?");
  },
);

test("a file goes on where it was when the relay restarts", onStage, async (t) => {
  let sent = 0;
  let restarted;
  const seal = async (...given) => {
    // Once it is under way, slow enough for the relay to go before the file is there.
    if (restarted) await new Promise((done) => setTimeout(done, 30));
    return webCrypto.seal(...given);
  };
  const phone = phoneFor(t, await please("pair", { mortal: true }), {
    crypto: { ...webCrypto, seal },
  });
  const onProgress = (_, now) => {
    assert.ok(now >= sent);
    sent = now;
    if (sent > 500_000) restarted ??= please("restart");
  };
  const data = new Uint8Array(4_000_000).map((_, index) => index >> 9);
  const attachments = [{ name: "a.bin", type: "application/octet-stream", data }];
  const answer = phone.ask("after the restart", { attachments, onProgress });
  await state(phone, "ready");
  await state(phone, "waiting");
  const before = sent;
  assert.ok(before > 500_000 && before < 4_000_000);
  await answer.finished;
  await restarted;
  assert.equal(sent, 4_000_000);
  const [{ attachments: came }] = await please("asked", { text: "after the restart" });
  assert.equal(came[0].sha256, createHash("sha256").update(data).digest("hex"));
});

test(
  "beyond its allowance a phone is told when it may go on, and that is true",
  onStage,
  async (t) => {
    const phone = phoneFor(t, await please("pair"));
    await phone.ready();
    const hint = event(phone, "hint");
    const asked = Array.from({ length: 31 }, () => phone.agents());
    const results = await Promise.allSettled(asked);
    const refused = results
      .filter(({ status }) => status === "rejected")
      .map(({ reason }) => reason);
    assert.ok(refused.length >= 1);
    const [{ name, code, retryAfterMs, ids }] = refused;
    assert.deepEqual([name, code, ids.length], ["RelayRefused", "RATE_LIMITED", 1]);
    assert.deepEqual(await hint, { code, retryAfterMs, ref: ids[0] });
    assert.ok(retryAfterMs > 0 && retryAfterMs <= 2100, `${retryAfterMs}`);
    await new Promise((done) => setTimeout(done, retryAfterMs));
    assert.equal((await phone.agents()).length, 1);
  },
);

test("a pairing that is revoked ends for good", onStage, async (t) => {
  const pairing = await please("pair");
  const phone = phoneFor(t, pairing);
  await phone.ready();
  await please("revoke", { token: pairing.token });
  assert.match((await state(phone, "revoked")).cause ?? "", /revoked/);
  await assert.rejects(phone.ready(), { name: "Stopped", code: 4003 });
  phone.reconnect();
  assert.equal(phone.state.kind, "revoked");
});

test("a token that the relay does not know is told so", onStage, async (t) => {
  const pairing = await please("pair");
  const link = pairing.link.replace(pairing.token, "oc_pair_00000000000000000000000000000000");
  const phone = phoneFor(t, { link });
  await assert.rejects(phone.ready(), { name: "Stopped", code: 4001 });
  assert.equal(phone.state.kind, "unauthorized");
});

test("another device takes the place, and gives it back when asked", onStage, async (t) => {
  const pairing = await please("pair");
  const store = new MemoryStore();
  const first = phoneFor(t, pairing, { store });
  await first.ready();
  const second = phoneFor(t, pairing, { store });
  await second.ready();
  await state(first, "replaced");
  await assert.rejects(first.ready(), { name: "Stopped", code: 4002 });
  first.reconnect();
  await state(second, "replaced");
  assert.equal((await first.ask("here again").finished).text, "You said: here again");
});

test("a phone that was closed can connect again", onStage, async (t) => {
  const phone = phoneFor(t, await please("pair"));
  await phone.ready();
  phone.close();
  await assert.rejects(phone.ready(), { name: "NotConnected" });
  phone.connect();
  assert.equal((await phone.ask("open again").finished).text, "You said: open again");
});

test("closing tells whatever waits", onStage, async (t) => {
  const phone = phoneFor(t, await please("pair"));
  const answer = phone.ask("hold the line");
  await event(answer, "delta");
  phone.close();
  await assert.rejects(answer.finished, { name: "ConnectionLost", ids: [answer.id] });
});

test("a phone that never connected says so", async () => {
  const phone = new Phone("https://relay.example.com/phone#token=abc");
  assert.deepEqual(phone.state, { kind: "closed" });
  await assert.rejects(phone.ask("hello").finished, { name: "NotConnected" });
  await assert.rejects(phone.agents(), { name: "NotConnected" });
});

test("a relay that cannot be reached is tried again, at once where the user asks", async (t) => {
  const link = "coralmux://pair?relay=ws%3A%2F%2F127.0.0.1%3A9%2Fws&token=abc";
  const phone = phoneFor(t, { link }, { timers: { firstPause: 60_000, growth: 1 } });
  const { retryAt, cause } = await state(phone, "waiting");
  assert.ok(Number(retryAt) <= Date.now() + 60_000);
  assert.match(cause ?? "", /cannot be reached/);
  const dialled = event(phone, "state", (detail) => detail.state.kind === "connecting");
  phone.reconnect();
  await dialled;
  await state(phone, "waiting");
});

test("a connection that died unheard is found out, and comes back at once", onStage, async (t) => {
  const timers = { alivePatience: 200, firstPause: 60_000 };
  const phone = phoneFor(t, await please("pair"), { WebSocket: Held, timers });
  await phone.ready();
  const before = Held.all.length;
  phone.checkAlive();
  await phone.agents();
  await new Promise((done) => setTimeout(done, 400));
  assert.equal(Held.all.length, before, "a living connection is left alone");

  const socket = Held.all.at(-1);
  socket.onmessage = () => {};
  phone.checkAlive();
  await state(phone, "waiting");
  await phone.ready();
  assert.equal(Held.all.length, before + 1);
  assert.equal((await phone.ask("alive").finished).text, "You said: alive");
});

test(
  "a connection is asked for life while it is silent, and given up without an answer",
  onStage,
  async (t) => {
    const timers = { ping: 50, pingPatience: 200, firstPause: 1 };
    const phone = phoneFor(t, await please("pair"), { WebSocket: Held, timers });
    await phone.ready();
    const socket = Held.all.at(-1);
    const pongs = [];
    const { onmessage } = socket;
    await new Promise((done) => {
      socket.onmessage = (message) => {
        if (JSON.parse(message.data).type === "pong") pongs.push(message.data);
        if (pongs.length === 3) done();
        onmessage(message);
      };
    });
    assert.deepEqual(phone.state, { kind: "ready" });
    socket.onmessage = () => {};
    assert.match((await state(phone, "waiting")).cause ?? "", /answer to a ping/);
    assert.equal((await phone.ask("still there?").finished).text, "You said: still there?");
  },
);
