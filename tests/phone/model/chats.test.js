import assert from "node:assert/strict";
import { test } from "node:test";
import { recordFrom } from "../../../static/phone/app/model/record.js";
import { InvalidAnswer } from "../../../static/phone/core/errors.js";
import { Pairing, Phone, pause, quiet, Storage } from "./stage.js";

const agent = (id) => ({ id, name: id.toUpperCase() });

/** Looks at the chosen conversation whenever something changes, as a view does. */
function watched(pairing) {
  const look = () => setTimeout(() => pairing.chats.chosen);
  pairing.addEventListener("change", look);
  look();
}

test("an agent whose history makes no sense is asked once", async () => {
  const phone = new Phone();
  phone.history = async () => {
    phone.histories += 1;
    throw new InvalidAnswer("nonsense");
  };
  const pairing = new Pairing(new Storage(), phone);
  watched(pairing);
  await quiet(100);
  assert.equal(phone.histories, 1);
  assert.equal(pairing.chats.about("").fetched, true);
});

test("a history that the relay refuses is asked for again in another session", async () => {
  const phone = new Phone();
  phone.history = async () => {
    phone.histories += 1;
    throw new Error("RATE_LIMITED");
  };
  const pairing = new Pairing(new Storage(), phone);
  watched(pairing);
  await quiet(100);
  assert.equal(phone.histories, 1);
  pairing.chats.renew();
  await quiet(100);
  assert.equal(phone.histories, 2);
});

test("version 1 is not asked for what was said, which it would tell in the clear", async () => {
  const phone = new Phone("ready", 1);
  const pairing = new Pairing(new Storage(), phone);
  watched(pairing);
  pairing.chats.renew();
  await quiet(100);
  assert.equal(phone.histories, 0);
});

test("what is typed before the agents are known moves to the first of them", async () => {
  const phone = new Phone();
  const pairing = new Pairing(new Storage(), phone);
  const before = pairing.chats.chosen;
  await quiet();
  before.draft = "my first question";
  before.chosen = [{ name: "a.png" }];
  phone.agents = async () => [agent("a"), agent("b")];
  pairing.chats.renew();
  await quiet(50);
  const { chosen } = pairing.chats;
  assert.deepEqual([chosen.agentId, chosen.draft], ["a", "my first question"]);
  assert.deepEqual([chosen.chosen, before.draft], [[{ name: "a.png" }], ""]);
});

test("an agent that something was said to stays where it is, although it is listed no more", async () => {
  const phone = new Phone();
  const pairing = new Pairing(new Storage(), phone);
  pairing.record.agentId = "gone";
  pairing.chats.about("gone").last = { text: "Hello", at: 1, role: "user" };
  phone.agents = async () => [agent("a"), agent("b")];
  pairing.chats.renew();
  await quiet(50);
  assert.equal(pairing.record.agentId, "gone");
  assert.deepEqual(
    pairing.chats.agents.map(({ id }) => id),
    ["gone", "a", "b"],
  );
});

test("an agent's id may be any word", async () => {
  const pairing = new Pairing(new Storage(), new Phone("agent-offline"));
  pairing.record = recordFrom(JSON.parse(JSON.stringify(pairing.record)));
  for (const id of ["__proto__", "constructor", "toString"]) {
    pairing.chats.about(id).last = { text: "x", at: 1, role: "user" };
  }
  assert.equal({}.last, undefined);
  assert.equal(Object.prototype.toString.last, undefined);
  const again = recordFrom(JSON.parse(JSON.stringify(pairing.record)));
  assert.deepEqual(Object.keys(again.chats).sort(), ["__proto__", "constructor", "toString"]);
});

/** Agents x and y are listed, and drafts are kept for each of them. */
function severalAgents(drafts) {
  const storage = new Storage();
  storage.digits = async (_id, agentId) => `d${agentId}`;
  for (const [agentId, text] of Object.entries(drafts)) {
    storage.kept.set(`draft:p:d${agentId}`, JSON.stringify(text));
  }
  const phone = new Phone();
  phone.agents = async () => [agent("x"), agent("y")];
  return { storage, pairing: new Pairing(storage, phone) };
}

test("a draft that is kept moves along to the first of the agents", async () => {
  const { storage, pairing } = severalAgents({ "": "long draft" });
  pairing.chats.renew();
  await quiet(150);
  const { chosen } = pairing.chats;
  assert.deepEqual([chosen.agentId, chosen.draft], ["x", "long draft"]);
  await Promise.all(pairing.chats.open.map((one) => one.flush()));
  assert.deepEqual(
    [storage.kept.get("draft:p:dx"), storage.kept.get("draft:p:d")],
    ['"long draft"', undefined],
  );
});

test("a draft that moves leaves that of the first agent as it is", async () => {
  const { pairing } = severalAgents({ x: "for x" });
  await pairing.chats.chosen.load();
  pairing.chats.chosen.draft = "typed";
  pairing.chats.renew();
  await quiet(150);
  assert.equal(pairing.chats.chosen.draft, "for x\ntyped");
});

test("who has asked something while the agents are listed stays where that is", async () => {
  const { storage, pairing } = severalAgents({});
  storage.delay = 30;
  pairing.chats.renew();
  await pause(5);
  pairing.chats.with("").send("first");
  await quiet(200);
  assert.equal(pairing.record.agentId, "");
});

const MEMORY = [
  { role: "user", content: "Q", timestamp: 1 },
  { role: "assistant", content: "A", timestamp: 2 },
];

test("what was deleted does not come back from the agent's memory", async () => {
  const storage = new Storage();
  const phone = new Phone();
  phone.history = async () => {
    throw new Error("RATE_LIMITED");
  };
  const pairing = new Pairing(storage, phone);
  const { chosen } = pairing.chats;
  await quiet();
  assert.equal(await chosen.clear(), true);
  phone.history = async () => MEMORY;
  pairing.chats.renew();
  await quiet(150);
  assert.deepEqual([chosen.messages, storage.texts], [[], []]);
});

test("what is deleted while the agent's memory is asked does not come back", async () => {
  const storage = new Storage();
  const phone = new Phone();
  let go = () => {};
  phone.history = () =>
    new Promise((resolve) => {
      go = () => resolve(MEMORY);
    });
  const pairing = new Pairing(storage, phone);
  const { chosen } = pairing.chats;
  await quiet();
  assert.equal(await chosen.clear(), true);
  go();
  await quiet();
  assert.deepEqual([chosen.messages, storage.texts], [[], []]);
});
