import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import * as base64 from "../../../static/phone/core/base64.js";
import { webCrypto } from "../../../static/phone/core/crypto.js";
import { decode } from "../../../static/phone/core/envelope.js";
import { FAILURES, NotReady } from "../../../static/phone/core/failures.js";
import { HandshakeState } from "../../../static/phone/core/noise.js";
import { PhoneSession, prologue } from "../../../static/phone/core/session.js";
import { Agent } from "./agent.js";
import { countedBytes, drawing, flipped, hex, seeded, utf8, vectors } from "./vectors.js";
import {
  AGENT,
  changed,
  crypto,
  Died,
  dropping,
  envelope,
  honest,
  isRecord,
  keeping,
  LINK_SECRET,
  phoneSide,
  shown,
  stepOf,
  TOKEN,
  Wire,
} from "./wire.js";

const CASES = vectors("session").vectors;
const PUBKEY = { pubkey: base64.encode(new Uint8Array(32).map((_, n) => n)) };
const STEP_0 = envelope("key_exchange", "0", { v: 2, step: 0 });
const nothing = () => [];
const kinds = (events) => events.map(({ kind }) => kind);

// What is written down

/** Both ends of a vector, with the random bytes that it tells. */
async function ends(vector) {
  const secret = base64.decodeUrl(vector.secret, 32);
  const entropy = {
    phone: countedBytes(vector.phone.entropy_label),
    agent: countedBytes(vector.agent.entropy_label),
  };
  const handles = new Map();
  const phoneCrypto = {
    ...drawing(entropy.phone),
    async importSecret(bytes) {
      const text = base64.encodeUrl(bytes);
      const handle = await webCrypto.importSecret(bytes);
      handles.set(handle, text);
      return handle;
    },
  };
  const phone = new PhoneSession({
    token: vector.token,
    secrets: { current: await phoneCrypto.importSecret(secret), next: null, link: true },
    identity: vector.phone.identity,
    crypto: phoneCrypto,
  });
  const agent = new Agent({
    token: vector.token,
    secrets: { current: secret, next: null, link: true },
    identity: vector.agent.identity,
    rotate: vector.rotate,
    crypto: drawing(entropy.agent),
  });
  const written = (value) => value && (handles.get(value) ?? base64.encodeUrl(value));
  return { phone, agent, entropy, written };
}

/** The vector's session, shaken hands and nothing more: what was sent, and what was stored. */
async function shaken(vector) {
  const { phone, agent, entropy, written } = await ends(vector);
  const handshake = [];
  const stored = { phone: [], agent: [] };
  const carryOut = async (role, events) => {
    const [machine, other] = role === "phone" ? [agent, "agent"] : [phone, "phone"];
    for (const { kind, type, id, payload, secrets } of events) {
      if (kind === "store") {
        const { current, next, link } = secrets;
        stored[role].push({ current: written(current), next: written(next), link });
      } else if (kind === "send") {
        handshake.push({ from: role, type, id, payload: JSON.stringify(payload) });
        await carryOut(other, await machine.receive(envelope(type, id, payload), 0));
      }
    }
  };
  await carryOut("phone", await phone.connected(0, { paired: true }));
  return { phone, agent, handshake, stored, entropy };
}

test("a session is made as it is written down, byte for byte", async () => {
  for (const vector of CASES) {
    const { phone, agent, handshake, stored, entropy } = await shaken(vector);
    assert.deepEqual(handshake, vector.handshake, vector.name);
    for (const role of ["phone", "agent"]) {
      assert.deepEqual(stored[role], vector[role].stored);
      assert.deepEqual(entropy[role].drawn, vector[role].drawn);
    }
    const { name, version, caps } = vector.agent.identity;
    assert.deepEqual(phone.peer, { name, version, caps, protocol: 2, verified: true });
    for (const { from, type, id, plaintext, payload } of vector.records) {
      const [sender, receiver] = from === "phone" ? [phone, agent] : [agent, phone];
      const sealed = await sender.seal(type, id, utf8(plaintext));
      assert.equal(JSON.stringify(sealed), payload);
      const [opened, ...more] = await receiver.receive(envelope(type, id, JSON.parse(payload)), 0);
      assert.deepEqual([opened.kind, opened.type, opened.id], ["opened", type, id]);
      assert.deepEqual([opened.payload, more], [JSON.parse(plaintext), []]);
    }
  }
});

test("no byte of what is written down may be another: nothing that was changed is opened", async () => {
  const vector = CASES[0];
  const records = vector.records.filter(({ from }) => from === "agent");
  for (const { type, id, payload, n } of records) {
    const record = JSON.parse(payload);
    const ciphertext = base64.decode(record.ciphertext);
    const { phone } = await shaken(vector);
    const others = records.filter((other) => other.n < n);
    for (const other of others) {
      await phone.receive(envelope(other.type, other.id, JSON.parse(other.payload)), 0);
    }
    for (let position = 0; position < Math.min(ciphertext.length, 500); position++) {
      const bad = { ...record, ciphertext: base64.encode(flipped(ciphertext, position)) };
      const machine = position === 0 ? phone : (await shaken(vector)).phone;
      const events = await machine.receive(envelope(type, id, bad), 0);
      assert.ok(!kinds(events).includes("opened"));
      assert.deepEqual(events.find(({ kind }) => kind === "ended")?.failure, "TAMPERED");
      assert.ok(!machine.ready);
      if (position > 20 && position < ciphertext.length - 20) {
        position += 30; // each costs a handshake
      }
    }
  }
});

