import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import * as base64 from "../../../static/phone/core/base64.js";
import { webCrypto } from "../../../static/phone/core/crypto.js";
import { decode, encode } from "../../../static/phone/core/envelope.js";
import { NotReady } from "../../../static/phone/core/failures.js";
import {
  deriveKey,
  LegacySession,
  openPayload,
  sealPayload,
  UNREADABLE,
  UNSEALED,
} from "../../../static/phone/core/legacy.js";
import { bytes, flipped, hex, keyPair, text, utf8, vectors } from "./vectors.js";

const CASES = vectors("legacy").vectors;
const PEER = { name: "", version: "", caps: [], protocol: 1, verified: false };
const CHAT = { full_text: "hello" };
const kinds = (events) => events.map(({ kind }) => kind);

/** An agent of the field, held in the hand: its key pair, and what it can open. */
class Raw {
  async newPair() {
    this.pair = await webCrypto.generateKeyPair();
    return this;
  }

  get pubkey() {
    return { pubkey: base64.encode(this.pair.publicKey) };
  }

  async learn(send) {
    assert.deepEqual(
      [send.kind, send.type, Object.keys(send.payload)],
      ["send", "key_exchange", ["pubkey"]],
    );
    this.key = await deriveKey(webCrypto, this.pair.privateKey, base64.decode(send.payload.pubkey));
  }

  sealed(payload = CHAT) {
    return sealPayload(webCrypto, this.key, utf8(JSON.stringify(payload)));
  }

  async opens(payload) {
    return JSON.parse(text(await openPayload(webCrypto, [this.key], payload)));
  }
}

function say(machine, type, payload, id = "m1") {
  return machine.receive(decode(encode({ type, id, ts: 1, payload })), 1000);
}

/** A phone that is ready, and the agent whose key it has. */
async function talking() {
  const [machine, agent] = [new LegacySession(), await new Raw().newPair()];
  const [send] = await machine.connected(0, { paired: true });
  await agent.learn(send);
  await say(machine, "key_exchange", agent.pubkey);
  assert.ok(machine.ready);
  return [machine, agent];
}

// Cryptography

test("keys, seals and opened payloads are those that are written down", async () => {
  for (const vector of CASES) {
    let derived = "";
    let kept = null;
    const watched = {
      ...webCrypto,
      importKey: (key) => {
        derived = hex(key);
        kept = key;
        return webCrypto.importKey(key);
      },
    };
    const ends = [
      ["phone", "agent"],
      ["agent", "phone"],
    ];
    for (const [own, other] of ends) {
      const { privateKey, publicKey } = await keyPair(bytes(vector[`${own}_private`]));
      assert.equal(hex(publicKey), vector[`${own}_public`]);
      const key = await deriveKey(watched, privateKey, bytes(vector[`${other}_public`]));
      assert.equal(derived, vector.key, vector.name);
      assert.ok(kept.every((byte) => byte === 0)); // overwritten behind it
      const fixed = { ...webCrypto, randomBytes: () => base64.decode(vector.payload.nonce) };
      const payload = await sealPayload(fixed, key, utf8(vector.plaintext));
      assert.deepEqual(Object.entries(payload), Object.entries(vector.payload));
      assert.equal(text(await openPayload(webCrypto, [key], vector.payload)), vector.plaintext);
    }
  }
});

test("a payload with any byte changed does not open", async () => {
  const { phone_private: own, agent_public: peer, payload } = CASES[0];
  const { privateKey } = await keyPair(bytes(own));
  const key = await deriveKey(webCrypto, privateKey, bytes(peer));
  const tampered = { failure: "TAMPERED" };
  for (const member of ["ciphertext", "nonce"]) {
    const data = base64.decode(payload[member]);
    for (let position = 0; position < data.length; position++) {
      for (const bad of [flipped(data, position), data.slice(0, position)]) {
        const forged = { ...payload, [member]: base64.encode(bad) };
        await assert.rejects(openPayload(webCrypto, [key], forged), tampered);
      }
    }
    for (const bad of ["no base64", "", null, 7, [], {}, undefined]) {
      await assert.rejects(openPayload(webCrypto, [key], { ...payload, [member]: bad }), tampered);
    }
  }
  await assert.rejects(openPayload(webCrypto, [], payload), tampered);
  assert.equal(text(await openPayload(webCrypto, [key], payload)), CASES[0].plaintext);
});

test("a public key that is none makes no key", async () => {
  const { privateKey } = await webCrypto.generateKeyPair();
  for (const bad of [
    new Uint8Array(32),
    new Uint8Array(31).fill(9),
    new Uint8Array(33).fill(9),
    new Uint8Array(0),
  ]) {
    await assert.rejects(deriveKey(webCrypto, privateKey, bad), { failure: "TAMPERED" });
  }
  assert.equal(
    (await deriveKey(webCrypto, privateKey, new Uint8Array(32).fill(9))).extractable,
    false,
  );
});

