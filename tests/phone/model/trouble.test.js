import assert from "node:assert/strict";
import { test } from "node:test";
import { StoreError } from "../../../static/phone/core/errors.js";
import { Pairing, Phone, pause, quiet, Storage } from "./stage.js";

const blocked = () => Object.assign(new StoreError("blocked"), { code: "blocked" });

/** Fails to read, or to remove, what `bad` names. */
class Faulty extends Storage {
  bad = "";

  async read(name) {
    this.#check(name);
    return await super.read(name);
  }

  async remove(...names) {
    for (const name of names) this.#check(name);
    await super.remove(...names);
  }

  #check(name) {
    if (this.bad && name.startsWith(this.bad)) throw blocked();
  }
}

function message(id, text, fields = {}) {
  return { id, role: "user", text, at: 1, state: "done", ...fields };
}

test("a page that could not be read is not called kept", async () => {
  const storage = new Faulty();
  storage.put([message("a", "old", { state: "waiting" })]);
  storage.bad = "page:";
  const { conversation } = new Pairing(storage, new Phone());
  await conversation.load();
  storage.bad = "";
  conversation.send("new");
  await quiet();
  assert.deepEqual(storage.texts, ["old", "new"]);
  assert.equal(await conversation.keepAgain(), false);
});

test("a draft that could not be read is read as soon as that goes", async () => {
  const storage = new Faulty();
  storage.kept.set("draft:p:d", '"before"');
  storage.bad = "draft:";
  const { conversation } = new Pairing(storage, new Phone());
  await conversation.load();
  assert.equal(conversation.draft, "");
  storage.bad = "";
  assert.equal(await conversation.keepAgain(), true);
  assert.equal(conversation.draft, "before");
  conversation.draft = "later";
  await conversation.flush();
  assert.equal(storage.kept.get("draft:p:d"), '"later"');
});

test("what was typed instead of a draft that cannot be read is kept", async () => {
  const storage = new Faulty();
  storage.kept.set("draft:p:d", '"before"');
  storage.bad = "draft:";
  const { conversation } = new Pairing(storage, new Phone());
  await conversation.load();
  conversation.draft = "typed";
  await conversation.flush();
  assert.equal(storage.kept.get("draft:p:d"), '"typed"');
});

test("pictures go with their messages, also where these go late", async () => {
  const storage = new Faulty();
  const picture = { id: "one", name: "a.png", type: "image/png", size: 1 };
  storage.put([message("a", "look", { pictures: [picture] })]);
  const pairing = new Pairing(storage, new Phone());
  const removed = [];
  pairing.pictures.remove = async (ids) => removed.push(...ids);
  const { conversation } = pairing;
  await conversation.load();
  storage.bad = "page:";
  assert.equal(await conversation.clear(), false);
  assert.deepEqual([storage.texts, removed], [["look"], []]);
  storage.bad = "";
  assert.equal(await conversation.keepAgain(), true);
  assert.deepEqual([storage.texts, removed], [[], ["one"]]);
});

test("what could not even be looked for is deleted later", async () => {
  const storage = new Faulty();
  storage.put([message("a", "old")]);
  const { conversation } = new Pairing(storage, new Phone());
  await conversation.load();
  const { names } = storage;
  storage.names = async () => {
    throw blocked();
  };
  assert.equal(await conversation.clear(), false);
  storage.names = names;
  assert.equal(await conversation.keepAgain(), true);
  assert.deepEqual(storage.texts, []);
});

test("a tab that loses its place while it reads deletes nothing any more", async () => {
  const storage = new Storage();
  const answer = message("b", "answer", { role: "agent", refId: "a" });
  storage.put([message("a", "question")], [answer, message("c", "more")]);
  const pairing = new Pairing(storage, new Phone());
  const { conversation } = pairing;
  await conversation.load();
  storage.delay = 30;
  const removing = conversation.remove(conversation.messages[0]);
  await pause(5);
  pairing.elsewhere = true;
  await removing;
  await quiet();
  assert.deepEqual(storage.texts, ["question", "answer", "more"]);
});
