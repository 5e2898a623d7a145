/** Sessions of the phone: records that somebody meddled with, and such as never came. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { decode } from "../../../static/phone/core/envelope.js";
import { NotReady } from "../../../static/phone/core/failures.js";
import { HandshakeState } from "../../../static/phone/core/noise.js";
import { utf8 } from "./vectors.js";
import { changed, dropping, envelope, kinds, stepOf, Wire } from "./wire.js";

// Records that somebody meddled with

/** The phone saw the failure, the agent was told; both are back, with nothing opened. */
async function assertRecovered(wire, failure) {
  await wire.run();
  assert.deepEqual(wire.phone.failures, [failure]);
  assert.deepEqual(wire.agent.failures, ["PEER_ENDED"]);
  assert.deepEqual([wire.phone.opened, wire.agent.opened], [[], []]);
  await wire.wait(10);
  assert.equal(wire.phone.failures.length, 1);
  await wire.exchange();
}

const MEDDLING = {
  "cut short": (m) => changed(m, { ciphertext: m.payload.ciphertext.slice(0, -4) }),
  emptied: (m) => changed(m, { ciphertext: "" }),
  "another type": (m) => envelope("chat.done", m.id, m.payload),
  "type of a handshake": (m) => envelope("key_exchange", m.id, m.payload),
  "type of an error": (m) => envelope("chat.error", m.id, m.payload),
  "another id": (m) => envelope(m.type, "another", m.payload),
  "no id": (m) => envelope(m.type, "", m.payload),
  "type moved into the id": (m) => envelope("chat", `stream\n${m.id}`, m.payload),
  "a later counter": (m) => changed(m, { n: m.payload.n + 1 }),
  "a much later counter": (m) => changed(m, { n: 2 ** 53 - 1 }),
};

test("a meddled record ends the session, both hear of it, and a new one follows", async () => {
  for (const [kind, meddle] of Object.entries(MEDDLING)) {
    const wire = await Wire.talking();
    await wire.deliver("phone", meddle(await wire.next("agent")));
    await assertRecovered(wire, "TAMPERED").catch((error) => {
      error.message = `${kind}: ${error.message}`;
      throw error;
    });
  }
});

test("a counter beyond the last ends the session", async () => {
  for (const n of ["9007199254740992", "18446744073709551616", `1${"0".repeat(400)}`]) {
    const wire = await Wire.talking();
    const message = await wire.next("agent");
    const raw = JSON.stringify(message).replace(`"n":${message.payload.n}`, `"n":${n}`);
    await wire.deliver("phone", decode(raw));
    await assertRecovered(wire, "EXHAUSTED");
  }
});

test("a record that comes twice, late, back or from another session is not opened", async () => {
  const twice = await Wire.talking();
  const message = await twice.next("agent");
  await twice.deliver("phone", message);
  assert.equal(twice.phone.take().length, 1);
  await twice.deliver("phone", message);
  await assertRecovered(twice, "REPLAYED");

  const reordered = await Wire.talking();
  const [first, second] = [await reordered.next("agent"), await reordered.next("agent")];
  await reordered.deliver("phone", second);
  assert.deepEqual(kinds(reordered.phone.take()), ["send", "gap", "opened"]);
  await reordered.run();
  assert.deepEqual(reordered.agent.lost, [first.id]);
  reordered.agent.take();
  await reordered.deliver("phone", first);
  await assertRecovered(reordered, "REPLAYED");

  const back = await Wire.talking();
  for (let times = 0; times < 3; times++) {
    await back.next("phone");
  }
  await back.deliver("phone", await back.next("phone"));
  await assertRecovered(back, "TAMPERED");

  const foreign = await Wire.talking();
  const old = await foreign.next("agent");
  await foreign.connect("phone");
  await foreign.run();
  await foreign.exchange();
  await foreign.wait(6);
  foreign.phone.take();
  await foreign.deliver("phone", old);
  assert.deepEqual(kinds(foreign.phone.take()), ["ignored"]);
  await foreign.exchange();
  foreign.phone.take();
  foreign.agent.take();
  const now = await foreign.next("agent");
  await foreign.deliver("phone", changed(old, { hs: now.payload.hs, n: 9 }));
  await assertRecovered(foreign, "TAMPERED");
});

test("a record without one of its members is not opened, and the agent hears of it", async () => {
  const wire = await Wire.talking();
  for (const member of ["v", "enc", "hs", "n", "ciphertext"]) {
    const message = await wire.next("agent");
    await wire.deliver("phone", changed(message, { [member]: undefined }));
    await wire.run();
    const told = wire.agent.opened.at(-1).payload;
    assert.deepEqual([told.code, told.ref], ["E2E_REQUIRED", message.id]);
  }
  assert.deepEqual(wire.phone.opened, []);
  await wire.exchange();
  assert.equal(wire.agent.lost.length, 5);
});

test("used up keys make a new session, on either side", async (t) => {
  for (const fail of [false, true]) {
    const ciphers = [];
    const { split } = HandshakeState.prototype;
    t.mock.method(HandshakeState.prototype, "split", function () {
      ciphers.push(split.call(this));
      return ciphers.at(-1);
    });
    const wire = await Wire.talking();
    t.mock.restoreAll();
    // The last record of the phone; both ends split their handshake.
    for (const [sending] of ciphers) {
      sending.setNonce(2 ** 53 - 1);
    }
    const last = await wire.say("phone");
    await wire.run();
    assert.equal(wire.agent.opened.at(-1).id, last);
    if (fail) {
      // Nothing is left to complain with.
      await wire.deliver("phone", MEDDLING.emptied(await wire.next("agent")));
    } else {
      await assert.rejects(wire.phone.machine.seal("chat.send", "2", utf8("{}")), NotReady);
      await wire.wait(1);
    }
    await wire.run();
    assert.deepEqual(wire.phone.failures, [fail ? "TAMPERED" : "EXHAUSTED"]);
    assert.deepEqual(wire.agent.failures, ["SUPERSEDED"]);
    await wire.exchange();
  }
});

