/** The channel, and who talks over it, where a socket or a listener does what it should not. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Channel } from "../../../static/phone/core/channel.js";
import { webCrypto } from "../../../static/phone/core/crypto.js";
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
    await assert.rejects(phone.ready(), { name: "SecretLost" });
    assert.equal((await state(phone, "lost")).kind, "lost");
    await assert.rejects(phone.ask("Anybody?").finished, { name: "SecretLost" });
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

test("a listener that throws spoils nothing of what is due beside it", async (t) => {
  const WebSocket = sockets();
  let thrown = 0;
  const channel = new Channel(link, {
    name: "Phone",
    version: "1",
    crypto: webCrypto,
    WebSocket,
    onMessage() {},
    onEvent({ kind }) {
      if (kind !== "ended") return;
      thrown += 1;
      throw new Error("not mine");
    },
    onChange() {},
  });
  t.after(() => channel.close());
  channel.start();
  await channel.waitReady();
  const [agent] = WebSocket.sockets;
  const keys = () => agent.sent.filter(({ type }) => type === "key_exchange").length;
  const before = keys();
  agent.say("status", { peer: "online" });
  for (let n = 0; n < 50 && keys() === before; n++) await new Promise(setImmediate);
  assert.equal(thrown, 1);
  assert.ok(keys() > before, "the key that the agent waits for was not sent");
  assert.equal(channel.running, true);
});

test("a list of agents is taken within bounds, and without what hides or turns text", async (t) => {
  const long = "x".repeat(100_000);
  const WebSocket = sockets();
  const phone = phoneFor(t, { link }, { WebSocket });
  await phone.ready();
  const [agent] = WebSocket.sockets;
  const listed = {
    id: "a\u202eb",
    name: `\u202e${long}`,
    description: `one\ntwo ${long}`,
    model: long,
  };
  const answer = phone.agents();
  while (!agent.sent.some(({ type }) => type === "agent.list")) await new Promise(setImmediate);
  agent.say("agent.list.result", { agents: Array(1000).fill(listed) });
  const agents = await answer;
  assert.equal(agents.length, 100);
  const [{ id, name, description, model, avatarUrl }] = agents;
  assert.equal(id, "ab");
  assert.equal(name, "x".repeat(64));
  assert.match(description, /^onetwo x+$/);
  assert.ok(description.length <= 1000 && model.length <= 200);
  assert.equal(avatarUrl, null);
});