test("a step 2 with any byte changed is ignored, and the honest one behind it is taken", async () => {
  for (const vector of CASES) {
    const { phone } = await ends(vector);
    await phone.connected(0, { paired: true });
    const { type, id, payload } = vector.handshake[1];
    const step = JSON.parse(payload);
    const noise = base64.decode(step.noise);
    const forged = Array.from(noise, (_, position) => base64.encode(flipped(noise, position)));
    for (const bad of [
      ...forged,
      base64.encode(noise.slice(1)),
      "",
      "AAAA",
      "no base64",
      null,
      7,
    ]) {
      const events = await phone.receive(envelope(type, id, { ...step, noise: bad }), 0);
      assert.deepEqual(kinds(events), ["ignored"]);
    }
    const other = { ...step, hs: base64.encodeUrl(new Uint8Array(16)) };
    for (const bad of [
      other,
      { ...step, hs: undefined },
      { ...step, step: 1 },
      { ...step, step: 4 },
    ]) {
      assert.deepEqual(kinds(await phone.receive(envelope(type, id, bad), 0)), ["ignored"]);
    }
    const events = kinds(await phone.receive(envelope(type, id, step), 0));
    assert.deepEqual(events, [...(vector.rotate ? ["store"] : []), "send", "established"]);
    assert.deepEqual(kinds(await phone.receive(envelope(type, id, step), 0)), ["ignored"]);
  }
});

// Honest

test("both ends come to one session, whoever connects first", async () => {
  for (const [first, second] of [
    ["phone", "agent"],
    ["agent", "phone"],
  ]) {
    for (const rotate of [true, false]) {
      const wire = await Wire.make({ rotate });
      await wire.connect(first);
      await wire.connect(second);
      await wire.run();
      assert.equal(wire.phone.all("established").length, 1);
      assert.deepEqual(wire.phone.opened, []); // step 4 is the machine's, not a message
      assert.deepEqual(wire.phone.machine.peer, { ...AGENT, protocol: 2, verified: true });
      assert.equal(wire.phone.machine.deadline, null);
      await wire.exchange();
    }
  }
});

test("messages of every kind pass both ways in order, errors of the agent as messages", async () => {
  const wire = await Wire.meet();
  const agents = [
    ["chat.stream", { delta: " ", seq: 1 }],
    ["chat.error", { code: "BACKEND_ERROR", message: "The model is away." }],
    ["chat.error", { code: "RATE_LIMITED", message: "The agent's own limit." }],
    ["chat.done", { full_text: "é👋".repeat(50_000) }],
    ["anything.else", { nested: [[{ a: null }], 1.5, true] }],
  ];
  for (const [index, [type, payload]] of agents.entries()) {
    await wire.say("agent", { type, id: `${index}`, payload });
  }
  await wire.run();
  const opened = wire.phone.opened.map(({ type, payload, sealed }) => [type, payload, sealed]);
  assert.deepEqual(
    opened,
    agents.map(([type, payload]) => [type, payload, true]),
  );
  assert.ok(wire.phone.opened[3].size >= 300_000);
  assert.deepEqual([wire.phone.all("hint"), wire.phone.failures], [[], []]);
  await wire.say("phone", { type: "file.chunk", id: "c", payload: { data_b64: "AAAA" } });
  await wire.run();
  assert.deepEqual(wire.agent.opened[0].payload, { data_b64: "AAAA" });
});

test("nothing is sealed before the agent has proved itself, nor while a handshake runs", async () => {
  const wire = await Wire.make();
  const seal = () => wire.phone.machine.seal("chat.send", "1", utf8("{}"));
  await assert.rejects(seal(), NotReady);
  wire.relay = dropping((sender) => sender === "agent");
  await wire.meet();
  assert.ok(!wire.phone.machine.ready);
  await assert.rejects(seal(), NotReady);
  wire.relay = honest;
  await wire.wait(10);
  await wire.exchange();
  wire.relay = nothing;
  await wire.carryOut(wire.phone, wire.phone.machine.peerOnline(wire.now));
  assert.ok(!wire.phone.machine.ready);
  await assert.rejects(seal(), NotReady);
  assert.deepEqual(wire.phone.failures, []);
});

test("messages sealed at once arrive in the order of the calls", async () => {
  const wire = await Wire.talking();
  const lengths = [90_000, 1, 5_000, 10, 70_000, 2];
  const ids = await Promise.all(
    lengths.map((length, n) =>
      wire.say("phone", { id: `${n}`, payload: { t: "x".repeat(length) } }),
    ),
  );
  // They finish in any order; the counters say in which to send.
  wire.queue.sort(([, a], [, b]) => a.payload.n - b.payload.n);
  await wire.run();
  assert.deepEqual(
    wire.agent.opened.map(({ id }) => id),
    ids,
  );
  assert.deepEqual(
    wire.agent.opened.map(({ payload }) => payload.t.length),
    lengths,
  );
});