// Keys come and go

test("a newcomer sends its key at once, and is ready when the agent's comes", async () => {
  const [machine, agent] = [new LegacySession(), await new Raw().newPair()];
  await agent.learn((await machine.connected(0, { paired: true }))[0]);
  assert.ok(!machine.ready);
  await assert.rejects(machine.seal("chat.send", "1", utf8("{}")), NotReady);
  const [again, established] = await say(machine, "key_exchange", agent.pubkey);
  assert.equal(again.type, "key_exchange");
  assert.deepEqual(established, { kind: "established", peer: PEER });
  assert.deepEqual([machine.ready, machine.peer], [true, PEER]);
  const sealed = await machine.seal("chat.send", "1", utf8('{"text":"é"}'));
  assert.deepEqual(await agent.opens(sealed), { text: "é" });
});

test("whoever was there first sends its key when the agent comes", async () => {
  const [machine, agent] = [new LegacySession(), await new Raw().newPair()];
  assert.deepEqual(await machine.connected(0, { paired: false }), []);
  await agent.learn((await machine.peerOnline(1))[0]);
  assert.deepEqual(kinds(await say(machine, "key_exchange", agent.pubkey)), [
    "send",
    "established",
  ]);
  assert.deepEqual(kinds(await say(machine, "chat.done", await agent.sealed())), ["opened"]);
});

test("each connection has a key pair of its own, and a key of the one before makes none ready", async () => {
  const [machine, agent] = await talking();
  const events = await machine.connected(0, { paired: true });
  assert.deepEqual(events[0], { kind: "ended", failure: "CONNECTION_ENDED" });
  assert.ok(!machine.ready);
  const old = agent.key;
  await agent.learn(events[1]);
  const late = await sealPayload(webCrypto, old, utf8(JSON.stringify(CHAT)));
  // Sealed before the agent heard of our new key.
  assert.deepEqual(kinds(await say(machine, "chat.done", late)), ["opened"]);
  assert.deepEqual(kinds(await say(machine, "key_exchange", agent.pubkey)), [
    "send",
    "established",
  ]);
  assert.deepEqual(kinds(await say(machine, "chat.done", await agent.sealed())), ["opened"]);
  assert.deepEqual(kinds(await say(machine, "chat.done", late)), ["opened"]);
});

test("our key goes out once for each key of the agent that differs from the last", async () => {
  const [machine, agent] = await talking();
  const first = agent.pubkey;
  assert.deepEqual(await say(machine, "key_exchange", first), []);
  await agent.newPair();
  assert.deepEqual(kinds(await say(machine, "key_exchange", agent.pubkey)), ["send"]);
  assert.deepEqual(await say(machine, "key_exchange", agent.pubkey), []);
  assert.deepEqual(kinds(await say(machine, "key_exchange", first)), ["send"]);
});

test("two of us stop exchanging keys, and agree", async () => {
  const [a, b] = [new LegacySession(), new LegacySession()];
  const queue = [];
  const put = (to, events) =>
    queue.push(...events.filter(({ kind }) => kind === "send").map((e) => [to, e]));
  put(b, await a.connected(0, { paired: true }));
  put(a, await b.connected(0, { paired: true }));
  for (let turns = 0; queue.length > 0; turns++) {
    assert.ok(turns < 20);
    const [to, { type, id, payload }] = queue.shift();
    put(to === a ? b : a, await say(to, type, payload, id));
  }
  assert.ok(a.ready && b.ready);
  const sealed = await a.seal("chat.done", "1", utf8(JSON.stringify(CHAT)));
  assert.deepEqual((await say(b, "chat.done", sealed))[0].payload, CHAT);
});

test("an agent may change its key in the middle, and what it sealed just before still opens", async () => {
  const [machine, agent] = await talking();
  const keys = [agent.key];
  for (let times = 0; times < 2; times++) {
    await agent.newPair();
    const [send] = await say(machine, "key_exchange", agent.pubkey);
    await agent.learn(send);
    keys.push(agent.key);
  }
  const outcomes = [];
  for (const key of keys) {
    const payload = await sealPayload(webCrypto, key, utf8(JSON.stringify(CHAT)));
    outcomes.push((await say(machine, "chat.done", payload)).at(-1).kind);
  }
  assert.deepEqual(outcomes, ["ignored", "opened", "opened"]);
  assert.deepEqual(await agent.opens(await machine.seal("chat.send", "1", utf8("{}"))), {});
});

test("nothing is sealed before a key newer than the last online", async () => {
  const [machine, agent] = await talking();
  assert.deepEqual(kinds(await machine.peerOnline(2)), ["ended", "send"]);
  assert.ok(!machine.ready);
  await assert.rejects(machine.seal("chat.send", "1", utf8("{}")), NotReady);
  assert.deepEqual(kinds(await say(machine, "key_exchange", agent.pubkey)), ["established"]);
});

