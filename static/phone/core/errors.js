/**
 * What the library throws. Every text says what happened and what to do next; none holds a
 * secret, a token or what was said. A program chooses by `name`, and by `code` where there is one.
 */

/**
 * The root of everything that is thrown on purpose. `ids` are the ids of the messages that it is
 * about, as far as they are known.
 */
export class CoralmuxError extends Error {
  name = "CoralmuxError";

  /**
   * @param {string} text
   * @param {{ids?: string[]}} [more]
   */
  constructor(text, { ids = [] } = {}) {
    super(text);
    /** @type {string[]} */
    this.ids = ids;
  }
}

/** A link that is none. `part` names what is wrong with it, and never repeats it. */
export class LinkError extends CoralmuxError {
  name = "LinkError";

  /**
   * @param {string} text
   * @param {{part?: string}} [more]
   */
  constructor(text, { part = "" } = {}) {
    super(text);
    this.part = part;
  }
}

/** There is no connection to send on. */
export class NotConnected extends CoralmuxError {
  name = "NotConnected";
}

/** The agent is not connected, or was not known to get the message. */
export class PeerOffline extends CoralmuxError {
  name = "PeerOffline";
}

/**
 * The connection or the session ended before an answer came. Whether the messages in `ids`
 * arrived is not known. Sending again under the same id is safe: an agent takes each id once.
 */
export class ConnectionLost extends CoralmuxError {
  name = "ConnectionLost";
}

/** The agent reports that the message never arrived. */
export class MessageLost extends CoralmuxError {
  name = "MessageLost";
}

/**
 * The relay refused a message, or somebody on the way says so: `code` is RATE_LIMITED,
 * DAILY_QUOTA_EXCEEDED, …; `retryAfterMs` says when it would pass.
 */
export class RelayRefused extends CoralmuxError {
  name = "RelayRefused";

  /**
   * @param {string} text
   * @param {{code: string, retryAfterMs?: number | null, ids?: string[]}} more
   */
  constructor(text, { code, retryAfterMs = null, ids }) {
    super(text, { ids });
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}

/** No answer came in time. */
export class RequestTimeout extends CoralmuxError {
  name = "RequestTimeout";
}

/** The agent answered with an error, and its own words: `code` is BACKEND_ERROR, UNSUPPORTED, … */
export class AgentError extends CoralmuxError {
  name = "AgentError";

  /**
   * @param {string} text
   * @param {{code: string, ids?: string[]}} more
   */
  constructor(text, { code, ids }) {
    super(text, { ids });
    this.code = code;
  }
}

/** Parts of an answer were lost on the way; `text` is the whole of it, which came with its end. */
export class ReplyIncomplete extends CoralmuxError {
  name = "ReplyIncomplete";

  /**
   * @param {string} message
   * @param {{text: string, ids?: string[]}} more
   */
  constructor(message, { text, ids }) {
    super(message, { ids });
    this.text = text;
  }
}

/**
 * The agent does not take this pairing: pair again, or pair otherwise. `failure` is
 * SECRET_REFUSED, NO_VERSION_2, NO_VERSION_1 or NO_ANSWER. Told in the clear, so it may be forged.
 */
export class PairingRefused extends CoralmuxError {
  name = "PairingRefused";

  /**
   * @param {string} text
   * @param {{failure: string, ids?: string[]}} more
   */
  constructor(text, { failure, ids }) {
    super(text, { ids });
    this.failure = failure;
  }
}

/**
 * The relay does not want this phone back: the token is wrong or revoked, or another device took
 * the place. `code` is the close code.
 */
export class Stopped extends CoralmuxError {
  name = "Stopped";

  /**
   * @param {string} text
   * @param {{code: number, ids?: string[]}} more
   */
  constructor(text, { code, ids }) {
    super(text, { ids });
    this.code = code;
  }
}

/** The message is larger than the relay takes; nothing was sent. */
export class MessageTooLarge extends CoralmuxError {
  name = "MessageTooLarge";
}

/** The answer breaks the protocol; the agent has to be mended. */
export class InvalidAnswer extends CoralmuxError {
  name = "InvalidAnswer";
}

/** A file that was not transferred, or is not here (any more); the text says why. */
export class FileError extends CoralmuxError {
  name = "FileError";
}

/**
 * An attachment that cannot be what it says, or cannot be sent. `code` is TOO_LARGE_INLINE (an
 * agent of version 1: scale it down to `phone.maxInlineBytes`), TOO_LARGE, NOT_A_PICTURE,
 * PICTURES_ONLY, NO_FILES or INVALID.
 */
export class AttachmentError extends CoralmuxError {
  name = "AttachmentError";

  /**
   * @param {string} text
   * @param {{code?: string, ids?: string[]}} [more]
   */
  constructor(text, { code = "INVALID", ids } = {}) {
    super(text, { ids });
    this.code = code;
  }
}

/** What is kept cannot be read or written, or is gone; nothing was overwritten. */
export class StoreError extends CoralmuxError {
  name = "StoreError";
}

/** The pairing's secret is not in the store any more: a new link is needed. */
export class SecretLost extends StoreError {
  name = "SecretLost";
}

/**
 * The same error for one more who waits, with ids of its own.
 * @param {CoralmuxError} error
 * @param {string[]} [ids]
 * @returns {CoralmuxError}
 */
export function copied(error, ids = error.ids) {
  const copy = Object.create(Object.getPrototypeOf(error), Object.getOwnPropertyDescriptors(error));
  copy.ids = [...ids];
  return copy;
}
