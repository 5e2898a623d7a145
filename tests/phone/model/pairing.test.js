import assert from "node:assert/strict";
import { test } from "node:test";
import { Pairing } from "../../../static/phone/app/model/pairing.js";
import { newRecord } from "../../../static/phone/app/model/record.js";
import { StoreError } from "../../../static/phone/core/errors.js";
import { pause, Storage } from "./stage.js";

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
  await pause();
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
  await pause();
  assert.deepEqual(storage.texts, []);
  full = false;
  pairing.chats.noted(conversation);
  await pause(50);
  assert.deepEqual(storage.texts, ["look"]);
  assert.equal([...storage.kept.keys()].filter((name) => name.startsWith("picture:")).length, 1);
});

test("a tab gives a pairing away only when all that it knows is written", async (t) => {
  const storage = new Storage();
  const { given, request } = locks();
  const pairing = open(t, storage, { locks: { request } });
  pairing.connect();
  await pause();
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
  await pause();
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
  await pause(100);
  assert.equal(JSON.parse(storage.kept.get("pairing:p")).name, "two");
});

test("who writes while the pairing is given away takes it back, and loses nothing", async (t) => {
  const storage = new Storage();
  const { given, request } = locks();
  const pairing = open(t, storage, { locks: { request } });
  pairing.connect();
  await pause();
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
  await pause(100);
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
  await pause();
  await pairing.conversation.load();
  pairing.conversation.draft = "half";
  pairing.conversation.chosen = [{ name: "a.png" }];
  await anotherTabWants(t);
  assert.equal(pairing.elsewhere, true);
  pairing.here();
  await pause(50);
  assert.deepEqual(
    [pairing.conversation.draft, pairing.conversation.chosen],
    ["half", [{ name: "a.png" }]],
  );
});
