/** The library's public names; docs/javascript.md tells how to use them. */

export { Answer } from "./answer.js";
export { DEFAULT_TIMERS } from "./backoff.js";
export { CryptoUnavailable, supported, webCrypto } from "./crypto.js";
export { newId } from "./envelope.js";
export {
  AgentError,
  AttachmentError,
  ConnectionLost,
  CoralmuxError,
  FileError,
  InvalidAnswer,
  LinkError,
  MessageLost,
  MessageTooLarge,
  NotConnected,
  PairingRefused,
  PeerOffline,
  RelayRefused,
  ReplyIncomplete,
  RequestTimeout,
  SecretLost,
  Stopped,
  StoreError,
} from "./errors.js";
export { PairingLink } from "./link.js";
export { MemoryStore } from "./memory.js";
export { Phone } from "./phone.js";
