import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { webCrypto } from "../../../static/phone/core/crypto.js";
import { LinkError } from "../../../static/phone/core/errors.js";
import { PairingLink } from "../../../static/phone/core/link.js";
import { bytes, hex, vectors } from "./vectors.js";

const { good, bad } = vectors("links");
const TOKEN = "oc_pair_0123456789abcdef0123456789abcdef";
const SECRET = new Uint8Array(32).fill(7);
const RELAY = "wss://relay.example.com/ws";

/** What is wrong with a text, or "" where it is a link. */
function wrong(text, setting) {
  try {
    PairingLink.parse(text, setting);
    return "";
  } catch (error) {
    assert.ok(error instanceof LinkError, `${error}`);
    return error.part;
  }
}

test("links of every form are read, and made alike", () => {
  for (const { why, text, relay, token, secret, web, uri } of good) {
    const link = PairingLink.parse(text);
    const read = [link.relay, link.token, link.secret && hex(link.secret), link.web(), link.uri()];
    assert.deepEqual(read, [relay, token, secret, web, uri], why);
    assert.equal(PairingLink.parse(link.web()).uri(), uri, why);
  }
});

test("a bad link is refused by the part that is wrong", () => {
  for (const { why, text, part } of bad) {
    assert.equal(wrong(text), part, `${part}: ${why}`);
  }
});

test("a fragment is read together with the page that it was taken from", () => {
  const fragment = new PairingLink({ relay: RELAY, token: TOKEN, secret: SECRET }).web().slice(31);
  assert.ok(fragment.startsWith("#token="));
  for (const page of [
    "https://relay.example.com/phone",
    { href: "https://relay.example.com/phone#x" },
  ]) {
    const link = PairingLink.parse(fragment, { page });
    assert.deepEqual([link.relay, link.token, link.secret], [RELAY, TOKEN, SECRET]);
  }
  assert.equal(wrong(fragment), "scheme");
  assert.equal(wrong(fragment, { page: "https://relay.example.com/login" }), "form");
});

test("no damage of a character raises anything else, nor makes a link of another secret", () => {
  for (const text of [good[0].text, good[0].uri]) {
    const { secret } = PairingLink.parse(text);
    for (let position = 0; position < text.length; position++) {
      for (const damage of ["", "%", "&", "#", "?", "=", "\0", "\ud800", "é", "A", "[", "@"]) {
        const damaged = text.slice(0, position) + damage + text.slice(position + 1);
        if (wrong(damaged) === "" && damage !== "A") {
          const other = PairingLink.parse(damaged).secret;
          assert.ok(other === null || hex(other) === hex(secret), damaged);
        }
      }
    }
  }
});

test("a link cut off anywhere behind its token never passes for one without a secret", () => {
  const text = good[0].text;
  const end = text.indexOf("&psk=");
  for (let length = end + 1; length < text.length; length++) {
    assert.notEqual(wrong(text.slice(0, length)), "", text.slice(0, length));
  }
});

test("what is no field is a cut in our forms, and nothing in the field's", () => {
  const fields = `relay=wss%3A%2F%2Frelay.example.com&token=${TOKEN}`;
  assert.equal(wrong(`coralmux://pair?${fields}`), "");
  assert.equal(wrong(`coralmux://pair?${fields}&`), "form");
  assert.equal(wrong(`coralmux://pair?ps&${fields}`), "form");
  assert.equal(wrong(`openclaw://pair?ps&${fields}&`), "");
});

test("a relay's address is told from what is no link at all", () => {
  const said = (text) => assert.throws.bind(null, () => PairingLink.parse(text));
  for (const text of ["ws://relay.example.com", "WSS://relay.example.com/ws"]) {
    said(text)(/address of a relay, not a pairing link/);
  }
  for (const text of ["ftp://relay.example.com", "relay.example.com", "constructor:a", ""]) {
    said(text)(/begins with https:/);
  }
});

