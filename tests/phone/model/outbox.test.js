import assert from "node:assert/strict";
import { test } from "node:test";

import { ConnectionLost } from "../../../static/phone/core/errors.js";
import { Pairing, Phone, pause, Storage, told } from "./stage.js";

/** A question that went out, and something of its answer. */
async function underWay(said = "part") {
  const pairing = new Pairing(new Storage(), new Phone());
  const { conversation, phone } = pairing;
  await conversation.load();
  conversation.send("Q");
  await pause();
  const [asking] = phone.asked;
  asking.sent();
  if (said) asking.say(said);
  await pause();
  return { pairing, conversation, phone, asking };
}

/** The same pairing after the page was left and opened again. */
async function reopened({ storage, record }) {
  const pairing = new Pairing(storage, new Phone(), record);
  await pairing.conversation.load();
  await pause();
  return pairing;
}

test("who deletes an answer that comes is not given it again", async () => {
  const { pairing, conversation, asking } = await underWay();
  conversation.remove(conversation.messages[1]);
  await pause();
  assert.equal(asking.cancelled, true);
  asking.end(true);
  await pause();
  assert.deepEqual(told(conversation), ["user Q cancelled"]);
  const after = await reopened(pairing);
  assert.deepEqual(told(after.conversation), ["user Q cancelled"]);
  assert.deepEqual(after.phone.questions, []);
});

test("who deletes a question keeps what was answered, and nothing waits for the rest", async () => {
  const { conversation, asking } = await underWay();
  conversation.remove(conversation.messages[0]);
  await pause();
  asking.say(" and more");
  asking.end(true);
  await pause();
  assert.deepEqual(told(conversation), ["agent part cancelled"]);
});

test("an answer of which nothing came goes with its question", async () => {
  const { conversation, asking } = await underWay("");
  conversation.remove(conversation.messages[0]);
  asking.end(true);
  await pause();
  assert.deepEqual(told(conversation), []);
});

test("what is sent at the moment that it is deleted begins no answer", async () => {
  const pairing = new Pairing(new Storage(), new Phone());
  const { conversation, phone } = pairing;
  await conversation.load();
  conversation.send("Q");
  await pause();
  conversation.remove(conversation.messages[0]);
  phone.asked[0].sent();
  phone.asked[0].end(true);
  await pause();
  assert.deepEqual(told(conversation), []);
  // The next one goes out.
  conversation.send("R");
  await pause();
  assert.deepEqual(phone.questions, ["Q", "R"]);
});

test("what was stopped stays stopped although the connection breaks", async () => {
  for (const [said, states] of [
    ["", ["user Q cancelled"]],
    ["part", ["user Q done", "agent part cancelled"]],
  ]) {
    const { pairing, conversation, phone, asking } = await underWay(said);
    conversation.stop(conversation.messages[1]);
    phone.state = { kind: "waiting" };
    asking.fail(new ConnectionLost("The connection broke.", { ids: [asking.id] }));
    await pause();
    assert.deepEqual(told(conversation), states);
    phone.state = { kind: "ready" };
    pairing.outbox.wake();
    await pause();
    assert.deepEqual(phone.questions, ["Q"]);
    assert.equal(phone.histories, 0);
  }
});

test("a question that comes back goes before those that were written after it", async () => {
  const pairing = new Pairing(new Storage(), new Phone());
  const { conversation, phone } = pairing;
  await conversation.load();
  conversation.send("first");
  await pause();
  phone.state = { kind: "waiting" };
  conversation.send("second");
  // A clock that was set back in between.
  conversation.messages[1].at = 0;
  phone.asked[0].fail(new ConnectionLost("The connection broke."));
  await pause();
  phone.state = { kind: "ready" };
  pairing.outbox.wake();
  await pause();
  phone.asked.at(-1).sent();
  await pause();
  assert.deepEqual(phone.questions, ["first", "first", "second"]);
});
