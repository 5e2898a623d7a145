import assert from "node:assert/strict";
import { test } from "node:test";

import { ConnectionLost, PeerOffline } from "../../../static/phone/core/errors.js";
import { Pairing, Phone, quiet, Storage, told } from "./stage.js";

/** A question that went out, and something of its answer. */
async function underWay(said = "part") {
  const pairing = new Pairing(new Storage(), new Phone());
  const { conversation, phone } = pairing;
  await conversation.load();
  conversation.send("Q");
  await quiet();
  const [asking] = phone.asked;
  asking.sent();
  if (said) asking.say(said);
  await quiet();
  return { pairing, conversation, phone, asking };
}

/** The same pairing after the page was left and opened again. */
async function reopened({ storage, record }) {
  const pairing = new Pairing(storage, new Phone(), record);
  await pairing.conversation.load();
  await quiet();
  return pairing;
}

test("who deletes an answer that comes is not given it again", async () => {
  const { pairing, conversation, asking } = await underWay();
  conversation.remove(conversation.messages[1]);
  await quiet();
  assert.equal(asking.cancelled, true);
  asking.end(true);
  await quiet();
  assert.deepEqual(told(conversation), ["user Q cancelled"]);
  const after = await reopened(pairing);
  assert.deepEqual(told(after.conversation), ["user Q cancelled"]);
  assert.deepEqual(after.phone.questions, []);
});

test("who deletes a question keeps what was answered, and nothing waits for the rest", async () => {
  const { conversation, asking } = await underWay();
  conversation.remove(conversation.messages[0]);
  await quiet();
  asking.say(" and more");
  asking.end(true);
  await quiet();
  assert.deepEqual(told(conversation), ["agent part cancelled"]);
});

test("an answer of which nothing came goes with its question", async () => {
  const { conversation, asking } = await underWay("");
  conversation.remove(conversation.messages[0]);
  asking.end(true);
  await quiet();
  assert.deepEqual(told(conversation), []);
});

test("what is sent at the moment that it is deleted begins no answer", async () => {
  const pairing = new Pairing(new Storage(), new Phone());
  const { conversation, phone } = pairing;
  await conversation.load();
  conversation.send("Q");
  await quiet();
  conversation.remove(conversation.messages[0]);
  phone.asked[0].sent();
  phone.asked[0].end(true);
  await quiet();
  assert.deepEqual(told(conversation), []);
  // The next one goes out.
  conversation.send("R");
  await quiet();
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
    await quiet();
    assert.deepEqual(told(conversation), states);
    phone.state = { kind: "ready" };
    pairing.outbox.wake();
    await quiet();
    assert.deepEqual(phone.questions, ["Q"]);
    assert.equal(phone.histories, 0);
  }
});

test("a question that comes back goes before those that were written after it", async () => {
  const pairing = new Pairing(new Storage(), new Phone());
  const { conversation, phone } = pairing;
  await conversation.load();
  conversation.send("first");
  await quiet();
  phone.state = { kind: "waiting" };
  conversation.send("second");
  // A clock that was set back in between.
  conversation.messages[1].at = 0;
  phone.asked[0].fail(new ConnectionLost("The connection broke."));
  await quiet();
  phone.state = { kind: "ready" };
  pairing.outbox.wake();
  await quiet();
  phone.asked.at(-1).sent();
  await quiet();
  assert.deepEqual(phone.questions, ["first", "first", "second"]);
});

test("what was stopped stays stopped although the page is left before the agent knows", async () => {
  for (const [said, states] of [
    ["", ["user Q cancelled"]],
    ["part", ["user Q done", "agent part cancelled"]],
  ]) {
    const { pairing, conversation } = await underWay(said);
    conversation.stop(conversation.messages[1]);
    await conversation.flush();
    const after = await reopened(pairing);
    assert.deepEqual(told(after.conversation), states);
    assert.deepEqual([after.phone.questions, after.phone.histories], [[], 0]);
  }
});

test("nothing more is shown of an answer that was stopped until it ends", async () => {
  const { conversation, asking } = await underWay();
  conversation.stop(conversation.messages[1]);
  asking.say(" and more");
  await quiet();
  assert.deepEqual(told(conversation), ["user Q done", "agent part cancelled"]);
  asking.end();
  await quiet();
  assert.deepEqual(told(conversation), ["user Q done", "agent part and more cancelled"]);
});

test("what is sent at the moment that it is stopped stays stopped", async () => {
  const pairing = new Pairing(new Storage(), new Phone());
  const { conversation, phone } = pairing;
  await conversation.load();
  conversation.send("Q");
  await quiet();
  conversation.stop(conversation.messages[0]);
  phone.asked[0].sent();
  await conversation.flush();
  const after = await reopened(pairing);
  assert.deepEqual(told(after.conversation), ["user Q cancelled"]);
  assert.deepEqual(after.phone.questions, []);
});

