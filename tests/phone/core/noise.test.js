import assert from "node:assert/strict";
import { test } from "node:test";
import * as base64 from "../../../static/phone/core/base64.js";
import { CryptoUnavailable, supported, webCrypto } from "../../../static/phone/core/crypto.js";
import { E2EError } from "../../../static/phone/core/failures.js";
import { prologue } from "../../../static/phone/core/initiator.js";
import { CipherState, HandshakeState } from "../../../static/phone/core/noise.js";
import { bytes, flipped, hex, keyPair, utf8, vectors, withKey } from "./vectors.js";

const CASES = vectors("noise").vectors;
const CASE = CASES[1];
const [TAMPERED, EXHAUSTED] = ["TAMPERED", "EXHAUSTED"].map((failure) => ({ failure }));

async function side(role, vector = CASE, more = {}) {
  return new HandshakeState({
    initiator: role === "initiator",
    prologue: bytes(vector.prologue),
    psk: await webCrypto.importSecret(bytes(vector.psk)),
    crypto: withKey(bytes(vector[`${role}_e`])),
    ...more,
  });
}

async function both(vector = CASE, more = {}) {
  return [await side("initiator", vector, more), await side("responder", vector, more)];
}

async function finished(vector = CASE) {
  const [phone, agent] = await both(vector);
  await agent.readMessage(await phone.writeMessage());
  await phone.readMessage(await agent.writeMessage());
  return [phone, agent];
}

test("the vectors' prologues are computed", async () => {
  for (const { name, token, hs, prologue: written } of CASES) {
    assert.equal(hex(await prologue(webCrypto, token, base64.decodeUrl(hs, 16))), written, name);
  }
});

test("both roles write the vectors' handshakes and seal their messages, byte for byte", async () => {
  for (const vector of CASES) {
    const [phone, agent] = await both(vector);
    const [first, second] = vector.messages;
    assert.equal(hex(await phone.writeMessage(bytes(first.payload))), first.message, vector.name);
    assert.equal(hex(await agent.readMessage(bytes(first.message))), first.payload);
    assert.equal(hex(await agent.writeMessage(bytes(second.payload))), second.message);
    assert.equal(hex(await phone.readMessage(bytes(second.message))), second.payload);
    const ends = { initiator: phone.split(), responder: agent.split() };
    for (const end of [phone, agent]) {
      assert.equal(hex(end.handshakeHash), vector.handshake_hash);
      assert.ok(end.finished);
    }
    for (const { direction, n, ad, plaintext, ciphertext } of vector.transport) {
      const [from, to] = direction.split("_to_");
      const index = from === "initiator" ? 0 : 1;
      const [sender, receiver] = [ends[from][index], ends[to][index]];
      if (sender.n !== n) {
        sender.setNonce(n);
        receiver.setNonce(n);
      }
      assert.equal(hex(await sender.encryptWithAd(utf8(ad), utf8(plaintext))), ciphertext);
      const opened = await receiver.decryptWithAd(utf8(ad), bytes(ciphertext));
      assert.deepEqual(opened, utf8(plaintext));
    }
  }
});

test("a handshake message with any byte changed is refused, and the honest one still read", async () => {
  const [first, second] = CASE.messages.map(({ message }) => bytes(message));
  const phone = await side("initiator");
  const agent = await side("responder");
  for (let position = 0; position < first.length; position++) {
    await assert.rejects(agent.readMessage(flipped(first, position, 0x80)), TAMPERED);
  }
  await agent.readMessage(first);
  await phone.writeMessage(bytes(CASE.messages[0].payload));
  for (let position = 0; position < second.length; position++) {
    await assert.rejects(phone.readMessage(flipped(second, position)), TAMPERED);
  }
  assert.equal(hex(await phone.readMessage(second)), CASE.messages[1].payload);
});

test("a handshake message of another length is refused", async () => {
  const [first] = CASE.messages.map(({ message }) => bytes(message));
  const agent = await side("responder");
  for (let length = 0; length < first.length; length++) {
    await assert.rejects(agent.readMessage(first.slice(0, length)), TAMPERED);
  }
  for (const more of [1, 16, 65_535]) {
    await assert.rejects(
      agent.readMessage(Uint8Array.from([...first, ...Buffer.alloc(more)])),
      TAMPERED,
    );
  }
  assert.equal(hex(await agent.readMessage(first)), CASE.messages[0].payload);
});