test("a session ends with its connection, and each connection gets a new one", async () => {
  const wire = await Wire.meet();
  await wire.disconnect("agent");
  assert.deepEqual(wire.phone.failures, ["CONNECTION_ENDED"]);
  assert.deepEqual([wire.phone.machine.ready, wire.phone.machine.deadline], [false, null]);
  await wire.connect("agent");
  await wire.run();
  await wire.exchange();
  await wire.disconnect("phone");
  assert.deepEqual(wire.phone.failures, ["CONNECTION_ENDED", "CONNECTION_ENDED"]);
  await wire.connect("phone");
  await wire.run();
  await wire.exchange();
  const names = wire.seen.filter(([, m]) => stepOf(m) === 1).map(([, m]) => m.payload.hs);
  assert.equal(new Set(names).size, 3);
});

test("the old session goes on until the agent has answered in the new one", async () => {
  const wire = await Wire.talking();
  wire.relay = dropping((sender) => sender === "agent");
  await wire.carryOut(wire.phone, wire.phone.machine.peerOnline(wire.now));
  const said = await wire.agent.machine.seal("chat.stream", "s", utf8('{"delta":"a"}'));
  await wire.deliver("phone", envelope("chat.stream", "s", said));
  assert.deepEqual(wire.phone.opened[0].payload, { delta: "a" });
  assert.deepEqual(wire.phone.failures, []);
  wire.relay = honest;
  await wire.run();
  await wire.wait(11);
  assert.deepEqual(wire.phone.failures, ["SUPERSEDED"]);
  await wire.exchange();
});

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

// No session

test("after three time-outs it says so, and goes on trying each minute", async () => {
  const wire = await Wire.make();
  wire.relay = dropping((sender) => sender === "agent");
  await wire.meet();
  const asked = () => wire.phone.all("send").length;
  await wire.wait(29.5);
  assert.deepEqual([wire.phone.refusals, asked()], [[], 3]);
  await wire.wait(0.5);
  assert.deepEqual([wire.phone.refusals, asked()], [["NO_ANSWER"], 3]);
  assert.equal(
    new Set(wire.seen.filter(([, m]) => stepOf(m) === 1).map(([, m]) => m.payload.hs)).size,
    3,
  );
  await wire.wait(59.5);
  assert.equal(asked(), 3);
  wire.relay = honest;
  await wire.wait(0.5);
  await wire.exchange();
});

test("a phone that is told the agent left stops asking", async () => {
  const wire = await Wire.make();
  wire.relay = dropping((sender) => sender === "agent");
  await wire.meet();
  await wire.disconnect("agent");
  await wire.wait(200);
  assert.deepEqual([wire.phone.all("send").length, wire.phone.refusals], [1, []]);
});

test("an agent that answers nonsense counts as not answering", async () => {
  for (const identity of [
    { name: 5, version: "2" },
    { name: "a" },
    { ...AGENT, caps: null },
    { ...AGENT, caps: [1] },
  ]) {
    const wire = await Wire.make();
    wire.agent.machine.identity = identity;
    await wire.meet();
    assert.deepEqual(wire.phone.all("established"), []);
    assert.deepEqual(wire.phone.all("store"), []);
    await wire.deliver("phone", wire.seen.find(([, m]) => stepOf(m) === 2)[1]);
    await wire.wait(31);
    assert.deepEqual(wire.phone.refusals, ["NO_ANSWER"]);
    wire.agent.machine.identity = AGENT;
    await wire.wait(90);
    await wire.exchange();
  }
});

test("names neither hide nor turn the text beside them", async () => {
  const wire = await Wire.make();
  const name = `a\u001b[2J\u202eb\n\u200b ${"👋".repeat(100)}`;
  wire.agent.machine.identity = { name, version: "1\u0007", caps: new Array(99).fill("x") };
  await wire.meet();
  const { peer } = wire.phone.machine;
  assert.equal(peer.name, `a[2Jb ${"👋".repeat(58)}`);
  assert.equal(peer.version, "1");
  assert.equal(peer.caps.length, 32);
});

test("a request to begin is honoured once in five seconds, and by nobody who is alone", async () => {
  const wire = await Wire.meet();
  const established = () => wire.phone.all("established").length;
  await wire.wait(6);
  for (let times = 0; times < 5; times++) {
    await wire.deliver("phone", STEP_0);
    await wire.run();
  }
  assert.equal(established(), 2);
  await wire.exchange(); // the other four wait their turn, and are one
  await wire.wait(4);
  assert.equal(established(), 2);
  await wire.wait(1);
  assert.equal(established(), 3);
  await wire.wait(100);
  assert.equal(established(), 3);
  await wire.exchange();

  const alone = await Wire.make();
  await alone.connect("phone");
  await alone.deliver("phone", STEP_0);
  assert.deepEqual(alone.phone.events, []);
});

