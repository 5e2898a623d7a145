import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import * as base64 from "../../../static/phone/core/base64.js";
import { webCrypto } from "../../../static/phone/core/crypto.js";
import { CipherState } from "../../../static/phone/core/noise.js";
import { Records, read } from "../../../static/phone/core/records.js";
import { flipped, text, utf8 } from "./vectors.js";

const PLAINTEXT = utf8('{"text":"hello"}');
const LAST = 2 ** 53 - 1;

async function pair() {
  const [there, back] = [1, 2];
  const cipher = async (byte) => {
    const state = new CipherState(webCrypto);
    await state.initializeKey(new Uint8Array(32).fill(byte));
    return state;
  };
  const side = async (sending, receiving) =>
    new Records("hs", await cipher(sending), await cipher(receiving));
  return [await side(there, back), await side(back, there)];
}

const ciphertextOf = ({ ciphertext }) => base64.decode(ciphertext);

test("a record travels in the form of the contract, padded to a multiple of 128", async () => {
  for (const length of [2, 127, 128, 129, 256]) {
    const [sender, receiver] = await pair();
    const plaintext = utf8(`"${"x".repeat(length - 2)}"`);
    const record = await sender.seal("chat.send", "1", plaintext);
    assert.deepEqual(Object.keys(record), ["enc", "v", "hs", "n", "ciphertext"]);
    assert.deepEqual(read(JSON.parse(JSON.stringify(record))), {
      hs: "hs",
      n: 0,
      ciphertext: ciphertextOf(record),
    });
    assert.equal(ciphertextOf(record).length, Math.ceil(length / 128) * 128 + 16);
    const opened = text(await receiver.open("chat.send", "1", 0, ciphertextOf(record)));
    assert.equal(opened, text(plaintext).padEnd(Math.ceil(length / 128) * 128));
    const chunk = await sender.seal("file.chunk", "2", plaintext);
    assert.equal(ciphertextOf(chunk).length, length + 16);
    assert.equal(chunk.n, 1);
  }
});

test("what has another form is no record", () => {
  const whole = { enc: true, v: 2, hs: "hs", n: 0, ciphertext: "AAAA" };
  assert.ok(read(whole) && read({ ...whole, more: [1] }));
  const wrong = {
    enc: [false, 1, "true", null],
    v: [1, "2", null, 3, true],
    hs: [1, null, []],
    n: ["0", null, 0.5, true, [], Number.NaN],
    ciphertext: [7, null, [], "AAA", "AAA-", "A===", "AAAA\n", "AB==", " AAAA"],
  };
  for (const [member, values] of Object.entries(wrong)) {
    for (const value of [...values, undefined]) {
      assert.equal(read({ ...whole, [member]: value }), null, `${member} ${String(value)}`);
    }
  }
});

test("a change of any byte, every truncation and any addition is seen", async () => {
  const [sender, receiver] = await pair();
  const whole = ciphertextOf(await sender.seal("chat.send", "1", PLAINTEXT));
  for (let position = 0; position < whole.length; position++) {
    for (const forged of [
      flipped(whole, position),
      flipped(whole, position, 0x80),
      whole.slice(0, position),
    ]) {
      await assert.rejects(receiver.open("chat.send", "1", 0, forged), { failure: "TAMPERED" });
    }
  }
  const longer = Uint8Array.from([...whole, 0]);
  await assert.rejects(receiver.open("chat.send", "1", 0, longer), { failure: "TAMPERED" });
  assert.ok(await receiver.open("chat.send", "1", 0, whole));
});

test("type and id belong to the record, and where the one ends cannot be moved", async () => {
  const [sender, receiver] = await pair();
  const ciphertext = ciphertextOf(await sender.seal("chat.send", "1", PLAINTEXT));
  const labels = [
    ["chat.done", "1"],
    ["chat.send", "2"],
    ["chat.send", ""],
    ["", "1"],
  ];
  for (const [type, id] of [
    ...labels,
    ["chat.sen", "d\n1"],
    ["chat.send", "\ud800"],
    ["\udc00", "1"],
  ]) {
    await assert.rejects(receiver.open(type, id, 0, ciphertext), { failure: "TAMPERED" });
  }
  const [other, there] = await pair();
  const odd = ciphertextOf(await other.seal("chat.send\nx", "1", PLAINTEXT));
  await assert.rejects(there.open("chat.send", "x\n1", 0, odd), { failure: "TAMPERED" });
  const [third, fourth] = await pair();
  const halves = ciphertextOf(await third.seal("chat.send", "\ufffd", PLAINTEXT));
  await assert.rejects(fourth.open("chat.send", "\ud800", 0, halves), { failure: "TAMPERED" });
  await assert.rejects(third.seal("chat.send", "\ud800", PLAINTEXT), { failure: "TAMPERED" });
});