test("the session ends when either end goes, and nothing is sent without a connection", async () => {
  for (const end of ["peerOffline", "disconnected"]) {
    const [machine, agent] = await talking();
    assert.deepEqual(await machine[end](2), [{ kind: "ended", failure: "CONNECTION_ENDED" }]);
    assert.deepEqual([machine.ready, machine.peer, machine.deadline], [false, null, null]);
    assert.deepEqual(await machine[end](2), []);
    await machine.disconnected(3);
    assert.deepEqual(await machine.peerOnline(4), []);
    assert.deepEqual(kinds(await say(machine, "key_exchange", agent.pubkey)), ["ignored"]);
    assert.deepEqual(await machine.tick(1e9), []);
  }
});

test("a malformed key changes nothing; one with a line break behind it is a key", async () => {
  const [machine, agent] = [new LegacySession(), await new Raw().newPair()];
  await agent.learn((await machine.connected(0, { paired: true }))[0]);
  const { pubkey } = agent.pubkey;
  const short = base64.encode(new Uint8Array(31).fill(1));
  const zeros = base64.encode(new Uint8Array(32));
  for (const bad of [
    undefined,
    null,
    7,
    "",
    "no base64",
    short,
    zeros,
    [pubkey],
    `${pubkey}AAAA`,
  ]) {
    assert.deepEqual(kinds(await say(machine, "key_exchange", { pubkey: bad })), ["ignored"]);
  }
  for (const v of [2, 0, "1", null]) {
    assert.deepEqual(kinds(await say(machine, "key_exchange", { v, pubkey })), ["ignored"]);
  }
  assert.ok(!machine.ready);
  const broken = `${pubkey.slice(0, 20)}\r\n${pubkey.slice(20)}\n`;
  await say(machine, "key_exchange", { pubkey: broken });
  assert.deepEqual(kinds(await say(machine, "chat.done", await agent.sealed())), ["opened"]);
});

test("a refused key goes out again at the relay's pace, and not to nobody", async () => {
  const machine = new LegacySession();
  const [key] = await machine.connected(10_000, { paired: true });
  machine.refused("another");
  machine.refused("");
  assert.equal(machine.deadline, null);
  machine.refused(key.id);
  assert.equal(machine.deadline, 12_000);
  assert.deepEqual(await machine.tick(11_999), []);
  const [again] = await machine.tick(12_000);
  assert.deepEqual([again.type, again.payload], ["key_exchange", key.payload]);
  assert.notEqual(again.id, key.id);
  assert.equal(machine.deadline, null);
  machine.refused(again.id);
  await machine.peerOffline(12_500);
  assert.deepEqual(await machine.tick(99_000), []);
});

// Messages

test("exactly what is a chat is sealed", async () => {
  const [machine, agent] = await talking();
  for (const type of ["chat.send", "chat.stream", "chat.done"]) {
    const payload = await machine.seal(type, "1", utf8('{"a":1}'));
    assert.deepEqual(await agent.opens(payload), { a: 1 });
    assert.deepEqual(Object.keys(payload), ["enc", "ciphertext", "nonce"]);
  }
  for (const type of ["agent.list", "chat.cancel", "chat.history", "file.chunk"]) {
    assert.deepEqual(await machine.seal(type, "1", utf8('{"a":1}')), { a: 1 });
  }
  const nonces = await Promise.all(Array.from({ length: 20 }, () => agent.sealed()));
  assert.equal(new Set(nonces.map(({ nonce }) => nonce)).size, 20);
});

test("a phone takes no answer in the clear, nor its own message handed back", async () => {
  const [machine, agent] = await talking();
  for (const type of ["chat.stream", "chat.done"]) {
    const unsealed = { kind: "ignored", why: UNSEALED, id: "m1", type };
    assert.deepEqual(await say(machine, type, CHAT), [unsealed]);
    for (const enc of [1, "true", false, null]) {
      assert.deepEqual(await say(machine, type, { ...(await agent.sealed()), enc }), [unsealed]);
    }
  }
  const own = await machine.seal("chat.send", "1", utf8("{}"));
  assert.deepEqual(kinds(await say(machine, "chat.send", own)), ["ignored"]);
});

