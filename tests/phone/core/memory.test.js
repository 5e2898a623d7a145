import assert from "node:assert/strict";
import { test } from "node:test";
import { webCrypto } from "../../../static/phone/core/crypto.js";
import { PairingLink } from "../../../static/phone/core/link.js";
import { Memory, MemoryStore } from "../../../static/phone/core/memory.js";

const RELAY = "wss://relay.example.com/ws";
const link = (fill) =>
  new PairingLink({
    relay: RELAY,
    token: "token",
    secret: fill === null ? null : new Uint8Array(32).fill(fill),
  });

async function remembered(store, given) {
  const memory = new Memory(store);
  await memory.load(given, webCrypto);
  return memory;
}

test("what was kept wins over the same link and over none, not over another link", async () => {
  const store = new MemoryStore();
  const first = await remembered(store, link(1));
  assert.equal(first.secrets.link, true);
  assert.equal(
    await store.load(await link(1).id(webCrypto)),
    null,
    "kept before it opened anything",
  );
  const newer = {
    current: await webCrypto.importSecret(new Uint8Array(32)),
    next: null,
    link: false,
  };
  await first.keep(newer);

  for (const again of [link(1), link(null)]) {
    assert.equal((await remembered(store, again)).secrets.current, newer.current);
  }
  const other = await remembered(store, link(2));
  assert.notEqual(other.secrets.current, newer.current);
  assert.equal(other.secrets.link, true);
  assert.equal((await remembered(store, link(1))).secrets.current, newer.current, "overwritten");
});

test("a token alone has no secret", async () => {
  assert.equal((await remembered(new MemoryStore(), link(null))).secrets, null);
});

test("the last 1,024 ids are known again, by the next page as well", async () => {
  const store = new MemoryStore();
  const memory = await remembered(store, link(1));
  for (let id = 0; id < 1030; id++) assert.equal(memory.hasSeen(`${id}`), false);
  assert.equal(memory.hasSeen("1029"), true);
  await memory.keep(memory.secrets);
  const next = await remembered(store, link(1));
  assert.equal(next.hasSeen("6"), true);
  assert.equal(next.hasSeen("5"), false);
});

test("what a store says that fails is told without its words", async () => {
  const failing = async () => {
    throw new Error("a secret");
  };
  const memory = new Memory({ load: failing, save: failing });
  await assert.rejects(memory.load(link(1), webCrypto), (error) => {
    assert.equal(error.name, "StoreError");
    assert.doesNotMatch(error.message, /a secret/);
    return true;
  });
});
