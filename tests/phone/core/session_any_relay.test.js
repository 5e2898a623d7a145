/** Sessions of the phone over a relay that does whatever it likes. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import * as base64 from "../../../static/phone/core/base64.js";
import { NotReady } from "../../../static/phone/core/failures.js";
import { flipped, hex, seeded, utf8 } from "./vectors.js";
import { changed, honest, LINK_SECRET, shown, Wire } from "./wire.js";

// Any relay

test("whatever a relay does, what is opened was said, once and in order, and all is well after", async () => {
  let arrived = 0;
  for (let seed = 0; seed < 16; seed++) {
    const random = seeded(seed);
    const wire = await Wire.make({ rotate: seed % 2 === 0 });
    const kept = [];
    wire.relay = (_, message) => {
      kept.push(message);
      const fate = random();
      const other = kept[Math.floor(random() * kept.length)];
      if (fate < 0.6) {
        return [message];
      }
      if (fate < 0.7) {
        return [];
      }
      if (fate < 0.8) {
        return [message, other];
      }
      if (fate < 0.9) {
        return [other, message];
      }
      const { ciphertext = "", noise = "" } = message.payload;
      const spoilt = ciphertext && base64.encode(flipped(base64.decode(ciphertext), 3));
      return [changed(message, spoilt ? { ciphertext: spoilt } : { noise: noise.slice(4) })];
    };
    await wire.meet();
    const said = { phone: [], agent: [] };
    for (let step = 0; step < 60; step++) {
      const role = random() < 0.5 ? "phone" : "agent";
      if (wire.side(role).machine.ready) {
        said[role].push(await wire.say(role));
      }
      if (random() < 0.3) {
        wire.queue.sort(() => random() - 0.5);
      }
      await wire.run();
      await wire.wait(random() < 0.3 ? 7 : 0.5);
      if (random() < 0.05) {
        await wire.restart(random() < 0.5 ? "phone" : "agent");
      }
    }
    for (const role of ["phone", "agent"]) {
      const chat = wire.other(role).opened.filter(({ type }) => type !== "chat.error");
      arrived += chat.length;
      const positions = chat.map(({ id }) => said[role].indexOf(id));
      assert.ok(
        positions.every((position, n) => position > (positions[n - 1] ?? -1)),
        `${seed}`,
      );
      assert.ok(chat.every(({ id, payload }) => payload.text === `secret ${id}`));
    }
    wire.relay = honest;
    wire.queue = [];
    await wire.wait(130);
    await wire.connect("phone");
    await wire.wait(20);
    await wire.exchange();
    assert.equal(shown(wire.phone.stored).current, shown(wire.agent.stored).current);
  }
  assert.ok(arrived > 120, `${arrived}`);
});

// Secrecy

test("nothing that can be printed tells a key, a secret, a token or a message", async () => {
  const wire = await Wire.meet();
  await wire.exchange();
  const message = await wire.next("agent");
  const ciphertext = base64.encode(flipped(base64.decode(message.payload.ciphertext), 3));
  await wire.deliver("phone", changed(message, { ciphertext }));
  const notReady = await wire.phone.machine.seal("a", "1", utf8('"secret words"')).catch((e) => e);
  assert.ok(notReady instanceof NotReady);
  const sends = wire.phone.events.filter(({ kind }) => kind !== "opened");
  const told = [wire.phone.machine, sends, notReady]
    .flatMap((value) => [inspect(value, { depth: 9, showHidden: true }), JSON.stringify(value)])
    .join();
  for (const secret of [hex(LINK_SECRET), shown(wire.agent.stored).current]) {
    assert.ok(!told.includes(secret.slice(0, 12)));
    const inBase64 = base64.encodeUrl(Uint8Array.from(Buffer.from(secret, "hex")));
    assert.ok(!told.includes(inBase64.slice(0, 12)));
  }
  assert.ok(
    !told.includes("oc_pair_") && !told.includes("secret phone") && !told.includes("words"),
  );
});
