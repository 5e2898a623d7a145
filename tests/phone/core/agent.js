/**
 * The agent's side of version 2 as PROTOCOL.md has it, for tests of the phone's: written anew on
 * Noise and records alone, so that the phone's machine meets another than itself.
 */

import * as base64 from "../../../static/phone/core/base64.js";
import { decodeObject } from "../../../static/phone/core/envelope.js";
import { E2EError } from "../../../static/phone/core/failures.js";
import { prologue } from "../../../static/phone/core/initiator.js";
import { HandshakeState } from "../../../static/phone/core/noise.js";
import { Records, read } from "../../../static/phone/core/records.js";
import { hex, utf8 } from "./vectors.js";

/** Secrets are bytes here: {current, next, link}. */
export class Agent {
  records = null;
  ready = false;
  deadline = null;
  #pending = null;
  #answered = new Set();
  #replaced = new Set();
  #asked = Number.NEGATIVE_INFINITY;
  #online = false;

  constructor({ token, secrets, identity, rotate, crypto }) {
    Object.assign(this, { token, secrets, identity, rotate, crypto });
  }

  async connected(now, { paired }) {
    return paired ? this.peerOnline(now) : [];
  }

  async peerOnline(now) {
    this.#online = true;
    this.#wait(now + 10_000);
    return [];
  }

  async peerOffline() {
    this.#online = false;
    this.#pending = this.deadline = null;
    return this.#end("CONNECTION_ENDED");
  }

  async disconnected() {
    return this.peerOffline();
  }

  async tick(now) {
    this.deadline = null;
    return this.#online && !this.records ? this.#ask(now) : [];
  }

  async seal(type, id, payload) {
    return this.records.seal(type, id, payload);
  }

  refused(id) {
    this.records?.refused(id);
  }

  async receive({ type, id, payload }, now) {
    const record = read(payload);
    if (record === null) {
      if (type === "key_exchange" && payload.v === 2 && payload.step === 1) {
        return this.#step1(payload, id, now);
      }
      const report = { code: "E2E_REQUIRED", message: "", ref: id };
      return this.records && type !== "chat.error" && type !== "key_exchange"
        ? [await this.#sealed(this.records, "chat.error", report)]
        : [];
    }
    if (this.records?.hs !== record.hs) {
      return this.#foreign(record, type, id, now);
    }
    const keys = this.records;
    const expected = keys.receiving.n;
    let plaintext;
    try {
      plaintext = await keys.open(type, id, record.n, record.ciphertext);
    } catch (error) {
      const report = { code: "E2E_FAILED", message: "", failure: error.failure };
      const told = await this.#sealed(keys, "chat.error", report);
      return [told, ...this.#end(error.failure), ...this.#ask(now)];
    }
    const events = [];
    if (record.n > expected) {
      const report = { code: "E2E_GAP", message: "", from: expected, to: record.n - 1 };
      events.push(await this.#sealed(keys, "chat.error", report), { kind: "gap" });
    }
    const opened = decodeObject(plaintext);
    if (type === "chat.error" && opened.code === "E2E_FAILED") {
      return [...events, ...this.#end("PEER_ENDED"), ...this.#ask(now)];
    }
    if (type === "chat.error" && opened.code === "E2E_GAP") {
      return [...events, { kind: "lost", ids: keys.lost(opened.from, opened.to) }];
    }
    return [...events, { kind: "opened", type, id, payload: opened }];
  }

  #ask(now) {
    if (now < this.#asked + 5_000) {
      this.#wait(this.#asked + 5_000);
      return [];
    }
    this.#asked = now;
    this.#wait(now + 10_000);
    return [this.#send("key_exchange", { v: 2, step: 0 })];
  }

  #wait(until) {
    if (!this.records && this.#answered.size > 0) {
      this.deadline = until;
    }
  }

  async #step1({ hs, noise }, id, now) {
    if (this.#answered.has(hs)) {
      return [];
    }
    const { current, next } = this.secrets;
    for (const secret of next ? [current, next] : [current]) {
      // Drawn before all else, as the vectors have it.
      const pair = await this.crypto.generateKeyPair();
      const handshake = new HandshakeState({
        initiator: false,
        prologue: await prologue(this.crypto, this.token, base64.decodeUrl(hs, 16)),
        psk: await this.crypto.importSecret(secret),
        crypto: { ...this.crypto, generateKeyPair: async () => pair },
      });
      try {
        await handshake.readMessage(base64.decode(noise));
      } catch (error) {
        if (error instanceof E2EError) {
          continue;
        }
        throw error;
      }
      return this.#step2(handshake, hs, secret, now);
    }
    return [this.#send("chat.error", { code: "E2E_REFUSED", message: "", ref: id })];
  }

  async #step2(handshake, hs, secret, now) {
    const payload = { ...this.identity };
    const events = [];
    let agreed = secret;
    if (this.rotate && this.secrets.link && hex(secret) === hex(this.secrets.current)) {
      agreed = this.crypto.randomBytes(32);
      payload.next_psk = base64.encodeUrl(agreed);
      this.secrets = { current: secret, next: agreed, link: true };
      events.push({ kind: "store", secrets: this.secrets });
    }
    const noise = base64.encode(await handshake.writeMessage(utf8(JSON.stringify(payload))));
    this.#answered.add(hs);
    this.#wait(now + 10_000);
    const [receiving, sending] = handshake.split();
    this.#pending = { keys: new Records(hs, sending, receiving), agreed };
    return [...events, this.#send("key_exchange", { v: 2, step: 2, hs, noise })];
  }

  async #foreign(record, type, id, now) {
    if (record.hs !== this.#pending?.keys.hs) {
      return this.records && this.#replaced.has(record.hs) ? [] : this.#ask(now);
    }
    const { keys, agreed } = this.#pending;
    this.#pending = null;
    try {
      if (record.n !== 0 || type !== "key_exchange") {
        throw new E2EError("TAMPERED");
      }
      this.peer = decodeObject(await keys.open(type, id, 0, record.ciphertext));
    } catch {
      const report = { code: "E2E_FAILED", message: "", failure: "TAMPERED" };
      return [await this.#sealed(keys, "chat.error", report)];
    }
    const events = [];
    if (this.secrets.link && this.secrets.next && hex(agreed) === hex(this.secrets.next)) {
      this.secrets = { current: agreed, next: null, link: false };
      events.push({ kind: "store", secrets: this.secrets });
      events.push(await this.#sealed(keys, "key_exchange", { step: 4 }));
    }
    this.#replaced.add(this.records?.hs);
    events.push(...this.#end("SUPERSEDED"), { kind: "established" });
    this.records = keys;
    this.ready = true;
    this.deadline = null;
    return events;
  }

  #end(failure) {
    const events = this.records ? [{ kind: "ended", failure }] : [];
    this.records = null;
    this.ready = false;
    return events;
  }

  #send(type, payload) {
    const id = base64.encodeUrl(this.crypto.randomBytes(12));
    return { kind: "send", type, id, payload };
  }

  async #sealed(keys, type, payload) {
    const id = base64.encodeUrl(this.crypto.randomBytes(12));
    const sealed = await keys.seal(type, id, utf8(JSON.stringify(payload)));
    return { kind: "send", type, id, payload: sealed };
  }
}