test("a handshake message may have 65,535 bytes", async () => {
  const [phone, agent] = await both();
  const payload = new Uint8Array(65_487).fill(7);
  const message = await phone.writeMessage(payload);
  assert.equal(message.length, 65_535);
  assert.deepEqual(await agent.readMessage(message), payload);
});

test("another secret or another prologue makes no handshake", async () => {
  const first = bytes(CASE.messages[0].message);
  for (const more of [
    { psk: await webCrypto.importSecret(flipped(bytes(CASE.psk), 31)) },
    { prologue: flipped(bytes(CASE.prologue), 57) },
  ]) {
    await assert.rejects((await side("responder", CASE, more)).readMessage(first), TAMPERED);
  }
});

// Keys that give zeros with whatever they meet (RFC 7748, section 6.1).
const ZEROS = [
  "00".repeat(32),
  `01${"00".repeat(31)}`,
  `e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800`,
];

test("a public key that makes no secret is refused, though it comes with the right one", async () => {
  for (const digits of ZEROS) {
    const publicKey = bytes(digits);
    const poor = {
      ...webCrypto,
      generateKeyPair: async () => ({ ...(await keyPair(publicKey)), publicKey }),
    };
    const agent = await side("responder");
    const poorPhone = await side("initiator", CASE, { crypto: poor });
    await agent.readMessage(await poorPhone.writeMessage());
    await assert.rejects(agent.writeMessage(), TAMPERED);

    const phone = await side("initiator");
    const poorAgent = await side("responder", CASE, {
      crypto: { ...poor, agree: (_, key) => webCrypto.importSecret(new Uint8Array(key.length)) },
    });
    await poorAgent.readMessage(await phone.writeMessage());
    await assert.rejects(phone.readMessage(await poorAgent.writeMessage()), TAMPERED);
    assert.ok(!phone.finished);
  }
});

test("each end writes once and reads once, in turn", async () => {
  const [phone, agent] = await both();
  await assert.rejects(phone.readMessage(new Uint8Array(48)), /turn/);
  await assert.rejects(agent.writeMessage(), /turn/);
  assert.throws(() => phone.split(), /not finished/);
  await phone.writeMessage();
  await assert.rejects(phone.writeMessage(), /turn/);
  const [done] = await finished();
  await assert.rejects(done.writeMessage(), /finished/);
  await assert.rejects(done.readMessage(new Uint8Array(48)), /finished/);
  await assert.rejects((await side("initiator")).writeMessage(new Uint8Array(65_488)), RangeError);
});

test("the ciphers of a handshake are the same two at each call", async () => {
  const [phone, agent] = await finished();
  const [sending] = phone.split();
  await sending.encryptWithAd(utf8(""), utf8("a"));
  assert.equal(phone.split()[0], sending);
  assert.equal(phone.split()[0].n, 1);
  assert.notEqual(agent.split()[0], agent.split()[1]);
});

test("seals that overlap take their counters in the order of the calls", async () => {
  const [phone, agent] = await finished();
  const words = Array.from({ length: 50 }, (_, n) => utf8(`${n} `.repeat(1 + ((n * 7919) % 900))));
  const sealed = await Promise.all(
    words.map((word) => phone.split()[0].encryptWithAd(utf8(""), word)),
  );
  for (const [n, ciphertext] of sealed.entries()) {
    assert.deepEqual(await agent.split()[0].decryptWithAd(utf8(""), ciphertext), words[n]);
  }
});

test("a ciphertext opens with its own counter, associated data and direction alone", async () => {
  const [phone, agent] = await finished();
  const [sending, back] = phone.split();
  const ciphertext = await sending.encryptWithAd(utf8("a"), utf8("words"));
  const [receiving, sendingBack] = agent.split();
  await assert.rejects(receiving.decryptWithAd(utf8("b"), ciphertext), TAMPERED);
  await assert.rejects(back.decryptWithAd(utf8("a"), ciphertext), TAMPERED);
  await assert.rejects(sendingBack.decryptWithAd(utf8("a"), ciphertext), TAMPERED);
  for (let position = 0; position < ciphertext.length; position++) {
    await assert.rejects(
      receiving.decryptWithAd(utf8("a"), flipped(ciphertext, position)),
      TAMPERED,
    );
    await assert.rejects(
      receiving.decryptWithAd(utf8("a"), ciphertext.slice(0, position)),
      TAMPERED,
    );
  }
  for (const n of [1, 2 ** 32, 2 ** 52]) {
    receiving.setNonce(n);
    await assert.rejects(receiving.decryptWithAd(utf8("a"), ciphertext), TAMPERED);
  }
  receiving.setNonce(0);
  assert.deepEqual(await receiving.decryptWithAd(utf8("a"), ciphertext), utf8("words"));
  assert.equal(receiving.n, 1);
});

