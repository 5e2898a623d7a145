/** Sessions of the phone: how they begin, and what happens where they do not. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { FAILURES, NotReady } from "../../../static/phone/core/failures.js";
import { utf8 } from "./vectors.js";
import {
  AGENT,
  changed,
  dropping,
  envelope,
  honest,
  isRecord,
  keeping,
  nothing,
  PUBKEY,
  STEP_0,
  stepOf,
  Wire,
} from "./wire.js";

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
