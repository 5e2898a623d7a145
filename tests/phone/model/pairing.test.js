import assert from "node:assert/strict";
import { test } from "node:test";
import { Pairing } from "../../../static/phone/app/model/pairing.js";
import { newRecord } from "../../../static/phone/app/model/record.js";
import { StoreError } from "../../../static/phone/core/errors.js";
import { pause, quiet, Storage } from "./stage.js";

/** A relay that never answers. */
class Silent extends EventTarget {
  readyState = 0;
  send() {}
  close() {}
}

function open(t, storage, options = {}) {
  const token = `oc_pair_${"0".repeat(32)}`;
  const record = newRecord({ relay: "ws://127.0.0.1:1/ws", token, secret: null }, "");
  record.chats[""] = { unread: 0, open: 0, fetched: true, last: null };
  storage.kept.set("pairing:p", JSON.stringify(record));
  const means = { WebSocket: Silent, unnamed: () => "", onKept() {}, onForgotten() {}, ...options };
  const pairing = new Pairing("p", record, { storage, ...means });
  t.after(() => pairing.close());
  return pairing;
}

/** Locks as a browser with another tab has them. */
function locks() {
  const given = { free: false };
  const request = (_name, _options, hold) => {
    given.held = hold().then(() => {
      given.free = true;
    });
    return given.held;
  };
  return { given, request };
}

async function anotherTabWants(t) {
  const tab = new BroadcastChannel("coralmux:p");
  t.after(() => tab.close());
  tab.postMessage(Date.now() + 1_000_000);
  await pause(20);
}

test("that there is no room is told until all is kept", async (t) => {
  const storage = new Storage();
  const pairing = open(t, storage);
  pairing.connect();
  const { conversation } = pairing;
  await conversation.load();
  let full = true;
  storage.onWrite = (name) => {
    if (full && !name.startsWith("pairing:")) {
      throw Object.assign(new StoreError("full"), { code: "full" });
    }
  };
  const data = new Blob([new Uint8Array(10)], { type: "image/png" });
  conversation.send("look", [{ name: "a.png", type: "image/png", data }]);
  await conversation.flush();
  // Without a relay the banner has other things to say; this is about what is kept.
  pairing.chats.noted(conversation);
  await quiet();
  assert.deepEqual(storage.texts, []);
  full = false;
  pairing.chats.noted(conversation);
  await quiet(50);
  assert.deepEqual(storage.texts, ["look"]);
  assert.equal([...storage.kept.keys()].filter((name) => name.startsWith("picture:")).length, 1);
});

test("a tab gives a pairing away only when all that it knows is written", async (t) => {
  const storage = new Storage();
  const { given, request } = locks();
  const pairing = open(t, storage, { locks: { request } });
  pairing.connect();
  await quiet();
  storage.delay = 100;
  pairing.rename("renamed");
  await pause(30);
  await anotherTabWants(t);
  assert.equal(given.free, false);
  await given.held;
  assert.equal(JSON.parse(storage.kept.get("pairing:p")).name, "renamed");
});

test("the last of several names is the one that is kept", async (t) => {
  const storage = new Storage();
  const pairing = open(t, storage);
  pairing.connect();
  await quiet();
  const delays = [60, 0];
  const write = storage.write.bind(storage);
  storage.write = async (name, value) => {
    const copy = structuredClone(value);
    await pause(delays.shift() ?? 0);
    await write(name, copy);
  };
  pairing.rename("one");
  await pause(10);
  await pairing.rename("two");
  await quiet(100);
  assert.equal(JSON.parse(storage.kept.get("pairing:p")).name, "two");
});

test("who writes while the pairing is given away takes it back, and loses nothing", async (t) => {
  const storage = new Storage();
  const { given, request } = locks();
  const pairing = open(t, storage, { locks: { request } });
  pairing.connect();
  await quiet();
  await pairing.conversation.load();
  storage.delay = 50;
  const [giving, first] = [anotherTabWants(t), given.held];
  await pause(10);
  assert.equal(pairing.elsewhere, true);
  pairing.conversation.send("mine");
  assert.equal(pairing.elsewhere, false);
  await giving;
  await first;
  storage.delay = 0;
  await quiet(100);
  await pairing.conversation.load();
  await pairing.flush();
  assert.deepEqual(storage.texts, ["mine"]);
  assert.deepEqual(
    pairing.conversation.messages.map(({ text }) => text),
    ["mine"],
  );
});