test("a record opens once, in its order, in its direction, and in its session", async () => {
  const [sender, receiver] = await pair();
  const sealed = [];
  for (let n = 0; n < 5; n++) {
    sealed.push(ciphertextOf(await sender.seal("chat.send", `${n}`, PLAINTEXT)));
  }
  await assert.rejects(sender.open("chat.send", "0", 0, sealed[0]), { failure: "TAMPERED" });
  for (const n of [0, 3, 4]) {
    assert.ok(await receiver.open("chat.send", `${n}`, n, sealed[n]));
  }
  for (const n of [0, 2, 4, -1]) {
    await assert.rejects(receiver.open("chat.send", `${n}`, n, sealed[n] ?? sealed[0]), {
      failure: "REPLAYED",
    });
  }
  for (const n of [5, 2 ** 32, LAST]) {
    const [, fresh] = await pair();
    await assert.rejects(fresh.open("chat.send", "0", n, sealed[0]), { failure: "TAMPERED" });
  }
  for (const n of [2 ** 53, 2 ** 64, 1e300, Number.POSITIVE_INFINITY]) {
    const [, fresh] = await pair();
    await assert.rejects(fresh.open("chat.send", "0", n, sealed[0]), { failure: "EXHAUSTED" });
  }
});

test("the last counter is sealed, and none behind it", async () => {
  const [sender, receiver] = await pair();
  sender.sending.setNonce(LAST);
  const record = await sender.seal("chat.send", "1", PLAINTEXT);
  assert.equal(record.n, LAST);
  assert.ok(await receiver.open("chat.send", "1", LAST, ciphertextOf(record)));
  await assert.rejects(sender.seal("chat.send", "2", PLAINTEXT), { failure: "EXHAUSTED" });
  assert.deepEqual(sender.lost(0, 2 ** 53), ["1"]);
});

test("records sealed at once have the counters of the order of the calls", async () => {
  const [sender, receiver] = await pair();
  const ids = Array.from({ length: 40 }, (_, n) => `${n}`);
  const payloads = ids.map((id) =>
    utf8(JSON.stringify({ id, pad: "x".repeat((Number(id) * 37) % 999) })),
  );
  const records = await Promise.all(ids.map((id, n) => sender.seal("chat.send", id, payloads[n])));
  for (const [n, record] of records.entries()) {
    assert.equal(record.n, n);
    const opened = await receiver.open("chat.send", ids[n], n, ciphertextOf(record));
    assert.equal(JSON.parse(text(opened)).id, ids[n]);
  }
});

async function sent(ids) {
  const [sender] = await pair();
  await Promise.all(ids.map((id) => sender.seal("chat.send", id, PLAINTEXT)));
  return sender;
}

test("missing records are named by their ids, but for the refused", async () => {
  const sender = await sent(["a", "b", "c", "d"]);
  assert.deepEqual(sender.lost(1, 2), ["b", "c"]);
  assert.deepEqual(sender.lost(0, 0), ["a"]);
  assert.deepEqual(sender.lost(3, 2 ** 53), ["d"]);
  assert.deepEqual(
    [sender.lost(4, 9), sender.lost(LAST - 1, LAST), sender.lost(1, 0)],
    [[], [], []],
  );
  sender.refused("b");
  sender.refused("nothing of ours");
  assert.deepEqual(sender.lost(0, 3), ["a", "c", "d"]);
  await sender.seal("chat.send", "b", PLAINTEXT);
  assert.deepEqual(sender.lost(0, 4), ["a", "c", "d", "b"]);
  sender.refused("b");
  assert.deepEqual(sender.lost(0, 4), ["a", "c", "d"]);
});

test("records of long ago are forgotten, and the rest keep their names", async () => {
  for (const count of [8202, 16_384, 16_390]) {
    const ids = Array.from({ length: count }, (_, n) => `${n}`);
    const sender = await sent(ids);
    const oldest = count - 8192;
    assert.deepEqual(sender.lost(0, 2 ** 53), ids.slice(oldest));
    assert.deepEqual(sender.lost(0, oldest), [`${oldest}`]);
    sender.refused(`${oldest}`);
    assert.deepEqual(sender.lost(oldest - 1, oldest + 1), [`${oldest + 1}`]);
  }
});

test("no text about records tells their contents", async () => {
  const [sender, receiver] = await pair();
  const record = await sender.seal("chat.send", "1", PLAINTEXT);
  const forged = flipped(ciphertextOf(record), 0);
  const error = await receiver.open("chat.send", "1", 0, forged).catch((reason) => reason);
  const told = [sender, record, error].map((value) =>
    inspect(value, { depth: 9, showHidden: true }),
  );
  assert.ok(!told.join().includes("hello") && !told.join().includes("01 01"));
});
