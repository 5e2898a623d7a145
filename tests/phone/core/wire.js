/**
 * The phone's machine and an agent, back to back, and between them a relay that obeys a script.
 *
 * Time stands still unless a test moves it. Everything that a machine puts out is carried out in
 * its order: `store` goes to what counts as the disk, `send` to the relay, which hands it on once
 * `run` is called. A machine can be made to die in front of any of these effects, and comes back
 * from what is on its disk.
 */

import assert from "node:assert/strict";
import * as base64 from "../../../static/phone/core/base64.js";
import { webCrypto } from "../../../static/phone/core/crypto.js";
import { decode, encode } from "../../../static/phone/core/envelope.js";
import { PhoneSession } from "../../../static/phone/core/session.js";
import { Agent } from "./agent.js";
import { hex, utf8 } from "./vectors.js";

export const TOKEN = "oc_pair_000102030405060708090a0b0c0d0e0f";
export const LINK_SECRET = Uint8Array.from({ length: 32 }, (_, n) => 64 + n);
const PHONE = { name: "a phone", version: "2.0", caps: ["files"] };
export const AGENT = { name: "an agent", version: "2.1", caps: ["files", "cancel"] };

/** What handle stands for which bytes, for tests alone. */
const known = new WeakMap();

export const crypto = {
  ...webCrypto,
  async importSecret(bytes) {
    const digits = hex(bytes);
    const handle = await webCrypto.importSecret(bytes);
    known.set(handle, digits);
    return handle;
  },
};

/** Secrets of a phone as text, to compare them with an agent's. */
export function shown({ current, next, link }) {
  const digits = (secret) => secret && (known.get(secret) ?? hex(secret));
  return { current: digits(current), next: digits(next), link };
}

export class Died extends Error {}

/** One end: its machine, its disk, and what the machine has put out. */
class Side {
  events = [];
  connected = false;
  effectsLeft = null;

  constructor(role, stored, { rotate = true } = {}) {
    Object.assign(this, { role, stored, rotate });
    this.rebuild();
  }

  rebuild() {
    this.effectsLeft = null;
    const setting = { token: TOKEN, secrets: this.stored };
    this.machine =
      this.role === "phone"
        ? new PhoneSession({ ...setting, identity: PHONE, crypto })
        : new Agent({
            ...setting,
            identity: AGENT,
            rotate: this.rotate,
            crypto: webCrypto,
          });
  }

  all(kind) {
    return this.events.filter((event) => event.kind === kind);
  }

  take() {
    return this.events.splice(0);
  }

  get opened() {
    return this.all("opened");
  }

  get failures() {
    return this.all("ended").map(({ failure }) => failure);
  }

  get refusals() {
    return this.all("pairing-refused").map(({ failure }) => failure);
  }

  get lost() {
    return this.all("lost").flatMap(({ ids }) => ids);
  }
}

export async function phoneSide(secret = LINK_SECRET) {
  return new Side("phone", { current: await crypto.importSecret(secret), next: null, link: true });
}

export const honest = (_sender, message) => [message];

export class Wire {
  now = 1_000_000;
  relay = honest;
  queue = []; // [receiver's role, message]
  seen = []; // [sender's role, message]
  #numbers = 0;

  static async make({ rotate = true, phone, agent = LINK_SECRET } = {}) {
    const wire = new Wire();
    wire.phone = await phoneSide(phone);
    wire.agent = new Side("agent", { current: agent, next: null, link: true }, { rotate });
    return wire;
  }

  /** Both connect, the agent first, and shake hands. */
  static async meet(setting) {
    const wire = await Wire.make(setting);
    return wire.meet();
  }

  /** Both have exchanged a message, and may shake hands again at once. */
  static async talking() {
    const wire = await Wire.meet();
    await wire.exchange();
    await wire.wait(6);
    wire.phone.take();
    wire.agent.take();
    return wire;
  }

  async meet() {
    await this.connect("agent");
    await this.connect("phone");
    await this.run();
    return this;
  }

  side(role) {
    return role === "phone" ? this.phone : this.agent;
  }

  other(role) {
    return role === "phone" ? this.agent : this.phone;
  }

  async connect(role) {
    const [side, other] = [this.side(role), this.other(role)];
    if (side.connected) {
      await this.disconnect(role, { told: false });
    }
    side.connected = true;
    await this.carryOut(side, side.machine.connected(this.now, { paired: other.connected }));
    if (other.connected) {
      await this.carryOut(other, other.machine.peerOnline(this.now));
    }
  }

  async disconnect(role, { told = true } = {}) {
    const [side, other] = [this.side(role), this.other(role)];
    side.connected = false;
    this.queue = this.queue.filter(([receiver]) => receiver !== role);
    await this.carryOut(side, side.machine.disconnected(this.now));
    if (told && other.connected) {
      await this.carryOut(other, other.machine.peerOffline(this.now));
    }
  }