const kept = (id, state, role, more) => ({ id, role, text: id, at: 1, state, ...more });

test("a question that has its answer is not asked again", async () => {
  const storage = new Storage();
  storage.put([kept("Q", "sent", "user"), kept("A", "done", "agent", { refId: "Q" })]);
  const pairing = new Pairing(storage, new Phone());
  await pairing.conversation.load();
  await quiet();
  assert.deepEqual(told(pairing.conversation), ["user Q done", "agent A done"]);
  assert.deepEqual(pairing.phone.questions, []);
});

test("an answer that was cut off fails where the pairing is over", async () => {
  const storage = new Storage();
  storage.put([kept("Q", "sent", "user"), kept("half", "streaming", "agent", { refId: "Q" })]);
  const pairing = new Pairing(storage, new Phone("revoked"));
  pairing.outbox.end({ name: "Stopped" });
  await pairing.conversation.load();
  await quiet();
  assert.deepEqual(told(pairing.conversation), ["user Q done", "agent half failed"]);
  assert.equal(pairing.conversation.unread, 1);
});

test("a picture whose upload was stopped is on its way no more", async () => {
  for (const end of ["stop", "remove"]) {
    const phone = new Phone();
    let options;
    const ask = phone.ask.bind(phone);
    phone.ask = (text, given) => {
      options = given;
      return ask(text, given);
    };
    const pairing = new Pairing(new Storage(), phone);
    const data = new Blob([new Uint8Array(10)], { type: "image/png" });
    pairing.pictures.load = async () => data;
    const { conversation } = pairing;
    await conversation.load();
    conversation.send("look", [{ name: "a.png", type: "image/png", data }]);
    await quiet();
    const [question] = conversation.messages;
    options.onProgress(options.attachments[0], 4, 10);
    assert.equal(question.pictures[0].progress, 0.4);
    conversation[end](question);
    options.onProgress(options.attachments[0], 5, 10);
    phone.asked[0].end(true);
    await quiet();
    assert.equal(question.pictures[0].progress, undefined);
  }
});

test("an answer that is deleted while its picture is measured is not unread", async () => {
  const { pairing, conversation, asking } = await underWay();
  let go = () => {};
  conversation.album.received = async () => {
    await new Promise((resolve) => {
      go = resolve;
    });
    return conversation.album.picture({ name: "x", type: "image/png", data: new Blob([]) });
  };
  asking.attachments = [{ name: "x.png", type: "image/png", data: new Uint8Array(3) }];
  asking.end();
  await quiet();
  await conversation.clear();
  go();
  await quiet();
  assert.deepEqual([conversation.unread, pairing.storage.texts], [0, []]);
});

test("what was stopped can be asked again before the agent knows", async () => {
  for (const said of ["", "part"]) {
    const { conversation, phone, asking } = await underWay(said);
    const [question] = conversation.messages;
    conversation.stop(question);
    conversation.retry(question);
    await quiet();
    assert.deepEqual(phone.questions, ["Q", "Q"]);
    phone.asked[1].sent();
    asking.end(true);
    phone.asked[1].say("whole");
    phone.asked[1].end();
    await quiet();
    assert.deepEqual(told(conversation), ["user Q done", "agent whole done"]);
  }
});

test("in version 1 what waits behind a question that is deleted goes out", async () => {
  const phone = new Phone("ready", 1);
  const { conversation } = new Pairing(new Storage(), phone);
  const first = conversation.send("first");
  await quiet();
  phone.asked[0].sent();
  conversation.send("second");
  conversation.send("third");
  await quiet();
  assert.deepEqual(phone.questions, ["first"]);
  await conversation.remove(first);
  await quiet();
  assert.deepEqual(phone.questions, ["first", "second"]);
});

test("nothing goes out of what is deleted all together", async () => {
  const phone = new Phone("ready", 1);
  const { conversation } = new Pairing(new Storage(), phone);
  conversation.send("first");
  await quiet();
  phone.asked[0].sent();
  conversation.send("second");
  await conversation.clear();
  await quiet();
  assert.deepEqual(phone.questions, ["first"]);
});

test("in version 1 a question that did not get there goes out before those behind it", async () => {
  const phone = new Phone("ready", 1);
  const { conversation } = new Pairing(new Storage(), phone);
  conversation.send("first");
  await quiet();
  phone.asked[0].sent();
  conversation.send("second");
  await quiet();
  phone.state.kind = "connecting";
  phone.asked[0].fail(new PeerOffline("away", {}));
  await quiet();
  phone.state.kind = "ready";
  await conversation.load();
  conversation.send("third");
  await quiet();
  assert.deepEqual(phone.questions.slice(0, 2), ["first", "first"]);
});
