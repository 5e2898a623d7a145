/** The channel, and who talks over it, where a socket or a listener does what it should not. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { PairingLink } from "../../../static/phone/core/link.js";
import { sockets } from "./socket.js";
import { phoneFor } from "./stage.js";

const link = new PairingLink({ relay: "wss://relay.example.com/ws", token: "token", secret: null });

test("a socket that dies with much unwritten is left for the next one", {
  timeout: 5000,
}, async (t) => {
  const WebSocket = sockets((agent) => agent.seal("chat.done", { full_text: "Here." }));
  const phone = phoneFor(t, { link }, { WebSocket });
  await phone.ready();
  const [first] = WebSocket.sockets;
  first.bufferedAmount = 64 * 1024 * 1024;
  first.say("chat.tool_status", { tool: "search", status: "running" });
  await new Promise((done) => setImmediate(done));
  first.break();
  await phone.ready();
  assert.equal(WebSocket.sockets.length, 2);
  assert.equal((await phone.ask("Are you there?").finished).text, "Here.");
});
