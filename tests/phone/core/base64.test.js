import assert from "node:assert/strict";
import { test } from "node:test";
import * as base64 from "../../../static/phone/core/base64.js";
import { seeded } from "./vectors.js";

function samples() {
  const random = seeded(1);
  const data = Array.from({ length: 300 }, (_, length) =>
    Uint8Array.from({ length }, () => Math.floor(random() * 256)),
  );
  return [...data, new Uint8Array(70_000).fill(255), Uint8Array.from([251, 255, 191])];
}

test("bytes of any length are written as Node writes them, and read back", () => {
  for (const data of samples()) {
    const standard = Buffer.from(data).toString("base64");
    const url = Buffer.from(data).toString("base64url");
    assert.equal(base64.encode(data), standard);
    assert.equal(base64.encodeUrl(data), url);
    assert.deepEqual(base64.decode(standard), data);
    assert.deepEqual(base64.decodeUrl(url), data);
    assert.deepEqual(base64.decodeUrl(url, data.length), data);
  }
});

test("one value has one spelling", () => {
  const wrong = [
    "Q",
    "QQ",
    "QQ=",
    "QUI",
    "QQ===",
    "Q===",
    "====",
    "=",
    "QQ==QQ==",
    "Q=UJ",
    "QUJD=",
  ];
  for (const text of [
    ...wrong,
    "QR==",
    "QUJ=",
    "QQ==\n",
    " QQ==",
    "Q Q=",
    "_w==",
    "QQ=\0",
    "QQ٣=",
  ]) {
    assert.throws(() => base64.decode(text), SyntaxError, text);
  }
  for (const text of ["Q", "QQ==", "QR", "QUJ", "+w", "QQ ", "QQ\n", "QQ=", "éé", "QUJDQ"]) {
    assert.throws(() => base64.decodeUrl(text), SyntaxError, text);
  }
});

test("a wrong length is refused where one is right", () => {
  const text = base64.encodeUrl(new Uint8Array(32));
  assert.equal(base64.decodeUrl(text, 32).length, 32);
  for (const length of [0, 31, 33]) {
    assert.throws(() => base64.decodeUrl(text, length), SyntaxError);
  }
});

test("no character but those of the alphabet is taken", () => {
  for (let code = 0; code < 0x300; code++) {
    const text = `A${String.fromCharCode(code)}==`;
    const canonical = Buffer.from(text, "base64").toString("base64") === text;
    assert.equal(!threw(() => base64.decode(text)), canonical, `${code}`);
  }
});

function threw(work) {
  try {
    work();
    return false;
  } catch {
    return true;
  }
}