test("a draft and chosen pictures come along when a tab takes its place back", async (t) => {
  const storage = new Storage();
  const pairing = open(t, storage, { locks: { request: locks().request } });
  pairing.connect();
  await quiet();
  await pairing.conversation.load();
  pairing.conversation.draft = "half";
  pairing.conversation.chosen = [{ name: "a.png" }];
  await anotherTabWants(t);
  assert.equal(pairing.elsewhere, true);
  pairing.here();
  await pairing.conversation.load();
  assert.deepEqual(
    [pairing.conversation.draft, pairing.conversation.chosen],
    ["half", [{ name: "a.png" }]],
  );
});

/** A pairing that this tab serves, with 64 messages on each page but the last, and its storage. */
async function served(t, ...pages) {
  const storage = new Storage();
  storage.put(...pages);
  const pairing = open(t, storage, { locks: { request: locks().request } });
  pairing.connect();
  await quiet();
  await pairing.conversation.load();
  return { storage, pairing };
}

const message = (id, state = "done") => ({ id, role: "user", text: id, at: 1, state });
const page = (name, count) =>
  Array.from({ length: count }, (_, index) => message(`${name}-${index}`));
const failure = (code) => Object.assign(new StoreError(code), { code });

test("a draft that another tab went on with is not overwritten", async (t) => {
  const { storage, pairing } = await served(t);
  pairing.conversation.draft = "old";
  await pairing.flush();
  await anotherTabWants(t);
  storage.kept.set("draft:p:d", '"old, and more"');
  pairing.here();
  await pairing.conversation.load();
  assert.equal(pairing.conversation.draft, "old, and more");
  await pairing.flush();
  assert.equal(storage.kept.get("draft:p:d"), '"old, and more"');
});

test("a draft is there while a tab takes its place back, and what is typed then is added", async (t) => {
  const storage = new Storage();
  let wait = 0;
  const request = async (_name, _options, hold) => {
    await pause(wait);
    await hold();
  };
  const pairing = open(t, storage, { locks: { request } });
  pairing.connect();
  await quiet();
  await pairing.conversation.load();
  pairing.conversation.draft = "a long letter";
  await pairing.flush();
  await anotherTabWants(t);
  assert.equal(pairing.elsewhere, true);
  wait = 200;
  pairing.here();
  const { conversation } = pairing;
  assert.equal(conversation.draft, "a long letter");
  conversation.draft += "!";
  await pause(wait);
  await quiet();
  await pairing.flush();
  assert.equal(storage.kept.get("draft:p:d"), '"a long letter!"');
});

test("what is typed while another tab has the place comes along", async (t) => {
  const { pairing } = await served(t);
  await anotherTabWants(t);
  pairing.conversation.draft = "typed";
  pairing.here();
  await pairing.conversation.load();
  assert.equal(pairing.conversation.draft, "typed");
});

test("a tab that lost its place reads on", async (t) => {
  const { pairing } = await served(t, page("a", 64), page("b", 64), page("c", 3));
  const { conversation } = pairing;
  await anotherTabWants(t);
  assert.equal(pairing.conversation, conversation);
  await conversation.loadOlder();
  assert.equal(conversation.messages.length, 67);
  assert.match((await pairing.export()).text, /a-0/);
  assert.equal((await conversation.search("a-0")).length, 1);
  assert.equal(pairing.elsewhere, true);
});

