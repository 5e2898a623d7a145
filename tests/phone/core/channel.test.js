/** The channel, and who talks over it, where a socket or a listener does what it should not. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { PairingLink } from "../../../static/phone/core/link.js";
import { MemoryStore } from "../../../static/phone/core/memory.js";
import { sockets } from "./socket.js";
import { phoneFor, state } from "./stage.js";

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

test("what once had a secret does not go on without one", async (t) => {
  const WebSocket = sockets((agent) => agent.seal("chat.done", { full_text: "Here." }));
  for (const store of [undefined, new MemoryStore()]) {
    const phone = phoneFor(t, { link }, { WebSocket, store, atLeast: 2 });
    await assert.rejects(phone.ready(), { name: "StoreError" });
    assert.equal((await state(phone, "storage")).kind, "storage");
    await assert.rejects(phone.ask("Anybody?").finished, { name: "StoreError" });
    assert.equal(phone.version, 2);
  }
  assert.equal(WebSocket.sockets.length, 0, "the relay was told of it");
});

test("an answer of version 1 that breaks the protocol keeps its end to itself", async (t) => {
  // One after the other, as agents of version 1 answer.
  let ended;
  const WebSocket = sockets(async (agent, { text }) => {
    if (text === "first") {
      await agent.seal("chat.stream", { delta: 1 });
      await new Promise((done) => setTimeout(done, 50));
      ended = agent.seal("chat.done", { full_text: "To the first." });
    } else {
      while (!ended) await new Promise((done) => setTimeout(done, 10));
      await ended;
      await agent.seal("chat.done", { full_text: "To the second." });
    }
  });
  const phone = phoneFor(t, { link }, { WebSocket });
  await assert.rejects(phone.ask("first").finished, { name: "InvalidAnswer" });
  assert.equal((await phone.ask("second").finished).text, "To the second.");
});

test("what is no status of a tool is passed over", async (t) => {
  const WebSocket = sockets(async (agent) => {
    agent.say("chat.tool_status", { status: "running" });
    agent.say("chat.tool_status", { tool: "search", status: "running" });
    await agent.seal("chat.done", { full_text: "Found." });
  });
  const phone = phoneFor(t, { link }, { WebSocket });
  const answer = phone.ask("Where?");
  const tools = [];
  answer.addEventListener("tool", ({ detail }) => tools.push(detail.tool));
  assert.equal((await answer.finished).text, "Found.");
  assert.deepEqual(tools, ["search"]);
});
