import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { encode } from "../../../static/phone/core/base64.js";
import { webCrypto } from "../../../static/phone/core/crypto.js";
import { Outgoing } from "../../../static/phone/core/files.js";
import { Inbox } from "../../../static/phone/core/inbox.js";
import { seeded } from "./vectors.js";

const CHUNK = 65_536;
const sha256 = (data) => createHash("sha256").update(data).digest("hex");

function file(size, name = "a.bin") {
  const data = new Uint8Array(size).map((_, index) => index * 7);
  return { name, type: "application/octet-stream", size, data };
}

function sender(whole, onProgress) {
  return new Outgoing("f1", whole, sha256(whole.data), onProgress);
}

function inbox(onProgress = () => {}) {
  return new Inbox(webCrypto, onProgress);
}

/** Pass messages until nothing is on its way; `lose` decides about each. Time runs when all wait. */
async function transfer(outgoing, incoming, lose = () => false) {
  let now = 0;
  let mostOut = 0;
  let there = outgoing.start(now);
  while (!outgoing.over) {
    const back = [];
    for (const [type, payload] of there) {
      if (!lose(type)) back.push(...(await incoming.receive(type, payload, now)));
    }
    there = [];
    for (const [type, payload] of back) {
      if (!lose(type)) there.push(...outgoing.receive(type, payload, now));
      mostOut = Math.max(mostOut, outgoing.unacknowledged);
    }
    if (there.length === 0 && !outgoing.over) {
      now = outgoing.deadline;
      there = outgoing.tick(now);
    }
  }
  return mostOut;
}

test("files of every size around a chunk arrive, never more than four chunks ahead", async () => {
  for (const size of [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 9 * CHUNK + 5]) {
    const whole = file(size);
    const steps = [];
    const outgoing = sender(whole, (sent, total) => steps.push([sent, total]));
    const incoming = inbox();
    const mostOut = await transfer(outgoing, incoming);
    assert.equal(outgoing.state, "done");
    assert.ok(mostOut <= 4);
    assert.deepEqual(steps.at(-1), [size, size]);
    assert.deepEqual(incoming.claim("f1").data, whole.data);
    assert.throws(() => incoming.claim("f1"), { name: "FileError" });
  }
});

test("whatever is lost on the way, the file arrives or fails, and never another one", async () => {
  const random = seeded(7);
  let arrived = 0;
  for (let round = 0; round < 40; round++) {
    const whole = file(6 * CHUNK + round);
    const outgoing = sender(whole);
    const incoming = inbox();
    await transfer(outgoing, incoming, () => random() < 0.08);
    if (outgoing.state === "done") {
      arrived += 1;
      assert.equal(sha256(incoming.claim("f1").data), sha256(whole.data));
    }
  }
  assert.ok(arrived > 30, `${arrived}`);
});

test("a sender without answers gives up, and says so", () => {
  const outgoing = sender(file(10));
  let messages = outgoing.start(0);
  for (let now = 30_000; messages.length > 0 && outgoing.state !== "failed"; now += 30_000) {
    messages = outgoing.tick(now);
  }
  assert.deepEqual(messages, [["file.cancel", { file_id: "f1" }]]);
  assert.match(outgoing.error, /stopped answering/);
});

test("acknowledgements that cannot be right change nothing", () => {
  const outgoing = sender(file(3 * CHUNK));
  outgoing.start(0);
  for (const index of [3, 99, -2, 1.5, "0", null]) {
    assert.deepEqual(outgoing.receive("file.ack", { file_id: "f1", index }, 0), []);
  }
  assert.deepEqual(outgoing.receive("file.ack", { file_id: "f2", index: -1 }, 0), []);
  assert.equal(outgoing.receive("file.ack", { file_id: "f1", index: -1 }, 0).length, 3);
  outgoing.receive("file.result", { file_id: "f1", ok: true }, 0);
  assert.notEqual(outgoing.state, "done", "nobody has the file yet");
});

test("an inbox refuses what breaks the rules, and keeps nothing of it", async () => {
  const whole = file(CHUNK + 5);
  const begin = {
    file_id: "f1",
    name: "a",
    mime_type: "text/plain",
    size: whole.size,
    sha256: sha256(whole.data),
  };
  const chunk = (index, data, file_id = "f1") => [
    "file.chunk",
    { file_id, index, data_b64: encode(data) },
  ];
  const first = whole.data.subarray(0, CHUNK);
  const bad = {
    "more than was told": [chunk(2, first)],
    "a part that is too short": [chunk(0, first.subarray(1))],
    "a part that is no base64": [["file.chunk", { file_id: "f1", index: 0, data_b64: "%" }]],
    "an end too early": [["file.end", { file_id: "f1" }]],
    "another checksum": [
      chunk(0, first),
      chunk(1, new Uint8Array(5)),
      ["file.end", { file_id: "f1" }],
    ],
    "another file under the same id": [["file.begin", { ...begin, size: 1 }]],
    "a size that is none": [["file.begin", { ...begin, file_id: "f2", size: -1 }]],
    "a file that is too large": [["file.begin", { ...begin, file_id: "f2", size: 25_000_001 }]],
    "an id that is none": [["file.begin", { ...begin, file_id: "../x" }]],
    "a part of no file": [chunk(0, first, "f3")],
  };
  for (const [what, messages] of Object.entries(bad)) {
    const incoming = inbox();
    await incoming.receive("file.begin", begin, 0);
    let answers = [];
    for (const [type, payload] of messages) answers = await incoming.receive(type, payload, 0);
    assert.equal(answers[0]?.[0], "file.result", what);
    assert.equal(answers[0][1].ok, false, what);
    assert.throws(() => incoming.claim("f1"), { name: "FileError" });
  }
});

test("a picture that is none does not arrive", async () => {
  const data = new TextEncoder().encode("<script>");
  const outgoing = sender({ name: "a.png", type: "image/png", size: data.length, data });
  await transfer(outgoing, inbox());
  assert.equal(outgoing.state, "failed");
});

test("no more than eight files and 100 MB wait, and not for ever", async () => {
  const begin = (file_id, size) => ({
    file_id,
    name: "a",
    mime_type: "text/plain",
    size,
    sha256: "0".repeat(64),
  });
  const incoming = inbox();
  for (let index = 0; index < 8; index++)
    await incoming.receive("file.begin", begin(`n${index}`, 1), 0);
  const [[, ninth]] = await incoming.receive("file.begin", begin("n8", 1), 0);
  assert.equal(ninth.ok, false);
  assert.equal(incoming.deadline, 600_000);
  const [[later]] = await incoming.receive("file.begin", begin("n8", 1), 600_000);
  assert.equal(later, "file.ack");

  const full = inbox();
  for (let index = 0; index < 4; index++) {
    await full.receive("file.begin", begin(`m${index}`, 25_000_000), 0);
  }
  const [[, fifth]] = await full.receive("file.begin", begin("m4", 1), 0);
  assert.equal(fifth.ok, false);
});