test("a tab that loses its place while it reads shows what it has read", async (t) => {
  const storage = new Storage();
  storage.put([...page("a", 3), message("mine", "waiting")]);
  const pairing = open(t, storage, { locks: { request: locks().request } });
  pairing.connect();
  await quiet();
  storage.delay = 40;
  const loading = pairing.conversation.load();
  await anotherTabWants(t);
  await loading;
  const { conversation } = pairing;
  assert.deepEqual([conversation.loaded, conversation.messages.length], [true, 4]);
  assert.equal(pairing.outbox.open.size, 0);
});

test("what an older page brings after the place was taken back goes out once", async (t) => {
  const { storage, pairing } = await served(
    t,
    [message("old", "waiting"), ...page("a", 63)],
    page("b", 3),
  );
  const { conversation } = pairing;
  const write = storage.write.bind(storage);
  storage.write = async (name, value) => {
    await quiet(100);
    await write(name, value);
  };
  storage.delay = 40;
  pairing.chats.noted(conversation);
  await pause(5);
  conversation.loadOlder();
  await anotherTabWants(t);
  pairing.here();
  await quiet(400);
  await pairing.conversation.load();
  await pairing.conversation.loadOlder();
  assert.deepEqual([...pairing.outbox.open], [[pairing.conversation, 1]]);
});

test("what could not be kept is tried again whatever else went wrong", async (t) => {
  const { storage, pairing } = await served(t, page("a", 64), page("b", 3));
  const { conversation } = pairing;
  let broken = true;
  storage.onWrite = (name) => {
    if (broken && !name.startsWith("pairing:")) throw failure("blocked");
  };
  const read = storage.read.bind(storage);
  storage.read = async (name) => {
    if (name.startsWith("page:")) throw failure("damaged");
    return await read(name);
  };
  conversation.send("unkept");
  conversation.draft = "unkept, too";
  await pairing.flush();
  await conversation.loadOlder();
  broken = false;
  pairing.chats.noted(conversation);
  await quiet(50);
  assert.equal(storage.texts.includes("unkept"), true);
  assert.equal(storage.kept.get("draft:p:d"), '"unkept, too"');
});

test("a draft that there is no room for is told until it is kept", async (t) => {
  const { storage, pairing } = await served(t);
  const { conversation } = pairing;
  let full = true;
  storage.onWrite = (name) => {
    if (full && name.startsWith("draft:")) throw failure("full");
  };
  conversation.draft = "long";
  await pairing.flush();
  assert.equal(await conversation.keepAgain(), false);
  full = false;
  assert.equal(await conversation.keepAgain(), true);
  assert.equal(storage.kept.get("draft:p:d"), '"long"');
});

test("nothing is called deleted by a tab that has lost its place", async (t) => {
  const { storage, pairing } = await served(t, page("a", 64), page("b", 3));
  storage.delay = 60;
  const gone = pairing.clear();
  await anotherTabWants(t);
  assert.equal(await gone, false);
  await quiet(100);
  assert.deepEqual([storage.texts.length, pairing.elsewhere], [67, true]);
});

test("nothing is called deleted that was left when the place was lost", async (t) => {
  const { storage, pairing } = await served(t, page("a", 3));
  storage.delay = 60;
  const gone = pairing.conversation.clear();
  await pause(20);
  pairing.close();
  assert.equal(await gone, false);
  assert.equal(storage.texts.length, 3);
});

test("a picture that is kept again while its message is deleted goes, too", async (t) => {
  const { storage, pairing } = await served(t);
  const { conversation } = pairing;
  let full = true;
  storage.onWrite = (name) => {
    if (full && name.startsWith("picture:")) throw failure("full");
  };
  const data = new Blob([new Uint8Array(10)], { type: "image/png" });
  const question = conversation.send("look", [{ name: "a.png", type: "image/png", data }]);
  await pairing.flush();
  full = false;
  const write = storage.writeBytes.bind(storage);
  storage.writeBytes = async (name, bytes) => {
    await pause(60);
    await write(name, bytes);
  };
  pairing.chats.noted(conversation);
  await quiet();
  await conversation.remove(question);
  await quiet(200);
  const pictures = () => [...storage.kept.keys()].filter((name) => name.startsWith("picture:"));
  assert.deepEqual(pictures(), []);
});
