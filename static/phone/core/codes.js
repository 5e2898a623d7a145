/** Codes and numbers of the contract, as both ends and the relay know them. See PROTOCOL.md. */

/** WebSocket close codes that the relay uses; those from 4000 are ours. */
export const CloseCode = Object.freeze({
  NORMAL: 1000,
  PROTOCOL_ERROR: 1002,
  NOT_UTF8: 1007,
  TOO_LARGE: 1009,
  RELAY_ERROR: 1011,
  RESTARTING: 1012,
  TRY_LATER: 1013,
  UNAUTHORIZED: 4001,
  REPLACED: 4002,
  REVOKED: 4003,
  AUTH_TIMEOUT: 4004,
  TOO_SLOW: 4008,
  TOO_MANY_FAILURES: 4029,
});

/** Codes of `chat.error` and `auth.fail`. */
export const ErrorCode = Object.freeze({
  UNAUTHORIZED: "UNAUTHORIZED",
  PEER_OFFLINE: "PEER_OFFLINE",
  RATE_LIMITED: "RATE_LIMITED",
  DAILY_QUOTA_EXCEEDED: "DAILY_QUOTA_EXCEEDED",
  MONTHLY_QUOTA_EXCEEDED: "MONTHLY_QUOTA_EXCEEDED",
  MESSAGE_TOO_LARGE: "MESSAGE_TOO_LARGE",
  INVALID_MESSAGE: "INVALID_MESSAGE",
  BACKEND_ERROR: "BACKEND_ERROR",
});

/** Codes of a `chat.error` that one end sends the other; the relay knows none of them. */
export const PeerCode = Object.freeze({
  /** Came in the clear, or in version 1, where version 2 is due. */
  E2E_REQUIRED: "E2E_REQUIRED",
  /** The secret of a handshake is not known. */
  E2E_REFUSED: "E2E_REFUSED",
  /** A record cannot be trusted: the session is over. */
  E2E_FAILED: "E2E_FAILED",
  /** Records `from` to `to` never came. */
  E2E_GAP: "E2E_GAP",
  /** Nobody handles this request. */
  UNSUPPORTED: "UNSUPPORTED",
  /** A request with this id came before. */
  DUPLICATE: "DUPLICATE",
  /** No running chat has the id that is to be cancelled. */
  UNKNOWN_REF: "UNKNOWN_REF",
});

/**
 * What a relay says itself. Phones take it in the clear, as a hint that anybody on the way may
 * have forged; BACKEND_ERROR is the agent's word and comes sealed.
 * @type {ReadonlySet<unknown>}
 */
export const RELAY_CODES = new Set(
  Object.values(ErrorCode).filter((code) => code !== ErrorCode.BACKEND_ERROR),
);

/** Bytes of one WebSocket message. */
export const MAX_MESSAGE_BYTES = 5 * 1024 * 1024;

/** Key exchanges a minute that the relay forwards. */
export const KEY_EXCHANGES_PER_MINUTE = 30;

/** Bytes (UTF-8) of an id that an error repeats as `ref`. */
export const MAX_REF_BYTES = 128;

/** Counters stop in front of this: beyond it JavaScript's numbers are not exact. */
export const MAX_COUNTER = 2 ** 53;

/**
 * Milliseconds that a relay is believed to ask for: longer than a month, after which quotas begin
 * anew, and short enough for the dates of JavaScript.
 */
export const MAX_RETRY_AFTER_MS = 32 * 86_400_000;

/** Bytes of a file in one `file.chunk`. */
export const FILE_CHUNK_BYTES = 64 * 1024;

/** Chunks on their way that nobody has acknowledged yet. */
export const FILE_WINDOW = 4;

/** Bytes of one file that a receiver takes unless told otherwise. */
export const MAX_FILE_BYTES = 25_000_000;

/** Ids that a receiver remembers, to drop what comes again. */
export const SEEN_IDS = 1024;

const NAMESPACES = ["chat.", "agent.", "group.", "system.", "memory.", "file."];

/**
 * Whether the relay forwards messages of this type from an agent; the rest it says itself.
 * @param {string} type
 */
export function forwarded(type) {
  return type === "key_exchange" || NAMESPACES.some((namespace) => type.startsWith(namespace));
}
