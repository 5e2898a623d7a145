import assert from "node:assert/strict";
import { test } from "node:test";
import {
  checked,
  fromInline,
  maxInlineBytes,
  opened,
  safeName,
  sniff,
} from "../../../static/phone/core/attachments.js";
import { encode } from "../../../static/phone/core/base64.js";

const bytes = (latin1) => new Uint8Array(Buffer.from(latin1, "latin1"));
const PNG = bytes("\x89PNG\r\n\x1a\nrest");

test("a picture is known by its bytes, whatever it is called", () => {
  const pictures = {
    "image/png": "\x89PNG\r\n\x1a\n",
    "image/jpeg": "\xff\xd8\xff\xe0",
    "image/gif": "GIF89a",
    "image/webp": "RIFF\x10\0\0\0WEBPVP8 ",
    "image/bmp": `BM\x10\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0`,
    "image/tiff": "II*\0",
    "image/avif": "\0\0\0\x18ftypmif1\0\0\0\0mif1avif",
    "image/heic": "\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "application/pdf": "%PDF-1.7",
  };
  for (const [type, begin] of Object.entries(pictures)) {
    assert.equal(sniff(bytes(begin)), type);
    assert.equal(checked(bytes(begin), "", "x").type, type);
  }
  for (const begin of ["", "BMW is a car", "\0\0\0\x18ftypisom\0\0\0\0avif", "<svg/>", "\x89PN"]) {
    assert.equal(sniff(bytes(begin)), null, begin);
    assert.throws(() => checked(bytes(begin), "image/png", "x"), { code: "NOT_A_PICTURE" });
  }
  assert.throws(() => checked(PNG, "image/jpeg", "x"), { code: "NOT_A_PICTURE" });
  assert.equal(checked(PNG, "IMAGE/X-PNG; a=b", "x").type, "image/png");
  assert.throws(() => checked(PNG, "no type", "x"), { code: "INVALID" });
});

test("a name is bare, and safe to show and to write", () => {
  const names = {
    "../../etc/passwd": "passwd",
    "C:\\Users\\me\\cat.png": "cat.png",
    "cat\u202egnp.exe": "catgnp.exe",
    "a\0b\nc\ud800\u2028.txt": "abc.txt",
    "name. . ": "name",
    "x:y": "x_y",
    "": "file",
    "..": "file",
    "folder/": "folder",
    고양이: "고양이",
  };
  for (const [name, safe] of Object.entries(names)) assert.equal(safeName(name), safe);
  const long = safeName(`${"고".repeat(300)}.jpeg`);
  assert.ok(Buffer.byteLength(long) <= 200 && Buffer.byteLength(long) > 180);
  assert.ok(long.endsWith("고.jpeg"));
});

test("an attachment inside a message is read as what it is, and no url but http is passed on", () => {
  const inline = (more) => fromInline({ type: "image", content_b64: encode(PNG), ...more });
  assert.equal(inline({ mime_type: "image/jpeg" }).type, "image/png");
  assert.throws(() => inline({ content_b64: encode(bytes("text")) }), { code: "NOT_A_PICTURE" });
  for (const content_b64 of ["====", "a b", "YQ", 5, null]) {
    assert.throws(() => inline({ content_b64 }), { name: "AttachmentError" });
  }
  const remote = { mime_type: "image/png", url: "https://example.com/a.png" };
  const read = { name: "", type: "image/png", url: "https://example.com/a.png" };
  assert.deepEqual(fromInline(remote), read);
  assert.deepEqual(fromInline({ ...remote, name: "../reef.png" }), { ...read, name: "reef.png" });
  for (const url of [
    "javascript:alert(1)",
    "data:text/html,x",
    "https://a b",
    "https://\n",
    "//a",
  ]) {
    assert.throws(() => fromInline({ url }), { name: "AttachmentError" });
  }
});

test("what is too large is refused before it is read", async () => {
  const data = { size: 25_000_001, arrayBuffer: () => assert.fail("it was read") };
  await assert.rejects(opened({ name: "a", type: "text/plain", data }), { code: "TOO_LARGE" });
  assert.equal(maxInlineBytes(100), 0);
  assert.ok(maxInlineBytes() < (5 * 1024 * 1024 * 9) / 16);
});