test("IPv6 addresses have one spelling, and what is none is refused", () => {
  const spellings = {
    "1:2:3:4:5:6:7:8": "1:2:3:4:5:6:7:8",
    "1:0:0:4:0:0:0:8": "1:0:0:4::8",
    "0:0:0:0:0:0:0:0": "::",
    "1::": "1::",
    "::255.255.255.255": "::ffff:ffff",
    "::1": "::1",
    "1:2:3:4:5:6:7::": "1:2:3:4:5:6:7:0",
    "1:0:3:4:5:6:7:8": "1:0:3:4:5:6:7:8",
    "1:0:0:4:5:0:0:8": "1::4:5:0:0:8",
    "64:ff9b::192.0.2.1": "64:ff9b::c000:201",
  };
  for (const [written, spelt] of Object.entries(spellings)) {
    const link = PairingLink.parse(`http://[${written}]/phone#token=${TOKEN}`);
    assert.equal(link.host, `[${spelt}]`);
  }
  const none = ["", ":", ":::", "1", "1::2::3", "1:2:3:4:5:6:7:8:9", "1:2:3:4::5:6:7:8", "12345::"];
  none.push(
    ":1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:",
    "::1.2.3",
    "::1.2.3.256",
    "1.2.3.4::",
    "::01.2.3.4",
  );
  for (const text of [...none, "::g", "::1%eth0", "::1%25eth0"]) {
    assert.equal(wrong(`http://[${text}]/phone#token=${TOKEN}`), "relay", text);
  }
});

test("a megabyte is refused at once", () => {
  for (const text of ["a", " ", "é", "&", "%41", "1.", ":"]) {
    const began = performance.now();
    assert.notEqual(wrong(text.repeat(1_000_000)), "");
    assert.notEqual(wrong(`https://${text.repeat(1_000)}/phone#token=${TOKEN}`), "");
    assert.ok(performance.now() - began < 500);
  }
});

test("a token or a secret that could not be used is refused", () => {
  const values = { relay: RELAY, token: TOKEN };
  const made = (more) => {
    try {
      return new PairingLink({ ...values, ...more });
    } catch (error) {
      return error.part;
    }
  };
  assert.ok(made({}) instanceof PairingLink);
  for (const token of ["", "a b", "é", "a\n", "a".repeat(257)]) {
    assert.equal(made({ token }), "token");
  }
  for (const secret of [new Uint8Array(31), new Uint8Array(33), "a".repeat(32), [], undefined]) {
    assert.equal(made({ secret }) instanceof PairingLink, secret === undefined);
  }
});

test("a link shows neither token nor secret", () => {
  const link = PairingLink.parse(good[0].text);
  const shown = [String(link), JSON.stringify({ link }), inspect(link, { showHidden: true })];
  for (const text of [...shown, inspect([{ link }], { depth: 9 }), JSON.stringify({ ...link })]) {
    assert.ok(!text.includes(TOKEN.slice(8, 20)) && !text.includes("AAEC"), text);
    assert.ok(!text.includes("0, 1, 2") && !text.includes("00 01"), text);
  }
});

test("an error repeats nothing of the link it is about", () => {
  for (const { text } of bad) {
    try {
      PairingLink.parse(text);
    } catch (error) {
      assert.ok(!error.message.includes("oc_pair_0") && !error.message.includes("AAECAw"));
      assert.equal(error.cause, undefined);
    }
  }
});

test("a link names its pairing by the hash of its token", async () => {
  const link = new PairingLink({ relay: RELAY, token: TOKEN });
  const hash = await webCrypto.sha256(new TextEncoder().encode(TOKEN));
  assert.equal(await link.id(webCrypto), hex(hash).slice(0, 16));
  assert.equal(await link.withSecret(SECRET).id(webCrypto), await link.id(webCrypto));
  assert.deepEqual(link.withSecret(SECRET).secret, bytes("07".repeat(32)));
});