test("a request to begin does not disturb a handshake that runs", async () => {
  const wire = await Wire.make();
  const held = [];
  wire.relay = keeping(2, held);
  await wire.meet();
  await wire.wait(7);
  await wire.deliver("phone", STEP_0);
  wire.relay = honest;
  await wire.deliver("phone", held[0]);
  await wire.run();
  assert.equal(wire.seen.filter(([, m]) => stepOf(m) === 1).length, 1);
  await wire.exchange();
});

test("an answer to another handshake is ignored", async () => {
  const wire = await Wire.make({ rotate: false });
  const held = [];
  wire.relay = keeping(2, held);
  await wire.meet();
  await wire.wait(11);
  assert.equal(held.length, 2);
  await wire.deliver("phone", held[0]);
  await wire.deliver("phone", changed(held[0], { hs: held[1].payload.hs }));
  await wire.deliver("phone", changed(held[1], { hs: "" }));
  assert.ok(!wire.phone.machine.ready);
  wire.relay = honest;
  await wire.deliver("phone", held[1]);
  await wire.run();
  for (const message of held) {
    await wire.deliver("phone", message);
  }
  await wire.exchange();
});

test("an agent that goes on in its old session, step 3 being lost, gets a new one", async () => {
  const wire = await Wire.meet();
  await wire.exchange();
  wire.relay = dropping((sender, m) => sender === "phone" && isRecord(m), { first: true });
  await wire.wait(6);
  await wire.carryOut(wire.phone, wire.phone.machine.peerOnline(wire.now));
  await wire.run();
  await wire.say("agent");
  await wire.run();
  assert.equal(wire.phone.events.at(-1).kind, "ignored"); // not five seconds yet
  await wire.wait(6);
  await wire.say("agent");
  await wire.run();
  await wire.exchange();
  assert.equal(wire.phone.all("established").length, 3);
});

test("an agent that lost step 3 tells a phone that believes in its session", async () => {
  const wire = await Wire.make();
  wire.relay = dropping((sender, m) => sender === "phone" && isRecord(m), { first: true });
  await wire.meet();
  assert.ok(wire.phone.machine.ready);
  await wire.say("phone");
  await wire.run();
  assert.deepEqual(wire.phone.failures, ["PEER_ENDED"]);
  await wire.wait(6);
  await wire.exchange();
});

test("late records of the old session start nothing", async () => {
  const wire = await Wire.meet();
  await wire.exchange();
  const late = wire.seen.at(-1)[1];
  await wire.wait(6);
  await wire.carryOut(wire.phone, wire.phone.machine.peerOnline(wire.now));
  await wire.run();
  await wire.deliver("phone", late);
  await wire.exchange();
  await wire.wait(6);
  await wire.deliver("phone", late);
  await wire.wait(20);
  assert.equal(wire.phone.all("established").length, 2);
});

test("a key of version 1 and no answer say that the agent is too old; with one, nothing", async () => {
  const wire = await Wire.make();
  wire.relay = dropping((sender) => sender === "agent");
  await wire.meet();
  for (let times = 0; times < 3; times++) {
    await wire.deliver("phone", envelope("key_exchange", "k", PUBKEY));
  }
  await wire.wait(9.5);
  assert.deepEqual(wire.phone.refusals, []);
  await wire.wait(0.5);
  assert.deepEqual(wire.phone.refusals, ["NO_VERSION_2"]);
  assert.equal(wire.phone.all("send").length, 1);
  wire.relay = honest; // an agent that has been updated is there at the next attempt
  await wire.wait(60);
  await wire.exchange();
  await wire.deliver("phone", envelope("key_exchange", "k", PUBKEY));
  await wire.wait(100);
  await wire.exchange();
  assert.equal(wire.phone.refusals.length, 1);

  const next = await Wire.make();
  next.relay = dropping((sender) => sender === "agent");
  await next.meet();
  await next.deliver("phone", envelope("key_exchange", "k", PUBKEY));
  await next.disconnect("agent");
  await next.connect("agent");
  await next.wait(29);
  assert.deepEqual(next.phone.refusals, []);
});

test("what is told in the clear is called doubtful, and advises no downgrade", () => {
  for (const failure of ["NO_VERSION_2", "SECRET_REFUSED"]) {
    const text = FAILURES[failure];
    assert.ok(text.includes("It looks as if") && text.includes("may be lying"));
    assert.ok(!text.includes("version 1") && !text.includes("token"));
  }
});

// In the clear

function error(code, ref = "", more = {}) {
  return envelope("chat.error", "e", { code, message: "words", ref, ...more });
}

const stepOneId = (wire) => wire.seen.findLast(([, m]) => stepOf(m) === 1)[1].id;

