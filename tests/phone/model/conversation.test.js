import assert from "node:assert/strict";
import { test } from "node:test";

import { Pairing, Phone, pause, quiet, Storage, told } from "./stage.js";

const message = (id, state = "done", role = "user") => ({ id, role, text: id, at: 1, state });
const page = (name, count) =>
  Array.from({ length: count }, (_, index) => message(`${name}-${index}`));

test("what waits on an older page goes out after a reload", async () => {
  const storage = new Storage();
  storage.put([message("old", "waiting"), ...page("a", 63)], page("b", 64), page("c", 3));
  const pairing = new Pairing(storage, new Phone());
  pairing.chats.about("").open = 1;
  pairing.chats.about("").fetched = true;
  pairing.chats.resume();
  await quiet(50);
  assert.deepEqual(pairing.phone.questions, ["old"]);
});

test("what waits where nobody looked for it goes on once it is read", async () => {
  const storage = new Storage();
  storage.put([message("old", "waiting"), ...page("a", 63)], page("b", 3));
  const pairing = new Pairing(storage, new Phone());
  const { conversation, phone } = pairing;
  await conversation.load();
  assert.deepEqual(phone.questions, []);
  await conversation.loadOlder();
  await quiet();
  assert.deepEqual(phone.questions, ["old"]);
});

test("one question that waits at the end has no long conversation read", async () => {
  const storage = new Storage();
  const pages = Array.from({ length: 50 }, (_, index) => page(`p${index}`, 64));
  pages[49][63].state = "waiting";
  storage.put(...pages);
  const pairing = new Pairing(storage, new Phone());
  pairing.chats.about("").open = 1;
  await pairing.conversation.load();
  await quiet();
  assert.deepEqual(pairing.phone.questions, ["p49-63"]);
  assert.ok(storage.reads <= 3, `${storage.reads} reads`);
});

test("that something is open is not forgotten before it was read", async () => {
  const storage = new Storage();
  storage.delay = 10;
  storage.put([message("old", "waiting")]);
  const pairing = new Pairing(storage, new Phone("agent-offline"));
  pairing.chats.about("").open = 1;
  const loading = pairing.conversation.load();
  pairing.chats.waiting();
  assert.equal(pairing.chats.about("").open, 1);
  await loading;
  assert.equal(pairing.chats.about("").open, 1);
});

test("an answer whose question stands on the page before goes on with it", async () => {
  const storage = new Storage();
  const answer = { ...message("half", "streaming", "agent"), refId: "a-63" };
  const pages = [page("a", 64), [answer]];
  pages[0][63].state = "sent";
  storage.put(...pages);
  const phone = new Phone();
  phone.history = async () => [
    { role: "user", content: "a-63" },
    { role: "assistant", content: "whole" },
  ];
  const pairing = new Pairing(storage, phone);
  pairing.chats.about("").open = 1;
  await pairing.conversation.load();
  await quiet(50);
  assert.deepEqual(told(pairing.conversation).slice(-2), ["user a-63 done", "agent whole done"]);
});

test("a conversation that was closed while it was read sends nothing", async () => {
  const storage = new Storage();
  storage.put([message("once", "waiting")]);
  const pairing = new Pairing(storage, new Phone());
  let go = () => {};
  pairing.starting = new Promise((resolve) => {
    go = resolve;
  });
  pairing.conversation.load();
  await quiet();
  // The tab loses its place, and takes it back.
  pairing.chats.close();
  pairing.outbox.close();
  pairing.outbox = pairing.newOutbox();
  pairing.starting = null;
  await pairing.conversation.load();
  go();
  await quiet(50);
  for (const asking of pairing.phone.asked) asking.sent();
  await quiet(50);
  assert.deepEqual(pairing.phone.questions, ["once"]);
});

test("what is typed while the draft is read stays", async () => {
  const storage = new Storage();
  storage.delay = 30;
  storage.kept.set("draft:p:d", '"before"');
  const pairing = new Pairing(storage, new Phone("agent-offline"));
  const { conversation } = pairing;
  conversation.load();
  await pause(10);
  conversation.draft = "typed";
  await quiet(200);
  assert.equal(conversation.draft, "typed");
  await conversation.flush();
  assert.equal(storage.kept.get("draft:p:d"), '"typed"');
});

test("a draft that was sent is not written behind its deletion", async () => {
  const storage = new Storage();
  const pairing = new Pairing(storage, new Phone("agent-offline"));
  const { conversation } = pairing;
  await conversation.load();
  storage.delay = 30;
  conversation.draft = "typed";
  const writing = conversation.flush();
  storage.delay = 0;
  conversation.send("typed");
  await Promise.all([writing, conversation.flush()]);
  await quiet(50);
  assert.equal(storage.kept.has("draft:p:d"), false);
});

test("a message that is sent while all is deleted is kept", async () => {
  const storage = new Storage();
  const pairing = new Pairing(storage, new Phone("agent-offline"));
  const { conversation } = pairing;
  await conversation.load();
  conversation.send("old");
  await conversation.flush();
  storage.delay = 20;
  const clearing = conversation.clear();
  await pause(5);
  conversation.send("new");
  assert.equal(await clearing, true);
  await conversation.flush();
  assert.deepEqual(told(conversation), ["user new waiting"]);
  assert.deepEqual(storage.texts, ["new"]);
});

test("what is asked of a conversation before it is read waits for that", async () => {
  const storage = new Storage();
  storage.put([message("kept")]);
  const pairing = new Pairing(storage, new Phone("agent-offline"));
  const { conversation } = pairing;
  let go = () => {};
  pairing.starting = new Promise((resolve) => {
    go = resolve;
  });
  const [text, found] = [conversation.export(), conversation.search("kept")];
  const clearing = conversation.clear();
  go();
  assert.match((await text).text, /kept/);
  assert.equal((await found).length, 1);
  assert.equal(await clearing, true);
  assert.deepEqual([storage.texts, pairing.troubles], [[], []]);
});

