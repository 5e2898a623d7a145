/** A WebSocket in this process, and behind it a relay with an agent of version 1. */

import * as base64 from "../../../static/phone/core/base64.js";
import { webCrypto } from "../../../static/phone/core/crypto.js";
import { decode, encode } from "../../../static/phone/core/envelope.js";
import { deriveKey, openPayload, sealPayload } from "../../../static/phone/core/legacy.js";

const utf8 = new TextEncoder();

/** A class of sockets; `sockets` are those that were made, `asked(agent, question)` answers. */
export function sockets(asked = () => {}) {
  const made = [];
  return class Socket {
    static sockets = made;
    readyState = 0;
    bufferedAmount = 0; // survives the end, as the standard has it
    sent = [];
    #key = null;

    constructor() {
      made.push(this);
      queueMicrotask(() => {
        this.readyState = 1;
        this.onopen?.();
      });
    }

    async send(text) {
      const message = decode(text);
      this.sent.push(message);
      const { type, id, payload } = message;
      if (type === "auth") this.say("auth.ok", { paired: true });
      if (type === "key_exchange") await this.#agree(payload.pubkey);
      if (type === "chat.send") {
        const opened = await openPayload(webCrypto, [this.#key], payload);
        await asked(this, { id, ...JSON.parse(new TextDecoder().decode(opened)) });
      }
    }

    async #agree(pubkey) {
      if (this.#key) return;
      const { publicKey, privateKey } = await webCrypto.generateKeyPair();
      this.#key = await deriveKey(webCrypto, privateKey, base64.decode(pubkey));
      this.say("key_exchange", { pubkey: base64.encode(publicKey) });
    }

    /** A message in the clear comes. */
    say(type, payload, id = "") {
      this.onmessage?.({ data: encode({ type, id, payload }) });
    }

    /** A message comes that the agent has sealed. */
    async seal(type, payload) {
      this.say(type, await sealPayload(webCrypto, this.#key, utf8.encode(JSON.stringify(payload))));
    }

    /** The other end closes it. */
    break() {
      this.readyState = 3;
      this.onclose?.({ code: 1006 });
    }

    close() {
      this.readyState = 3;
    }
  };
}
