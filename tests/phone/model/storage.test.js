import assert from "node:assert/strict";
import { test } from "node:test";
import { Storage } from "../../../static/phone/app/storage/database.js";

test("a write that the browser gives no reason for found no room", async () => {
  // So idb-keyval reports a put that failed: its transaction has no error yet.
  const storage = new Storage(() => Promise.reject(null), {});
  await assert.rejects(storage.remove("page:p:d:000000"), { name: "StoreError", code: "full" });
});