test("what could not be kept is kept once there is room", async () => {
  const storage = new Storage();
  const pairing = new Pairing(storage, new Phone("agent-offline"));
  const { conversation } = pairing;
  await conversation.load();
  storage.onWrite = (name) => {
    if (name.startsWith("page:")) throw new Error("full");
  };
  conversation.send("unkept");
  await conversation.flush();
  assert.deepEqual([storage.texts, pairing.troubles.length], [[], 1]);
  assert.equal(await conversation.keepAgain(), false);
  storage.onWrite = null;
  assert.equal(await conversation.keepAgain(), true);
  assert.deepEqual(storage.texts, ["unkept"]);
});

test("who deletes all, or exports it, while an older page is read has that page too", async () => {
  const storage = new Storage();
  storage.put([message("old", "waiting"), ...page("a", 63)], page("b", 3));
  const pairing = new Pairing(storage, new Phone());
  const { conversation, phone } = pairing;
  await conversation.load();
  storage.delay = 30;
  conversation.loadOlder();
  await pause(5);
  const file = conversation.export();
  assert.equal(await conversation.clear(), true);
  assert.match((await file).text, /a-0/);
  await quiet(100);
  assert.deepEqual([conversation.messages, phone.questions, storage.texts], [[], [], []]);
});

test("what waits on pages that are read to be deleted is not sent", async () => {
  const storage = new Storage();
  storage.put(page("a", 64), page("b", 64), [message("old", "waiting"), ...page("c", 63)], []);
  const pairing = new Pairing(storage, new Phone());
  const { conversation, phone } = pairing;
  await conversation.load();
  storage.read = async (name) => {
    await pause(name.endsWith("2") ? 0 : 50);
    return JSON.parse(storage.kept.get(name));
  };
  assert.equal(await conversation.clear(), true);
  await quiet();
  assert.deepEqual(phone.questions, []);
});

test("what waits is remembered although its pages could not be read", async () => {
  const storage = new Storage();
  storage.put([message("old", "waiting"), ...page("a", 63)], page("b", 3));
  const pairing = new Pairing(storage, new Phone());
  pairing.chats.about("").open = 1;
  storage.names = async () => {
    throw new Error("blocked");
  };
  await pairing.conversation.load();
  assert.equal(pairing.chats.about("").open, 1);
  // It is read as soon as that can be done.
  delete storage.names;
  assert.equal(await pairing.conversation.keepAgain(), true);
  await quiet();
  assert.deepEqual(pairing.phone.questions, ["old"]);
});

/** An answer that was coming when the page was left, and its question on the page before. */
function halved(text) {
  const storage = new Storage();
  const answer = { ...message("half", "streaming", "agent"), refId: "a-63", text };
  storage.put([...page("a", 63), message("a-63", "sent")], [answer]);
  return { storage, pairing: new Pairing(storage, new Phone()) };
}

test("an answer whose question cannot be read has failed", async () => {
  const { storage, pairing } = halved("half");
  const read = storage.read.bind(storage);
  storage.read = async (name) => {
    if (name.endsWith(":000000")) throw new Error("damaged");
    return await read(name);
  };
  pairing.chats.about("").open = 1;
  await pairing.conversation.load();
  await quiet();
  assert.deepEqual(told(pairing.conversation), ["agent half failed"]);
});

test("an answer is stopped before its question is read", async () => {
  const { storage, pairing } = halved("half");
  const { conversation, phone } = pairing;
  await conversation.load();
  conversation.stop(conversation.messages[0]);
  assert.deepEqual(told(conversation), ["agent half cancelled"]);
  await conversation.flush();
  assert.equal(JSON.parse(storage.kept.get("page:p:d:000001"))[0].state, "cancelled");
  await conversation.loadOlder();
  await quiet();
  assert.deepEqual(told(conversation).slice(-2), ["user a-63 done", "agent half cancelled"]);
  assert.deepEqual([phone.questions, phone.histories], [[], 0]);
});

test("an answer is deleted before its question is read, which is not asked again", async () => {
  for (const [text, stopped] of [["half"], ["half", true], [""]]) {
    const { storage, pairing } = halved(text);
    const { conversation, phone } = pairing;
    await conversation.load();
    if (stopped) conversation.stop(conversation.messages[0]);
    await conversation.remove(conversation.messages[0]);
    await conversation.loadOlder();
    await quiet();
    assert.deepEqual(told(conversation).slice(-1), ["user a-63 done"]);
    assert.deepEqual([phone.questions, phone.histories, conversation.unread], [[], 0, 0]);
    assert.equal(storage.texts.includes("half"), false);
  }
});

test("pictures go only when their messages are gone, and then all of them", async () => {
  const storage = new Storage();
  const picture = { id: "x", name: "x.png", type: "image/png", size: 1 };
  storage.put([{ ...message("a"), pictures: [picture] }]);
  const pairing = new Pairing(storage, new Phone("agent-offline"));
  const removed = [];
  pairing.pictures.remove = async (ids) => removed.push(...ids);
  const { conversation } = pairing;
  await conversation.load();
  storage.remove = async () => {
    throw new Error("blocked");
  };
  assert.equal(await conversation.clear(), false);
  assert.deepEqual(removed, []);
  delete storage.remove;
  assert.equal(await conversation.clear(), true);
  assert.deepEqual([removed, storage.texts], [["x"], []]);
});