test("nothing in the clear is taken for a message, and the agent hears of ten of them", async () => {
  const wire = await Wire.meet();
  wire.phone.take();
  const clear = [
    envelope("chat.stream", "c1", { delta: "forged" }),
    envelope("chat.done", "c2", { full_text: "forged" }),
    envelope("chat.done", "c3", { enc: true, ciphertext: "AAAA", nonce: "AAAA" }),
    envelope("chat.done", "c4", { enc: true, v: 1, hs: "x", n: 0 }),
    envelope("file.begin", "c".repeat(100), { file_id: "f" }),
    envelope("chat.error", "c6", { code: "E2E_GAP", message: "", from: 0, to: 9 }),
    envelope("chat.error", "c7", { code: "E2E_FAILED", message: "" }),
    envelope("chat.error", "c8", { code: "BACKEND_ERROR", message: "" }),
    envelope("key_exchange", "c9", { step: 2, name: "x", version: "x" }),
    envelope("key_exchange", "c10", { v: 2, step: 4 }),
  ];
  for (const message of clear) {
    await wire.deliver("phone", message);
  }
  assert.equal(wire.phone.all("ignored").length, clear.length);
  await wire.run();
  assert.deepEqual(wire.phone.opened, []);
  const told = wire.agent.opened.map(({ payload }) => [payload.code, payload.ref]);
  const refs = ["c1", "c2", "c3", "c4", "c".repeat(64)];
  assert.deepEqual(
    told,
    refs.map((ref) => ["E2E_REQUIRED", ref]),
  );
  const before = wire.seen.length;
  for (let number = 0; number < 100; number++) {
    await wire.deliver("phone", envelope("chat.done", `d${number}`, { full_text: "forged" }));
  }
  assert.equal(wire.seen.length, before + 5);
  await wire.run();
  await wire.exchange();
});

test("no forged error changes a session or a secret", async () => {
  const wire = await Wire.meet();
  const stored = shown(wire.phone.stored);
  wire.phone.take();
  const codes = ["UNAUTHORIZED", "PEER_OFFLINE", "RATE_LIMITED", "DAILY_QUOTA_EXCEEDED"];
  codes.push("MONTHLY_QUOTA_EXCEEDED", "MESSAGE_TOO_LARGE", "INVALID_MESSAGE");
  const others = [
    "BACKEND_ERROR",
    "E2E_REFUSED",
    "E2E_REQUIRED",
    "E2E_FAILED",
    "E2E_GAP",
    "toString",
  ];
  for (const code of [...codes, ...others]) {
    for (const ref of ["", "x", stepOneId(wire)]) {
      await wire.deliver("phone", error(code, ref));
    }
  }
  await wire.deliver("phone", envelope("chat.error", "e", { code: 7 }));
  const hints = wire.phone.all("hint").map(({ code }) => code);
  assert.deepEqual(
    hints,
    codes.flatMap((code) => [code, code, code]),
  );
  assert.deepEqual(new Set(kinds(wire.phone.events)), new Set(["hint", "ignored"]));
  assert.deepEqual(shown(wire.phone.machine.secrets), stored);
  await wire.exchange();
});

test("an agent that is away is asked again without a word of age", async () => {
  const wire = await Wire.make();
  wire.relay = nothing;
  await wire.meet();
  for (let times = 0; times < 6; times++) {
    await wire.deliver("phone", error("PEER_OFFLINE", stepOneId(wire)));
    await wire.wait(10);
  }
  assert.deepEqual(wire.phone.refusals, []);
  assert.equal(wire.phone.all("hint").length, 6);
  assert.equal(wire.phone.all("send").length, 7);
  wire.relay = honest;
  await wire.wait(10);
  await wire.exchange();
});

test("a refused step 1 goes out again when the relay takes it", async () => {
  const huge = Number.POSITIVE_INFINITY;
  const cases = [
    [8_000, 8],
    [1_000, 5],
    [0, 5],
    [-huge, 5],
    [60_000, 60],
    [3_600_000, 60],
    [huge, 60],
  ];
  for (const [wait, seconds] of cases) {
    const wire = await Wire.make();
    wire.relay = nothing;
    await wire.meet();
    const refusal = error("RATE_LIMITED", stepOneId(wire));
    refusal.payload.retry_after_ms = wait; // JSON of hundreds of digits is read as Infinity
    await wire.deliver("phone", refusal);
    const { retryAfterMs, code, message, ref } = wire.phone.all("hint").at(-1);
    assert.equal(retryAfterMs, Math.min(Math.max(wait, 0), 32 * 86_400_000));
    assert.deepEqual([code, message, ref], ["RATE_LIMITED", "words", stepOneId(wire)]);
    await wire.wait(seconds - 0.5);
    assert.equal(wire.phone.all("send").length, 1);
    wire.relay = honest;
    await wire.wait(0.5);
    await wire.exchange();
  }
});

test("hints about other messages change no handshake", async () => {
  const wire = await Wire.make();
  wire.relay = nothing;
  await wire.meet();
  for (const code of ["PEER_OFFLINE", "RATE_LIMITED", "E2E_REFUSED"]) {
    await wire.deliver("phone", error(code, "another", { retry_after_ms: 60_000 }));
  }
  await wire.wait(30);
  assert.deepEqual(wire.phone.refusals, ["NO_ANSWER"]);
});

