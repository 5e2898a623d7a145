/** Sessions of the phone: the secret of the link is replaced. */

import assert from "node:assert/strict";
import { test } from "node:test";
import * as base64 from "../../../static/phone/core/base64.js";
import { prologue } from "../../../static/phone/core/initiator.js";
import { HandshakeState } from "../../../static/phone/core/noise.js";
import { hex, utf8 } from "./vectors.js";
import {
  AGENT,
  crypto,
  Died,
  dropping,
  envelope,
  error,
  honest,
  isRecord,
  kinds,
  LINK_SECRET,
  nothing,
  phoneSide,
  STEP_0,
  shown,
  stepOneId,
  TOKEN,
  Wire,
} from "./wire.js";

// The secret is replaced

/** Both have the same new secret and nothing else, and it works. */
async function assertRotated(wire) {
  await wire.exchange();
  assert.deepEqual(shown(wire.phone.stored), shown(wire.agent.stored));
  assert.deepEqual([wire.phone.stored.next, wire.phone.stored.link], [null, false]);
  assert.notEqual(shown(wire.phone.stored).current, hex(LINK_SECRET));
  await wire.connect("phone");
  await wire.run();
  await wire.exchange();
}

/** Whether this phone, coming back, gets to talk to the agent; if not, it is told why. */
async function works(wire, phone) {
  phone.rebuild();
  phone.take();
  await wire.come(phone);
  await wire.wait(20);
  if (phone.machine.ready) {
    await wire.exchange();
    return true;
  }
  assert.deepEqual(phone.refusals, ["SECRET_REFUSED"]);
  return false;
}

test("the secret is on disk before the message that relies on it", async () => {
  const wire = await Wire.meet();
  const effects = kinds(wire.phone.events).filter((kind) => kind === "send" || kind === "store");
  assert.deepEqual(effects, ["send", "store", "send", "store"]);
  const [taken, confirmed] = wire.phone.all("store").map(({ secrets }) => shown(secrets));
  const { current } = shown(wire.agent.stored);
  assert.deepEqual(taken, { current, next: hex(LINK_SECRET), link: false });
  assert.deepEqual(confirmed, { current, next: null, link: false });
  const handle = wire.phone.stored.current;
  assert.equal(handle.extractable, false);
  await assert.rejects(globalThis.crypto.subtle.exportKey("raw", handle));
  await assertRotated(wire);
});

test("a replaced secret is not replaced again, and without replacing the link stays good", async () => {
  const wire = await Wire.meet();
  const { current } = shown(wire.phone.stored);
  for (const role of ["phone", "agent", "phone"]) {
    await wire.restart(role);
    await wire.run();
    await wire.exchange();
  }
  assert.equal(shown(wire.phone.stored).current, current);
  const stays = await Wire.meet({ rotate: false });
  assert.deepEqual(stays.phone.all("store"), []);
  assert.ok(await works(stays, await phoneSide()));
});

test("a used link is refused, and the first phone goes on", async () => {
  const wire = await Wire.meet();
  const [first, second] = [wire.phone, await phoneSide()];
  assert.ok(!(await works(wire, second)));
  assert.deepEqual(second.all("store"), []);
  assert.ok(await works(wire, first));
});

test("a handshake soon after the first uses the new secret", async () => {
  const wire = await Wire.meet();
  await wire.deliver("phone", STEP_0);
  await wire.wait(5);
  assert.equal(wire.phone.all("established").length, 2);
  assert.deepEqual(wire.phone.refusals, []);
  await wire.exchange();
});

test("once confirmed, nobody brings a phone back to the link's secret", async () => {
  const wire = await Wire.meet();
  wire.relay = nothing;
  await wire.connect("phone");
  wire.phone.take();
  await wire.deliver("phone", error("E2E_REFUSED", stepOneId(wire)));
  assert.deepEqual(kinds(wire.phone.events), ["pairing-refused"]);
  wire.relay = honest;
  await wire.wait(60);
  await wire.exchange();
});

