import assert from "node:assert/strict";
import { test } from "node:test";

import { Pairing, Phone, pause, Storage, told } from "./stage.js";

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
  await pause(50);
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
  await pause();
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
  await pause();
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
  await pause(50);
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
  await pause();
  // The tab loses its place, and takes it back.
  pairing.chats.close();
  pairing.outbox.close();
  pairing.outbox = pairing.newOutbox();
  pairing.starting = null;
  await pairing.conversation.load();
  go();
  await pause(50);
  for (const asking of pairing.phone.asked) asking.sent();
  await pause(50);
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
  await pause(200);
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
  await pause(50);
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