test("a forged refusal is told, gives no secret up, and is tried again", async () => {
  for (const again of ["wait", "step 0", "status"]) {
    const wire = await Wire.make();
    wire.relay = nothing;
    await wire.meet();
    for (let times = 0; times < 2; times++) {
      await wire.deliver("phone", error("E2E_REFUSED", stepOneId(wire)));
      assert.deepEqual(wire.phone.refusals, ["SECRET_REFUSED"]);
    }
    assert.deepEqual(wire.phone.all("store"), []);
    wire.relay = honest;
    if (again === "wait") {
      await wire.wait(59.5);
      assert.ok(!wire.phone.machine.ready);
      await wire.wait(0.5);
    } else if (again === "step 0") {
      await wire.deliver("phone", STEP_0);
      await wire.wait(5);
    } else {
      await wire.carryOut(wire.phone, wire.phone.machine.peerOnline(wire.now));
      await wire.run();
    }
    await wire.exchange();
  }
});

test("no hostile payload makes the machine throw, reach a prototype or open a thing", async () => {
  const values = [null, true, -1, 0.5, 1e300, 2 ** 53, "", "a", "\ud800", "AAAA", [], {}, [[]]];
  values.push(
    "__proto__",
    { __proto__: { code: "E2E_FAILED" } },
    JSON.parse('{"__proto__":{"enc":true}}'),
  );
  const members = [
    "enc",
    "v",
    "hs",
    "n",
    "ciphertext",
    "step",
    "noise",
    "pubkey",
    "code",
    "message",
  ];
  members.push("ref", "retry_after_ms", "from", "to", "__proto__", "constructor", "toString");
  const random = seeded(3);
  const pick = (list) => list[Math.floor(random() * list.length)];
  const [fresh, waiting, ready] = [await Wire.make(), await Wire.make(), await Wire.meet()];
  waiting.relay = nothing;
  await waiting.meet();
  const { hs } = ready.seen.findLast(([, m]) => stepOf(m) === 2)[1].payload;
  const asked = waiting.seen.find(([, m]) => stepOf(m) === 1)[1];
  for (let times = 0; times < 3000; times++) {
    const given = Array.from({ length: 1 + Math.floor(random() * 6) }, () => [
      pick(members),
      pick(values),
    ]);
    const likely = { v: pick([1, 2]), step: pick([0, 2, 3]), hs: asked.payload.hs, noise: "AAAA" };
    const payload = Object.assign(pick([{}, likely, { ...likely, hs }]), Object.fromEntries(given));
    const type = pick(["key_exchange", "chat.error", "chat.done", "", "__proto__", "\ud800"]);
    const id = pick(["", "i", "\ud800\n", "x".repeat(999), asked.id]);
    for (const wire of [fresh, waiting, ready]) {
      const events = await wire.phone.machine.receive({ type, id, ts: 0, payload }, wire.now);
      assert.ok(!kinds(events).includes("opened") && !kinds(events).includes("store"));
    }
  }
  assert.deepEqual([{}.enc, {}.code, {}.polluted], [undefined, undefined, undefined]);
});

test("a message whose members are called like a prototype's reaches none", async () => {
  const wire = await Wire.talking();
  const raw = '{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}';
  const sealed = await wire.agent.machine.seal("chat.done", "p", utf8(raw));
  await wire.deliver("phone", envelope("chat.done", "p", sealed));
  const [{ payload }] = wire.phone.opened;
  assert.equal(Object.getPrototypeOf(payload), Object.prototype);
  assert.equal(payload.polluted ?? {}.polluted, undefined);
  const failed = await wire.agent.machine.seal(
    "chat.error",
    "q",
    utf8('{"__proto__":{"code":"E2E_FAILED"}}'),
  );
  await wire.deliver("phone", envelope("chat.error", "q", failed));
  assert.deepEqual(wire.phone.failures, []);
});

// The secret is replaced

/** Both have the same new secret and nothing else, and it works. */
async function assertRotated(wire) {
  await wire.exchange();
  assert.deepEqual(shown(wire.phone.stored), shown(wire.agent.stored));
  assert.deepEqual([wire.phone.stored.next, wire.phone.stored.link], [null, false]);
  assert.notEqual(shown(wire.phone.stored).current, hex(LINK_SECRET));
  await wire.connect("phone");
  await wire.run();
  await wire.exchange();
}

/** Whether this phone, coming back, gets to talk to the agent; if not, it is told why. */
async function works(wire, phone) {
  phone.rebuild();
  phone.take();
  await wire.come(phone);
  await wire.wait(20);
  if (phone.machine.ready) {
    await wire.exchange();
    return true;
  }
  assert.deepEqual(phone.refusals, ["SECRET_REFUSED"]);
  return false;
}

test("the secret is on disk before the message that relies on it", async () => {
  const wire = await Wire.meet();
  const effects = kinds(wire.phone.events).filter((kind) => kind === "send" || kind === "store");
  assert.deepEqual(effects, ["send", "store", "send", "store"]);
  const [taken, confirmed] = wire.phone.all("store").map(({ secrets }) => shown(secrets));
  const { current } = shown(wire.agent.stored);
  assert.deepEqual(taken, { current, next: hex(LINK_SECRET), link: false });
  assert.deepEqual(confirmed, { current, next: null, link: false });
  const handle = wire.phone.stored.current;
  assert.equal(handle.extractable, false);
  await assert.rejects(globalThis.crypto.subtle.exportKey("raw", handle));
  await assertRotated(wire);
});