test("forged refusals before the confirmation lose no secret", async () => {
  const wire = await Wire.make();
  wire.relay = dropping((sender, m) => sender === "agent" && isRecord(m));
  await wire.meet();
  const both = shown(wire.phone.stored);
  assert.equal(both.next, hex(LINK_SECRET));
  wire.relay = nothing;
  await wire.connect("phone");
  for (const refused of [[], ["SECRET_REFUSED"]]) {
    await wire.deliver("phone", error("E2E_REFUSED", stepOneId(wire)));
    assert.deepEqual(wire.phone.refusals, refused);
  }
  assert.deepEqual(shown(wire.phone.stored), both);
  wire.relay = honest;
  await wire.wait(60);
  await assertRotated(wire);
});

test("an offer that is no secret is not stored", async () => {
  const offers = [7, "", "AAAA", "!".repeat(43), "A".repeat(44), [], {}, true];
  for (const offered of [...offers, base64.encode(new Uint8Array(32)), `${"A".repeat(42)}B`]) {
    const wire = await Wire.make();
    wire.relay = nothing;
    await wire.meet();
    const { hs, noise } = wire.seen.at(-1)[1].payload;
    const agent = new HandshakeState({
      initiator: false,
      prologue: await prologue(crypto, TOKEN, base64.decodeUrl(hs, 16)),
      psk: await crypto.importSecret(LINK_SECRET),
      crypto,
    });
    await agent.readMessage(base64.decode(noise));
    const answer = await agent.writeMessage(utf8(JSON.stringify({ ...AGENT, next_psk: offered })));
    const step2 = { v: 2, step: 2, hs, noise: base64.encode(answer) };
    await wire.deliver("phone", envelope("key_exchange", "2", step2));
    assert.equal(wire.phone.events.at(-1).why, "a step 2 that says nothing sensible");
    assert.deepEqual(wire.phone.all("store"), []);
    wire.relay = honest;
    await wire.wait(11);
    await assertRotated(wire);
  }
});

test("each message of the first handshake may get lost", async () => {
  for (let number = 0; number < 4; number++) {
    for (const again of ["wait", "phone", "agent"]) {
      const wire = await Wire.make();
      let count = 0;
      wire.relay = (_, message) => (count++ === number ? [] : [message]);
      await wire.meet();
      wire.relay = honest;
      if (again === "wait") {
        await wire.wait(30);
      } else {
        await wire.restart(again);
        await wire.run();
      }
      assert.deepEqual(wire.phone.refusals, []);
      await assertRotated(wire);
      assert.ok(!(await works(wire, await phoneSide())));
    }
  }
});

// Each side has four effects in the first handshake, and dies in front of one of them; the other
// side's messages to it are lost with it.
const POINTS = ["phone", "agent"].flatMap((role) => [0, 1, 2, 3].map((effects) => [role, effects]));

async function orDied(wire, role, effects, work) {
  wire.side(role).effectsLeft = effects;
  try {
    await work();
  } catch (reason) {
    if (!(reason instanceof Died)) {
      throw reason;
    }
    await wire.restart(role);
    return true;
  }
  return false;
}

test("either process may die at each point of the first handshake, and again as it recovers", async () => {
  for (const [role, effects] of POINTS) {
    for (const [again, more] of [[null, 0], ...POINTS]) {
      const wire = await Wire.make();
      const died = await orDied(wire, role, effects, () => wire.meet());
      assert.ok(died);
      if (again !== null) {
        wire.queue = [];
        await orDied(wire, again, more, () => wire.wait(30));
        wire.side(again).effectsLeft = null;
      }
      await wire.run();
      await wire.wait(120);
      assert.deepEqual(wire.phone.refusals, [], `${role} ${effects} ${again} ${more}`);
      await assertRotated(wire);
    }
  }
});

test("of two devices with one link exactly one gets in", async () => {
  for (let ofFirst = 0; ofFirst < 5; ofFirst++) {
    for (let ofSecond = 0; ofSecond < 8; ofSecond++) {
      const wire = await Wire.make();
      await wire.connect("agent");
      const [first, second] = [wire.phone, await phoneSide()];
      for (const [phone, messages] of [
        [first, ofFirst],
        [second, ofSecond],
      ]) {
        await wire.come(phone);
        for (let turn = 0; turn < messages && wire.queue.length > 0; turn++) {
          await wire.deliver(...wire.queue.shift());
        }
      }
      const results = [];
      for (const phone of [first, second, first, second]) {
        results.push(await works(wire, phone));
      }
      assert.notEqual(results[0], results[1]);
      assert.deepEqual(results.slice(2), results.slice(0, 2));
    }
  }
});