  /** The process ends, and a new one connects with what is on the disk. */
  async restart(role) {
    const side = this.side(role);
    side.connected = false;
    this.queue = this.queue.filter(([receiver]) => receiver !== role);
    side.rebuild();
    await this.connect(role);
  }

  /** A phone connects, and takes the place of the one that is there. */
  async come(device) {
    if (device !== this.phone) {
      if (this.phone.connected) {
        await this.disconnect("phone", { told: false });
      }
      this.phone = device;
    }
    await this.connect("phone");
  }

  async carryOut(side, promise) {
    for (const event of await promise) {
      if (event.kind === "send" || event.kind === "store") {
        if (side.effectsLeft === 0) {
          throw new Died(side.role);
        }
        side.effectsLeft = side.effectsLeft === null ? null : side.effectsLeft - 1;
      }
      side.events.push(event);
      if (event.kind === "store") {
        side.stored = event.secrets;
      } else if (event.kind === "send" && side.connected) {
        this.#put(side.role, envelope(event.type, event.id, event.payload));
      }
    }
  }

  #put(sender, message) {
    this.seen.push([sender, message]);
    const receiver = this.other(sender);
    if (receiver.connected) {
      for (const arriving of this.relay(sender, message)) {
        this.queue.push([receiver.role, arriving]);
      }
    }
  }

  /** Hand one message to a machine, whoever wrote it. */
  async deliver(role, message) {
    const side = this.side(role);
    await this.carryOut(side, side.machine.receive(message, this.now));
  }

  /** Hand over all that is on its way, and what is said to that. */
  async run() {
    for (let turns = 0; this.queue.length > 0; turns++) {
      assert.ok(turns < 10_000, "the machines do not stop answering each other");
      await this.deliver(...this.queue.shift());
    }
  }

  /** Let seconds pass in steps of a half, with a tick where one is due. */
  async wait(seconds) {
    const end = this.now + seconds * 1000;
    for (;;) {
      for (const side of [this.phone, this.agent]) {
        const { deadline } = side.machine;
        if (side.connected && deadline !== null && deadline <= this.now) {
          await this.carryOut(side, side.machine.tick(this.now));
        }
      }
      await this.run();
      if (this.now >= end) {
        return;
      }
      this.now = Math.min(this.now + 500, end);
    }
  }

  /** Seal a message and put it on the wire; its id. */
  async say(role, { type = role === "phone" ? "chat.send" : "chat.stream", id, payload } = {}) {
    const name = id ?? `${role}-${++this.#numbers}`;
    const side = this.side(role);
    const words = utf8(JSON.stringify(payload ?? { text: `secret ${name}` }));
    const sealed = await side.machine.seal(type, name, words);
    if (side.connected) {
      this.#put(role, envelope(type, name, sealed));
    }
    return name;
  }

  /** The next message of this sender, which is on its way no more. */
  async next(sender) {
    await this.say(sender);
    const [receiver, message] = this.queue.pop();
    assert.notEqual(receiver, sender);
    return message;
  }

  /** A message each way must arrive, as it was sent. */
  async exchange() {
    for (const role of ["phone", "agent"]) {
      const id = await this.say(role);
      await this.run();
      const last = this.other(role).opened.at(-1);
      assert.deepEqual([last?.id, last?.payload], [id, { text: `secret ${id}` }]);
    }
  }

  get talkingNow() {
    return this.phone.machine.ready && this.agent.machine.ready;
  }
}

/** A message as it comes from a WebSocket. */
export function envelope(type, id, payload) {
  return decode(encode({ type, id, ts: 1, payload }));
}

/** The same message with members of its payload replaced; undefined takes one out. */
export function changed({ type, id, payload }, members) {
  return envelope(type, id, { ...payload, ...members });
}

export const isRecord = ({ payload }) => payload.enc === true;

/** The step of a clear key exchange. */
export function stepOf({ type, payload }) {
  return type === "key_exchange" && !payload.enc ? payload.step : null;
}

/** A relay that keeps this step of a handshake for itself. */
export function keeping(step, kept) {
  return (_, message) => {
    if (stepOf(message) !== step) {
      return [message];
    }
    kept.push(message);
    return [];
  };
}

/** A relay that drops what matches, or only the first of it. */
export function dropping(matching, { first = false } = {}) {
  let done = false;
  return (sender, message) => {
    if (done || !matching(sender, message)) {
      return [message];
    }
    done = first;
    return [];
  };
}

export const PUBKEY = { pubkey: base64.encode(new Uint8Array(32).map((_, n) => n)) };
export const STEP_0 = envelope("key_exchange", "0", { v: 2, step: 0 });

/** A relay that hands nothing on. */
export const nothing = () => [];
export const kinds = (events) => events.map(({ kind }) => kind);

/** An error in the clear. */
export function error(code, ref = "", more = {}) {
  return envelope("chat.error", "e", { code, message: "words", ref, ...more });
}

/** The id of the last step 1 that came by. */
export const stepOneId = (wire) => wire.seen.findLast(([, m]) => stepOf(m) === 1)[1].id;