test("a replaced secret is not replaced again, and without replacing the link stays good", async () => {
  const wire = await Wire.meet();
  const { current } = shown(wire.phone.stored);
  for (const role of ["phone", "agent", "phone"]) {
    await wire.restart(role);
    await wire.run();
    await wire.exchange();
  }
  assert.equal(shown(wire.phone.stored).current, current);
  const stays = await Wire.meet({ rotate: false });
  assert.deepEqual(stays.phone.all("store"), []);
  assert.ok(await works(stays, await phoneSide()));
});

test("a used link is refused, and the first phone goes on", async () => {
  const wire = await Wire.meet();
  const [first, second] = [wire.phone, await phoneSide()];
  assert.ok(!(await works(wire, second)));
  assert.deepEqual(second.all("store"), []);
  assert.ok(await works(wire, first));
});

test("a handshake soon after the first uses the new secret", async () => {
  const wire = await Wire.meet();
  await wire.deliver("phone", STEP_0);
  await wire.wait(5);
  assert.equal(wire.phone.all("established").length, 2);
  assert.deepEqual(wire.phone.refusals, []);
  await wire.exchange();
});

test("once confirmed, nobody brings a phone back to the link's secret", async () => {
  const wire = await Wire.meet();
  wire.relay = nothing;
  await wire.connect("phone");
  wire.phone.take();
  await wire.deliver("phone", error("E2E_REFUSED", stepOneId(wire)));
  assert.deepEqual(kinds(wire.phone.events), ["pairing-refused"]);
  wire.relay = honest;
  await wire.wait(60);
  await wire.exchange();
});

test("forged refusals before the confirmation lose no secret", async () => {
  const wire = await Wire.make();
  wire.relay = dropping((sender, m) => sender === "agent" && isRecord(m));
  await wire.meet();
  const both = shown(wire.phone.stored);
  assert.equal(both.next, hex(LINK_SECRET));
  wire.relay = nothing;
  await wire.connect("phone");
  for (const refused of [[], ["SECRET_REFUSED"]]) {
    await wire.deliver("phone", error("E2E_REFUSED", stepOneId(wire)));
    assert.deepEqual(wire.phone.refusals, refused);
  }
  assert.deepEqual(shown(wire.phone.stored), both);
  wire.relay = honest;
  await wire.wait(60);
  await assertRotated(wire);
});

test("an offer that is no secret is not stored", async () => {
  const offers = [7, "", "AAAA", "!".repeat(43), "A".repeat(44), [], {}, true];
  for (const offered of [...offers, base64.encode(new Uint8Array(32)), `${"A".repeat(42)}B`]) {
    const wire = await Wire.make();
    wire.relay = nothing;
    await wire.meet();
    const { hs, noise } = wire.seen.at(-1)[1].payload;
    const agent = new HandshakeState({
      initiator: false,
      prologue: await prologue(crypto, TOKEN, base64.decodeUrl(hs, 16)),
      psk: await crypto.importSecret(LINK_SECRET),
      crypto,
    });
    await agent.readMessage(base64.decode(noise));
    const answer = await agent.writeMessage(utf8(JSON.stringify({ ...AGENT, next_psk: offered })));
    const step2 = { v: 2, step: 2, hs, noise: base64.encode(answer) };
    await wire.deliver("phone", envelope("key_exchange", "2", step2));
    assert.equal(wire.phone.events.at(-1).why, "a step 2 that says nothing sensible");
    assert.deepEqual(wire.phone.all("store"), []);
    wire.relay = honest;
    await wire.wait(11);
    await assertRotated(wire);
  }
});

test("each message of the first handshake may get lost", async () => {
  for (let number = 0; number < 4; number++) {
    for (const again of ["wait", "phone", "agent"]) {
      const wire = await Wire.make();
      let count = 0;
      wire.relay = (_, message) => (count++ === number ? [] : [message]);
      await wire.meet();
      wire.relay = honest;
      if (again === "wait") {
        await wire.wait(30);
      } else {
        await wire.restart(again);
        await wire.run();
      }
      assert.deepEqual(wire.phone.refusals, []);
      await assertRotated(wire);
      assert.ok(!(await works(wire, await phoneSide())));
    }
  }
});

// Each side has four effects in the first handshake, and dies in front of one of them; the other
// side's messages to it are lost with it.
const POINTS = ["phone", "agent"].flatMap((role) => [0, 1, 2, 3].map((effects) => [role, effects]));

async function orDied(wire, role, effects, work) {
  wire.side(role).effectsLeft = effects;
  try {
    await work();
  } catch (reason) {
    if (!(reason instanceof Died)) {
      throw reason;
    }
    await wire.restart(role);
    return true;
  }
  return false;
}

