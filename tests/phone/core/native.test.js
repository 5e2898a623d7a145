/** The library where there is no WebCrypto, with a provider of the app's own. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { MemoryStore } from "../../../static/phone/core/index.js";
import { nativeCrypto } from "./native_crypto.js";
import { onStage, phoneFor, please } from "./stage.js";

delete globalThis.crypto;

test("a phone chats with a provider of its own", onStage, async (t) => {
  assert.equal(globalThis.crypto, undefined);
  const store = new MemoryStore();
  const pairing = await please("pair");
  const phone = phoneFor(t, pairing, { crypto: nativeCrypto, store });
  assert.equal((await phone.ask("natively").finished).text, "You said: natively");
  assert.deepEqual([phone.version, phone.agent?.verified], [2, true]);
  const data = new Uint8Array(100_000).fill(7);
  const attachments = [{ name: "a.bin", type: "application/octet-stream", data }];
  await phone.ask("a file", { attachments }).finished;
  phone.close();
  // With the secret that the agent has handed over, which the store keeps.
  const again = phoneFor(t, pairing, { crypto: nativeCrypto, store });
  assert.equal((await again.ask("again").finished).text, "You said: again");
});

test("a phone of version 1 chats with a provider of its own", onStage, async (t) => {
  const phone = phoneFor(t, await please("pair", { secret: false }), { crypto: nativeCrypto });
  assert.equal((await phone.ask("natively").finished).text, "You said: natively");
  assert.deepEqual([phone.version, phone.agent?.verified], [1, false]);
});