test("a counter stops in front of 2^53", async () => {
  const [phone, agent] = await finished();
  const [sending] = phone.split();
  const [receiving] = agent.split();
  for (const cipher of [sending, receiving]) {
    cipher.setNonce(2 ** 53 - 1);
  }
  const last = await sending.encryptWithAd(utf8(""), utf8("last"));
  assert.deepEqual(await receiving.decryptWithAd(utf8(""), last), utf8("last"));
  assert.deepEqual([sending.n, receiving.n], [2 ** 53, 2 ** 53]);
  assert.throws(() => sending.encryptWithAd(utf8(""), utf8("more")), E2EError);
  await assert.rejects(receiving.decryptWithAd(utf8(""), last), EXHAUSTED);
  assert.throws(() => sending.setNonce(-1), RangeError);
  assert.throws(() => sending.setNonce(Number.NaN), RangeError);
});

test("a cipher without a key hands data on, and a key has 32 bytes", async () => {
  const cipher = new CipherState(webCrypto);
  assert.ok(!cipher.hasKey());
  assert.deepEqual(await cipher.encryptWithAd(utf8("a"), utf8("b")), utf8("b"));
  assert.deepEqual(await cipher.decryptWithAd(utf8("a"), utf8("b")), utf8("b"));
  for (const length of [0, 16, 31, 33]) {
    await assert.rejects(cipher.initializeKey(new Uint8Array(length)), RangeError);
  }
});

test("no key can be taken out again, and its bytes are overwritten", async () => {
  const handles = [];
  const seen = [];
  const kept =
    (work) =>
    async (...given) => {
      const made = await work(...given);
      if (made instanceof Uint8Array) {
        seen.push(made);
      } else {
        handles.push(made.privateKey ?? made);
      }
      return made;
    };
  const watched = (crypto) => ({
    ...crypto,
    importSecret: kept(crypto.importSecret),
    generateKeyPair: kept(crypto.generateKeyPair),
    agree: kept(crypto.agree),
    hkdf: (secret, salt, ...more) => {
      seen.push(salt); // the chaining key
      return kept(crypto.hkdf)(secret, salt, ...more);
    },
    importKey: (key) => {
      seen.push(key);
      return kept(crypto.importKey)(key);
    },
  });
  const phone = await side("initiator", CASE, {
    crypto: watched(withKey(bytes(CASE.initiator_e))),
  });
  const agent = await side("responder");
  await agent.readMessage(await phone.writeMessage());
  await phone.readMessage(await agent.writeMessage());
  handles.push(
    await webCrypto.importSecret(bytes(CASE.psk)),
    (await webCrypto.generateKeyPair()).privateKey,
  );
  assert.ok(handles.length >= 10 && seen.length >= 10);
  for (const handle of handles) {
    assert.equal(handle.extractable, false);
    for (const format of ["raw", "jwk", "pkcs8"]) {
      await assert.rejects(crypto.subtle.exportKey(format, handle));
    }
  }
  assert.ok(seen.every((data) => data.every((byte) => byte === 0)));
});

test("an engine without WebCrypto or X25519 is told from one that has them", async () => {
  assert.equal(await supported(), null);
  assert.equal(await supported({}), "insecure");
  assert.equal(await supported({ subtle: undefined }), "insecure");
  const old = { generateKey: () => Promise.reject(new DOMException("", "NotSupportedError")) };
  assert.equal(await supported({ subtle: old }), "old");
  const own = Object.getOwnPropertyDescriptor(globalThis, "crypto");
  try {
    for (const [value, reason] of [
      [{}, "insecure"],
      [{ subtle: old }, "old"],
    ]) {
      Object.defineProperty(globalThis, "crypto", { value, configurable: true });
      await assert.rejects(
        webCrypto.generateKeyPair(),
        (error) =>
          error instanceof CryptoUnavailable &&
          error.reason === reason &&
          error.message.length > 40,
      );
    }
  } finally {
    Object.defineProperty(globalThis, "crypto", own);
  }
});
