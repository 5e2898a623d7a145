/** The one thing to say about a pairing's connection. */

/** @typedef {"connecting" | "offline" | "reconnecting" | "replaced" | "elsewhere-tab" | "revoked"
 *   | "refused" | "no-answer" | "lost" | "quota" | "rate-limit" | "agent-offline" | "storage"
 *   | "unauthorized"} Kind */

/**
 * `until` is the time (Unix milliseconds) at which something happens by itself, `action` what the
 * user can do: reconnect at once, take the place back, or pair again. `code` tells more: why a
 * pairing was refused, which quota is used up, what is wrong with the storage.
 * @typedef {{kind: Kind, until?: number, action?: "now" | "here" | "pair-again", code?: string}} Banner
 */

/** What keeps messages back although the agent is there.
 * @typedef {{kind: "quota" | "rate-limit", until: number, code: string}} Pause */

/**
 * @param {object} facts
 * @param {{kind: string, retryAt?: number, failure?: string}} facts.state of the library's Phone
 * @param {boolean} facts.elsewhere another tab serves this pairing
 * @param {boolean} facts.wasReady there was a session since the page was opened
 * @param {boolean} facts.network what the browser says
 * @param {Pause | null} facts.pause
 * @param {string | null} facts.trouble what is wrong with the storage
 * @returns {Banner | null}
 */
export function bannerOf({ state, elsewhere, wasReady, network, pause, trouble }) {
  if (elsewhere) return { kind: "elsewhere-tab", action: "here" };
  switch (state.kind) {
    case "replaced":
      return { kind: "replaced", action: "here" };
    case "revoked":
    case "unauthorized":
    case "lost":
      return { kind: state.kind, action: "pair-again" };
    case "refused":
      // It may be busy, and is asked again each minute.
      if (state.failure === "NO_ANSWER") return { kind: "no-answer", action: "now" };
      return { kind: "refused", action: "pair-again", code: state.failure };
    case "storage":
      return { kind: "storage", code: trouble ?? "blocked", action: "now" };
  }
  if (!network) return { kind: "offline", action: "now" };
  if (state.kind === "waiting" || state.kind === "connecting") {
    if (state.kind === "waiting") {
      return { kind: "reconnecting", until: state.retryAt, action: "now" };
    }
    return { kind: wasReady ? "reconnecting" : "connecting" };
  }
  if (trouble) return { kind: "storage", code: trouble };
  if (pause) return pause;
  if (state.kind === "agent-offline") return { kind: "agent-offline" };
  return state.kind === "handshaking" ? { kind: "connecting" } : null;
}
