/** What the tests of the library play on: tests/phone/core_stage.py, asked over TCP. */

import { once } from "node:events";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { MemoryStore, Phone } from "../../../static/phone/core/index.js";

const PORT = Number(process.env.CORALMUX_STAGE ?? 0);

/** For `test`: without relays there is nothing to play on. pytest sees to it that there are. */
export const onStage = PORT ? {} : { skip: "run by pytest, tests/phone/test_core.py" };

// Whoever lost its connection is back in a moment.
export const TIMERS = { firstPause: 50, longestPause: 300, restartPause: 100, laterPause: 300 };

/** Ask for something to be done; what comes of it. */
export async function please(what, how = {}) {
  const socket = connect(PORT, "127.0.0.1");
  await once(socket, "connect");
  socket.write(`${JSON.stringify({ do: what, ...how })}\n`);
  const { result, error } = JSON.parse(await text(socket));
  if (error) throw new Error(`${what}: ${error}`);
  return result;
}

/** A phone that is connected until the end of the test; `states` is what it was. */
export function phoneFor(t, { link }, options = {}) {
  const phone = new Phone(link, { store: new MemoryStore(), timers: TIMERS, ...options });
  t.after(() => phone.close());
  phone.states = [];
  phone.addEventListener("state", ({ detail }) => phone.states.push(detail.state.kind));
  phone.connect();
  return phone;
}

/** The next event of this type, or the first that is good. */
export function event(target, type, good = () => true) {
  return new Promise((resolve) => {
    const listen = ({ detail }) => {
      if (!good(detail)) return;
      target.removeEventListener(type, listen);
      resolve(detail);
    };
    target.addEventListener(type, listen);
  });
}

/** Once the phone's state is this one; it. */
export async function state(phone, kind) {
  if (phone.state.kind !== kind)
    await event(phone, "state", (detail) => detail.state.kind === kind);
  return phone.state;
}

/** The deltas, and the end. */
export async function whole(answer) {
  const deltas = [];
  for await (const delta of answer) deltas.push(delta);
  return { deltas, ...(await answer.finished) };
}

export function counted(number) {
  return Array.from({ length: number }, (_, index) => `${index} `).join("");
}
