/** What can go wrong between the two ends. */

/** Why a session, a handshake or a pairing ended: name → a sentence for people. */
export const FAILURES = Object.freeze({
  REPLAYED: "A record came twice, or later than one that was sent after it.",
  TAMPERED: "A record was changed on its way.",
  EXHAUSTED: "The session has sealed as many records as its keys may.",
  CONNECTION_ENDED: "The connection that the session belonged to ended.",
  SUPERSEDED: "A new session took the old one's place.",
  PEER_ENDED: "The other end gave the session up.",
  NO_ANSWER:
    "The agent is connected and does not answer the handshake: it may be too old for pairing " +
    "secrets (version 2), or stuck. Update or restart it.",
  // The next two are told in the clear, by whoever likes to: no reason to give anything up.
  SECRET_REFUSED:
    "It looks as if the agent did not know this link's secret: the link was used before, on " +
    "another device perhaps, or belongs to another pairing; or somebody on the way may be " +
    "lying. Make a new link on the agent's side and pair again.",
  NO_VERSION_2:
    "It looks as if the agent could not encrypt with a pairing secret (version 2); or somebody " +
    "on the way may be lying. Update the agent, then make a new link there and pair again.",
  NO_VERSION_1:
    "The other end has a pairing secret and takes nothing without it. Pair by its link instead " +
    "of the token alone.",
});

/** @typedef {keyof typeof FAILURES} Failure */

/**
 * A record or handshake message must not be trusted; `failure` says why. The text never holds
 * keys, secrets or what a message says.
 */
export class E2EError extends Error {
  name = "E2EError";

  /** @param {Failure} failure */
  constructor(failure) {
    super(FAILURES[failure]);
    this.failure = failure;
  }
}

/** There is no session to seal a message with; wait for the event `established`. */
export class NotReady extends Error {
  name = "NotReady";
}