test("what does not open is told once, until something opens again", async () => {
  const [machine, agent] = await talking();
  const stranger = await new Raw().newPair();
  await stranger.learn({ kind: "send", type: "key_exchange", payload: stranger.pubkey });
  const [told, ignored] = await say(machine, "chat.stream", await stranger.sealed(), "x1");
  assert.deepEqual(
    [told.type, told.payload.code, told.payload.ref],
    ["chat.error", "E2E_FAILED", "x1"],
  );
  assert.deepEqual(ignored, { kind: "ignored", why: UNREADABLE, id: "x1", type: "chat.stream" });
  assert.deepEqual(kinds(await say(machine, "chat.done", await stranger.sealed())), ["ignored"]);
  assert.deepEqual(kinds(await say(machine, "chat.done", await agent.sealed())), ["opened"]);
  for (const [id, ref] of [
    ["", undefined],
    ["é".repeat(65), undefined],
    ["é".repeat(64), "é".repeat(64)],
  ]) {
    const [error] = await say(machine, "chat.done", { enc: true }, id);
    assert.equal(error.payload.ref, ref);
    await say(machine, "chat.done", await agent.sealed());
  }
  for (const renew of [() => machine.connected(0, { paired: true }), () => agent.newPair()]) {
    await say(machine, "chat.done", { enc: true });
    await renew();
    await say(machine, "key_exchange", agent.pubkey);
    assert.deepEqual(kinds(await say(machine, "chat.done", { enc: true })), ["send", "ignored"]);
  }
  await agent.learn((await machine.peerOnline(0)).at(-1));
  const odd = await sealPayload(webCrypto, agent.key, utf8("[]"));
  assert.deepEqual(kinds(await say(machine, "chat.done", odd)), ["send", "ignored"]);
  const [opened] = await say(machine, "chat.done", await agent.sealed());
  assert.deepEqual([opened.payload, opened.sealed, opened.size], [CHAT, true, 21]);
});

test("the rest comes in the clear, and sealed it is not taken", async () => {
  const [machine, agent] = await talking();
  for (const type of ["chat.tool_status", "agent.list.result", "file.chunk", "chat.new"]) {
    const [opened] = await say(machine, type, { a: 1 });
    const expected = { kind: "opened", type, id: "m1", payload: { a: 1 }, sealed: false };
    assert.ok(opened.size > 10);
    assert.deepEqual({ ...opened, size: 0 }, { ...expected, size: 0 });
    const events = await say(machine, type, await agent.sealed(), type);
    assert.equal(events.at(-1).kind, "ignored");
  }
  assert.deepEqual(kinds(await say(machine, "chat.error", await agent.sealed())), ["ignored"]);
  for (const type of ["auth.ok", "status", "pong", "toString", "", "x.y"]) {
    assert.deepEqual(kinds(await say(machine, type, {})), ["ignored"]);
  }
});

test("an error with a code of the relay is a hint, any other the agent's in the clear", async () => {
  const [machine] = await talking();
  const payload = { code: "RATE_LIMITED", message: "Wait.", ref: "r", retry_after_ms: 5 };
  const hint = { kind: "hint", code: "RATE_LIMITED", message: "Wait.", ref: "r", retryAfterMs: 5 };
  assert.deepEqual(await say(machine, "chat.error", payload), [hint]);
  const now = { ...payload, retry_after_ms: 0 };
  assert.deepEqual(await say(machine, "chat.error", now), [{ ...hint, retryAfterMs: 0 }]);
  for (const [wait, retryAfterMs] of [
    [2 ** 60, 32 * 86_400_000],
    [-1, null],
    ["5", null],
    [0.5, null],
    [true, null],
  ]) {
    const bare = { ...payload, message: 7, ref: null, retry_after_ms: wait };
    assert.deepEqual(await say(machine, "chat.error", bare), [
      { ...hint, message: "", ref: "", retryAfterMs },
    ]);
  }
  for (const code of [
    "BACKEND_ERROR",
    "UNSUPPORTED",
    "E2E_REQUIRED",
    7,
    null,
    undefined,
    ["RATE_LIMITED"],
  ]) {
    const [opened] = await say(machine, "chat.error", { code });
    assert.deepEqual([opened.kind, opened.sealed, opened.type], ["opened", false, "chat.error"]);
  }
});

test("an agent that wants its secret refuses the pairing, before any key and not behind it", async () => {
  const machine = new LegacySession();
  await machine.connected(0, { paired: true });
  const refused = [{ kind: "pairing-refused", failure: "NO_VERSION_1" }];
  assert.deepEqual(await say(machine, "chat.error", { code: "E2E_REQUIRED" }), refused);
  const [ready] = await talking();
  assert.deepEqual(kinds(await say(ready, "chat.error", { code: "E2E_REQUIRED" })), ["opened"]);
});

test("no text tells a key or a message", async () => {
  const [machine, agent] = await talking();
  await say(machine, "chat.done", await agent.sealed({ full_text: "words" }));
  const told = inspect(machine, { depth: 9, showHidden: true }) + JSON.stringify(machine);
  assert.ok(!told.includes("words") && !/[0-9a-f]{2} [0-9a-f]{2} [0-9a-f]{2}/.test(told));
});
