/** What the machines of both versions take and put out: types alone. */

/** @typedef {import("./crypto.js").Secret} Secret */
/** @typedef {import("./envelope.js").Payload} Payload */
/** @typedef {import("./failures.js").Failure} Failure */

/**
 * Who is at the other end. `verified` means that it holds the secret of the pairing link, which
 * the relay has never seen. `caps` are names of optional abilities.
 * @typedef {{name: string, version: string, caps: string[], protocol: number, verified: boolean}}
 *   PeerInfo
 */

/**
 * What an end says of itself: name and version for people, and its abilities.
 * @typedef {{name: string, version: string, caps: string[]}} Identity
 */

/**
 * The secrets of a pairing. `link` says that `current` is still the one that stands in the link.
 * `next` is the phone's older secret, which it keeps until the agent is known to have taken the
 * new one.
 * @typedef {{current: Secret, next: Secret | null, link: boolean}} Secrets
 */

// What the machines of both versions put out, in the order in which it must be carried out.
/** @typedef {{kind: "send", type: string, id: string, payload: Payload}} Send  onto the wire */
/**
 * A message of the agent. `sealed` tells whether it came encrypted (v1 leaves some clear); `size`
 * is about the bytes of the JSON that `payload` was decoded from.
 * @typedef {{kind: "opened", type: string, id: string, payload: Payload, sealed: boolean,
 *   size: number}} Opened
 */
/** @typedef {{kind: "established", peer: PeerInfo}} Established  messages can be exchanged */
/** @typedef {{kind: "ended", failure: Failure}} Ended  and with it what is unanswered */
/** @typedef {{kind: "gap", first: number, last: number}} Gap  records that never came */
/** @typedef {{kind: "lost", ids: string[]}} Lost  of ours, says the agent */
/**
 * A `chat.error` in the clear: the relay's, or forged; never to be taken as the agent's.
 * @typedef {{kind: "hint", code: string, message: string, ref: string,
 *   retryAfterMs: number | null}} Hint
 */
/** @typedef {{kind: "store", secrets: Secrets}} Store  to write down before what comes behind */
/**
 * The agent does not take our secret, or does not speak our version. Told in the clear, so it may
 * be forged: stop and ask the user, delete nothing.
 * @typedef {{kind: "pairing-refused", failure: Failure}} PairingRefused
 */
/**
 * Something that must not be acted on was dropped. `why` never holds its contents; `type` is that
 * of the message where somebody may be waiting for it.
 * @typedef {{kind: "ignored", why: string, id: string, type?: string}} Ignored
 */
/**
 * @typedef {Send | Opened | Established | Ended | Gap | Lost | Hint | Store | PairingRefused
 *   | Ignored} SessionEvent
 */

export {};
