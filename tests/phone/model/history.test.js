import assert from "node:assert/strict";
import { test } from "node:test";

import { answerTo } from "../../../static/phone/app/model/history.js";
import { Message } from "../../../static/phone/app/model/message.js";

const user = (content) => ({ role: "user", content });
const agent = (content) => ({ role: "assistant", content });

/** A conversation: ["question", "answer", …]; null stands for an answer that is not here. */
function conversation(...texts) {
  return texts.flatMap((text, index) => {
    const role = index % 2 ? "agent" : "user";
    return text === null ? [] : [new Message({ id: `${index}`, role, text, state: "done" })];
  });
}

test("an answer is found behind its question", () => {
  const here = conversation("a", "A", "b", null);
  assert.equal(answerTo([user("a"), agent("A"), user("b"), agent("B")], here[2], here), "B");
  assert.equal(answerTo([user("a"), agent("A"), user("b")], here[2], here), null);
  assert.equal(answerTo([user("a"), agent("A")], here[2], here), null);
  assert.equal(answerTo([], here[2], here), null);
});

test("of questions that are the same each has its own answer", () => {
  const here = conversation("go on", "one", "go on", null, "go on", "three");
  const entries = [user("go on"), agent("one"), user("go on"), agent("two"), user("go on")];
  assert.equal(answerTo([...entries, agent("three")], here[2], here), "two");
});

test("the answer to the same question before is not taken for one that is not there yet", () => {
  const here = conversation("go on", "one", "go on", null);
  assert.equal(answerTo([user("go on"), agent("one")], here[2], here), null);
});

test("an agent that forgot what was before is believed", () => {
  const here = conversation("go on", "one", "go on", null);
  assert.equal(answerTo([user("go on"), agent("two")], here[2], here), "two");
});

test("the same answer to the same question is taken where the agent remembers both", () => {
  const here = conversation("hi", "Hello!", "hi", null);
  const entries = [user("hi"), agent("Hello!"), user("hi"), agent("Hello!")];
  assert.equal(answerTo(entries, here[2], here), "Hello!");
});

test("a question that waits does not count as asked", () => {
  const here = conversation("go on", null);
  const waiting = new Message({ id: "w", role: "user", text: "go on", state: "waiting" });
  const entries = [user("go on"), agent("one")];
  assert.equal(answerTo(entries, here[0], [...here, waiting]), "one");
});