test("either process may die at each point of the first handshake, and again as it recovers", async () => {
  for (const [role, effects] of POINTS) {
    for (const [again, more] of [[null, 0], ...POINTS]) {
      const wire = await Wire.make();
      const died = await orDied(wire, role, effects, () => wire.meet());
      assert.ok(died);
      if (again !== null) {
        wire.queue = [];
        await orDied(wire, again, more, () => wire.wait(30));
        wire.side(again).effectsLeft = null;
      }
      await wire.run();
      await wire.wait(120);
      assert.deepEqual(wire.phone.refusals, [], `${role} ${effects} ${again} ${more}`);
      await assertRotated(wire);
    }
  }
});

test("of two devices with one link exactly one gets in", async () => {
  for (let ofFirst = 0; ofFirst < 5; ofFirst++) {
    for (let ofSecond = 0; ofSecond < 8; ofSecond++) {
      const wire = await Wire.make();
      await wire.connect("agent");
      const [first, second] = [wire.phone, await phoneSide()];
      for (const [phone, messages] of [
        [first, ofFirst],
        [second, ofSecond],
      ]) {
        await wire.come(phone);
        for (let turn = 0; turn < messages && wire.queue.length > 0; turn++) {
          await wire.deliver(...wire.queue.shift());
        }
      }
      const results = [];
      for (const phone of [first, second, first, second]) {
        results.push(await works(wire, phone));
      }
      assert.notEqual(results[0], results[1]);
      assert.deepEqual(results.slice(2), results.slice(0, 2));
    }
  }
});

// Any relay

test("whatever a relay does, what is opened was said, once and in order, and all is well after", async () => {
  let arrived = 0;
  for (let seed = 0; seed < 16; seed++) {
    const random = seeded(seed);
    const wire = await Wire.make({ rotate: seed % 2 === 0 });
    const kept = [];
    wire.relay = (_, message) => {
      kept.push(message);
      const fate = random();
      const other = kept[Math.floor(random() * kept.length)];
      if (fate < 0.6) {
        return [message];
      }
      if (fate < 0.7) {
        return [];
      }
      if (fate < 0.8) {
        return [message, other];
      }
      if (fate < 0.9) {
        return [other, message];
      }
      const { ciphertext = "", noise = "" } = message.payload;
      const spoilt = ciphertext && base64.encode(flipped(base64.decode(ciphertext), 3));
      return [changed(message, spoilt ? { ciphertext: spoilt } : { noise: noise.slice(4) })];
    };
    await wire.meet();
    const said = { phone: [], agent: [] };
    for (let step = 0; step < 60; step++) {
      const role = random() < 0.5 ? "phone" : "agent";
      if (wire.side(role).machine.ready) {
        said[role].push(await wire.say(role));
      }
      if (random() < 0.3) {
        wire.queue.sort(() => random() - 0.5);
      }
      await wire.run();
      await wire.wait(random() < 0.3 ? 7 : 0.5);
      if (random() < 0.05) {
        await wire.restart(random() < 0.5 ? "phone" : "agent");
      }
    }
    for (const role of ["phone", "agent"]) {
      const chat = wire.other(role).opened.filter(({ type }) => type !== "chat.error");
      arrived += chat.length;
      const positions = chat.map(({ id }) => said[role].indexOf(id));
      assert.ok(
        positions.every((position, n) => position > (positions[n - 1] ?? -1)),
        `${seed}`,
      );
      assert.ok(chat.every(({ id, payload }) => payload.text === `secret ${id}`));
    }
    wire.relay = honest;
    wire.queue = [];
    await wire.wait(130);
    await wire.connect("phone");
    await wire.wait(20);
    await wire.exchange();
    assert.equal(shown(wire.phone.stored).current, shown(wire.agent.stored).current);
  }
  assert.ok(arrived > 120, `${arrived}`);
});

// Secrecy

test("nothing that can be printed tells a key, a secret, a token or a message", async () => {
  const wire = await Wire.meet();
  await wire.exchange();
  const message = await wire.next("agent");
  const ciphertext = base64.encode(flipped(base64.decode(message.payload.ciphertext), 3));
  await wire.deliver("phone", changed(message, { ciphertext }));
  const notReady = await wire.phone.machine.seal("a", "1", utf8('"secret words"')).catch((e) => e);
  assert.ok(notReady instanceof NotReady);
  const sends = wire.phone.events.filter(({ kind }) => kind !== "opened");
  const told = [wire.phone.machine, sends, notReady]
    .flatMap((value) => [inspect(value, { depth: 9, showHidden: true }), JSON.stringify(value)])
    .join();
  for (const secret of [hex(LINK_SECRET), shown(wire.agent.stored).current]) {
    assert.ok(!told.includes(secret.slice(0, 12)));
    const inBase64 = base64.encodeUrl(Uint8Array.from(Buffer.from(secret, "hex")));
    assert.ok(!told.includes(inBase64.slice(0, 12)));
  }
  assert.ok(
    !told.includes("oc_pair_") && !told.includes("secret phone") && !told.includes("words"),
  );
});
