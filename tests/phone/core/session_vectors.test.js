/** Sessions as tests/vectors/session.json has them. */

import assert from "node:assert/strict";
import { test } from "node:test";
import * as base64 from "../../../static/phone/core/base64.js";
import { webCrypto } from "../../../static/phone/core/crypto.js";
import { PhoneSession } from "../../../static/phone/core/session.js";
import { Agent } from "./agent.js";
import { countedBytes, drawing, flipped, utf8, vectors } from "./vectors.js";
import { envelope, kinds } from "./wire.js";

const CASES = vectors("session").vectors;

/** Both ends of a vector, with the random bytes that it tells. */
async function ends(vector) {
  const secret = base64.decodeUrl(vector.secret, 32);
  const entropy = {
    phone: countedBytes(vector.phone.entropy_label),
    agent: countedBytes(vector.agent.entropy_label),
  };
  const handles = new Map();
  const phoneCrypto = {
    ...drawing(entropy.phone),
    async importSecret(bytes) {
      const text = base64.encodeUrl(bytes);
      const handle = await webCrypto.importSecret(bytes);
      handles.set(handle, text);
      return handle;
    },
  };
  const phone = new PhoneSession({
    token: vector.token,
    secrets: { current: await phoneCrypto.importSecret(secret), next: null, link: true },
    identity: vector.phone.identity,
    crypto: phoneCrypto,
  });
  const agent = new Agent({
    token: vector.token,
    secrets: { current: secret, next: null, link: true },
    identity: vector.agent.identity,
    rotate: vector.rotate,
    crypto: drawing(entropy.agent),
  });
  const written = (value) => value && (handles.get(value) ?? base64.encodeUrl(value));
  return { phone, agent, entropy, written };
}

/** The vector's session, shaken hands and nothing more: what was sent, and what was stored. */
async function shaken(vector) {
  const { phone, agent, entropy, written } = await ends(vector);
  const handshake = [];
  const stored = { phone: [], agent: [] };
  const carryOut = async (role, events) => {
    const [machine, other] = role === "phone" ? [agent, "agent"] : [phone, "phone"];
    for (const { kind, type, id, payload, secrets } of events) {
      if (kind === "store") {
        const { current, next, link } = secrets;
        stored[role].push({ current: written(current), next: written(next), link });
      } else if (kind === "send") {
        handshake.push({ from: role, type, id, payload: JSON.stringify(payload) });
        await carryOut(other, await machine.receive(envelope(type, id, payload), 0));
      }
    }
  };
  await carryOut("phone", await phone.connected(0, { paired: true }));
  return { phone, agent, handshake, stored, entropy };
}

test("a session is made as it is written down, byte for byte", async () => {
  for (const vector of CASES) {
    const { phone, agent, handshake, stored, entropy } = await shaken(vector);
    assert.deepEqual(handshake, vector.handshake, vector.name);
    for (const role of ["phone", "agent"]) {
      assert.deepEqual(stored[role], vector[role].stored);
      assert.deepEqual(entropy[role].drawn, vector[role].drawn);
    }
    const { name, version, caps } = vector.agent.identity;
    assert.deepEqual(phone.peer, { name, version, caps, protocol: 2, verified: true });
    for (const { from, type, id, plaintext, payload } of vector.records) {
      const [sender, receiver] = from === "phone" ? [phone, agent] : [agent, phone];
      const sealed = await sender.seal(type, id, utf8(plaintext));
      assert.equal(JSON.stringify(sealed), payload);
      const [opened, ...more] = await receiver.receive(envelope(type, id, JSON.parse(payload)), 0);
      assert.deepEqual([opened.kind, opened.type, opened.id], ["opened", type, id]);
      assert.deepEqual([opened.payload, more], [JSON.parse(plaintext), []]);
    }
  }
});

test("no byte of what is written down may be another: nothing that was changed is opened", async () => {
  const vector = CASES[0];
  const records = vector.records.filter(({ from }) => from === "agent");
  for (const { type, id, payload, n } of records) {
    const record = JSON.parse(payload);
    const ciphertext = base64.decode(record.ciphertext);
    const { phone } = await shaken(vector);
    const others = records.filter((other) => other.n < n);
    for (const other of others) {
      await phone.receive(envelope(other.type, other.id, JSON.parse(other.payload)), 0);
    }
    for (let position = 0; position < Math.min(ciphertext.length, 500); position++) {
      const bad = { ...record, ciphertext: base64.encode(flipped(ciphertext, position)) };
      const machine = position === 0 ? phone : (await shaken(vector)).phone;
      const events = await machine.receive(envelope(type, id, bad), 0);
      assert.ok(!kinds(events).includes("opened"));
      assert.deepEqual(events.find(({ kind }) => kind === "ended")?.failure, "TAMPERED");
      assert.ok(!machine.ready);
      if (position > 20 && position < ciphertext.length - 20) {
        position += 30; // each costs a handshake
      }
    }
  }
});

test("a step 2 with any byte changed is ignored, and the honest one behind it is taken", async () => {
  for (const vector of CASES) {
    const { phone } = await ends(vector);
    await phone.connected(0, { paired: true });
    const { type, id, payload } = vector.handshake[1];
    const step = JSON.parse(payload);
    const noise = base64.decode(step.noise);
    const forged = Array.from(noise, (_, position) => base64.encode(flipped(noise, position)));
    for (const bad of [
      ...forged,
      base64.encode(noise.slice(1)),
      "",
      "AAAA",
      "no base64",
      null,
      7,
    ]) {
      const events = await phone.receive(envelope(type, id, { ...step, noise: bad }), 0);
      assert.deepEqual(kinds(events), ["ignored"]);
    }
    const other = { ...step, hs: base64.encodeUrl(new Uint8Array(16)) };
    for (const bad of [
      other,
      { ...step, hs: undefined },
      { ...step, step: 1 },
      { ...step, step: 4 },
    ]) {
      assert.deepEqual(kinds(await phone.receive(envelope(type, id, bad), 0)), ["ignored"]);
    }
    const events = kinds(await phone.receive(envelope(type, id, step), 0));
    assert.deepEqual(events, [...(vector.rotate ? ["store"] : []), "send", "established"]);
    assert.deepEqual(kinds(await phone.receive(envelope(type, id, step), 0)), ["ignored"]);
  }
});