test("a forgery every second leaves the handshakes five seconds apart", async () => {
  const wire = await Wire.meet();
  for (let second = 0; second < 60; second++) {
    const { hs } = wire.seen.findLast(([, m]) => stepOf(m) === 2)[1].payload;
    const forged = { enc: true, v: 2, hs, n: 1, ciphertext: "AAAA" };
    for (const role of ["phone", "agent"]) {
      await wire.deliver(role, envelope("chat.send", "f", forged));
    }
    await wire.wait(1);
  }
  const begun = wire.seen.filter(([, m]) => stepOf(m) === 1).length;
  assert.ok(begun > 3 && begun <= 60 / 5 + 1, `${begun}`);
  assert.deepEqual(
    [wire.phone.opened, wire.agent.opened.filter(({ type }) => type === "chat.send")],
    [[], []],
  );
  await wire.wait(10);
  await wire.exchange();
});

// Lost records

test("lost messages are named to their sender, the phone's and the agent's", async () => {
  for (const sender of ["phone", "agent"]) {
    const wire = await Wire.talking();
    const lost = [];
    for (let times = 0; times < 3; times++) {
      lost.push((await wire.next(sender)).id);
    }
    await wire.say(sender);
    await wire.run();
    const [side, receiver] = [wire.side(sender), wire.other(sender)];
    assert.equal(receiver.opened.length, 1);
    assert.equal(receiver.all("gap").length, 1);
    assert.deepEqual(side.lost, lost);
    assert.deepEqual([side.opened, side.failures], [[], []]);
    await wire.exchange();
  }
  const wire = await Wire.talking();
  await wire.next("agent");
  const { n } = (await wire.next("agent")).payload;
  await wire.say("agent");
  await wire.run();
  assert.deepEqual(wire.phone.all("gap"), [{ kind: "gap", first: n - 1, last: n }]);
});

test("a refused message is not lost until its second try is", async () => {
  const wire = await Wire.talking();
  for (const lost of [[], ["again"]]) {
    await wire.say("phone", { id: "again" });
    wire.queue = [];
    if (lost.length === 0) {
      wire.phone.machine.refused("again");
    }
    await wire.exchange();
    assert.deepEqual(wire.phone.lost, lost);
  }
});

test("a report of a gap that is lost is said again, refused or dropped", async () => {
  for (const refused of [false, true]) {
    const wire = await Wire.talking();
    const lost = (await wire.next("agent")).id;
    wire.relay = dropping((sender) => sender === "phone", { first: true });
    await wire.say("agent");
    await wire.run();
    assert.deepEqual(wire.agent.lost, []);
    if (refused) {
      wire.phone.machine.refused(wire.phone.all("send").at(-1).id);
    }
    await wire.say("phone");
    await wire.run();
    assert.deepEqual(wire.agent.lost, [lost]);
    assert.deepEqual(wire.phone.lost, []);
    const before = wire.seen.length;
    await wire.exchange();
    assert.equal(wire.seen.length, before + 2);
  }
});

test("a senseless report of a gap names nothing", async () => {
  const wire = await Wire.talking();
  const bounds = [
    [undefined, undefined],
    ["0", "9"],
    [0.5, 1.5],
    [true, true],
    [-5, 3],
    [0, -1],
  ];
  bounds.push(
    [0, 2 ** 53],
    [2 ** 53, 2 ** 53],
    [1e300, 1e300],
    [9, 2],
    [900, 2 ** 53 - 1],
    [[], {}],
    [null, 3],
  );
  for (const [from, to] of bounds) {
    const payload = { code: "E2E_GAP", from, to };
    await wire.say("agent", { type: "chat.error", id: "gap", payload });
    await wire.run();
  }
  assert.deepEqual([wire.phone.lost, wire.phone.opened], [[], []]);
  const ids = [await wire.say("phone"), await wire.say("phone")];
  await wire.run();
  const everything = { code: "E2E_GAP", from: 0, to: 2 ** 53 - 1 };
  await wire.say("agent", { type: "chat.error", id: "gap", payload: everything });
  await wire.run();
  assert.deepEqual(wire.phone.lost.slice(-2), ids);
});

test("a sealed payload that is no object is answered, and the session goes on", async () => {
  for (const text of ["[]", "7", "", "{", "\ufeff{}", "[".repeat(60_000), Uint8Array.of(0xff)]) {
    const wire = await Wire.talking();
    const plaintext = typeof text === "string" ? utf8(text) : text;
    const sealed = await wire.agent.machine.seal("chat.done", "odd", plaintext);
    await wire.deliver("phone", envelope("chat.done", "odd", sealed));
    await wire.run();
    assert.deepEqual(wire.phone.opened, []);
    assert.deepEqual(kinds(wire.phone.events), ["send", "ignored"]);
    const { code, ref } = wire.agent.opened[0].payload;
    assert.deepEqual([code, ref], ["INVALID_MESSAGE", "odd"]);
    await wire.exchange();
  }
});
