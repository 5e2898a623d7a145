import assert from "node:assert/strict";
import { test } from "node:test";
import * as codes from "../../../static/phone/core/codes.js";
import {
  decode,
  decodeObject,
  encode,
  InvalidMessage,
  newId,
} from "../../../static/phone/core/envelope.js";
import { utf8 } from "./vectors.js";

test("a message is read as it was written", () => {
  const message = { type: "chat.send", id: "1", ts: 1_700_000_000_000, payload: { text: "é 👋" } };
  const { size, ...read } = decode(encode(message));
  assert.deepEqual(read, message);
  assert.equal(size, encode(message).length);
  const wire = '{"v":1,"type":"chat.send","id":"1","ts":1700000000000,"payload":{"text":"é 👋"}}';
  assert.equal(encode(message), wire);
});

test("only the type is required, and unknown members are ignored", () => {
  const { size, ...read } = decode(' {"type":"pong","x":[{}]} ');
  assert.deepEqual(read, { type: "pong", id: "", ts: 0, payload: {} });
  assert.equal(decode(encode({ type: "ping" })).id.length, 16);
});

test("what is no envelope is refused, by an error that repeats nothing of it", () => {
  const wrong = [
    "",
    "null",
    "[]",
    '"a"',
    "1",
    "{}",
    '{"type":1}',
    '{"type":null}',
    '{"type":"a"}}',
  ];
  wrong.push('{"type":"a","id":1}', '{"type":"a","id":null}', '{"type":"a","ts":"1"}');
  wrong.push('{"type":"a","ts":1.5}', '{"type":"a","ts":1e300}', '{"type":"a","v":"1"}');
  wrong.push('{"type":"a","v":null}', '{"type":"a","payload":null}', '{"type":"a","payload":[]}');
  wrong.push('{"type":"a","payload":"s3cret"}', '{"type":"a","payload":{"s3cret":01}}', "s3cret");
  wrong.push('\ufeff{"type":"a"}', '{"type":"a","payload":{"a":"\u0001"}}', "{'type':'a'}");
  wrong.push(`{"type":"a","payload":${'{"a":'.repeat(3000)}1${"}".repeat(3001)}`);
  for (const text of [...wrong, "[".repeat(1e6), utf8('{"type":"a"}'), undefined, null, 1]) {
    assert.throws(
      () => decode(text),
      (error) => error instanceof InvalidMessage && !error.message.includes("s3cret"),
      `${text}`.slice(0, 60),
    );
  }
});

test("an object of many members that is not deep is read", () => {
  const payload = { turns: Array.from({ length: 5000 }, (_, n) => ({ n, text: "a" })) };
  assert.deepEqual(decode(JSON.stringify({ type: "a", payload })).payload, payload);
});

test("halves of characters become U+FFFD, whole ones stay", () => {
  const read = decode(String.raw`{"type":"a\ud800","id":"\udc00b","payload":{"t":"\ud83d\udc4b"}}`);
  assert.deepEqual([read.type, read.id, read.payload], ["a\ufffd", "\ufffdb", { t: "👋" }]);
  const deep = decodeObject(utf8(String.raw`{"a":["\\ud800\udc00","\ud83d"]}`));
  assert.deepEqual(deep, { a: ["\\ud800\ufffd", "\ufffd"] });
});

test("hostile names of members reach no prototype", () => {
  const hostile = '{"__proto__":{"code":"E2E_FAILED","polluted":1},"constructor":{"prototype":1}}';
  for (const payload of [
    decodeObject(utf8(hostile)),
    decode(`{"type":"a","payload":${hostile}}`).payload,
    decode(`{"type":"a","payload":${hostile.replace("__p", "\\u005f_p")}}`).payload,
  ]) {
    assert.equal(Object.getPrototypeOf(payload), Object.prototype);
    assert.equal(payload.code, undefined);
    assert.equal({}.polluted, undefined);
  }
  assert.throws(() => decode('{"__proto__":{"type":"a"}}'), InvalidMessage);
});

test("a payload that is no object, or no UTF-8, is refused", () => {
  const inside = [...utf8('{"a":"'), 0xff, ...utf8('"}')];
  const broken = [inside, [0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xef, 0xbb, 0xbf, 0x7b, 0x7d]];
  const wrong = [...broken, ...["", "[]", "null", "1", '"a"', "{} x"].map(utf8)];
  for (const data of wrong) {
    assert.throws(() => decodeObject(Uint8Array.from(data)), InvalidMessage);
  }
  assert.deepEqual(decodeObject(utf8('{"a":1}     ')), { a: 1 });
});

test("ids are twelve random bytes", () => {
  const ids = new Set(Array.from({ length: 100 }, () => newId()));
  assert.equal(ids.size, 100);
  assert.ok([...ids].every((id) => /^[A-Za-z0-9_-]{16}$/.test(id)));
  assert.equal(newId({ randomBytes: (n) => new Uint8Array(n) }), "A".repeat(16));
});

test("an agent's messages are told from the relay's by their type", () => {
  for (const type of ["key_exchange", "chat.done", "chat.new", "file.ack", "system.status"]) {
    assert.ok(codes.forwarded(type), type);
  }
  for (const type of ["auth.ok", "auth", "status", "ping", "pong", "", "chat", "x.chat.", "key"]) {
    assert.ok(!codes.forwarded(type), type);
  }
  assert.ok(codes.RELAY_CODES.has("RATE_LIMITED") && !codes.RELAY_CODES.has("BACKEND_ERROR"));
});
