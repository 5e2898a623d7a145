/** Which view is shown: kept in the history's states, so that Back works and addresses tell nothing. */

import { useEffect, useState } from "../html.js";

/** @typedef {{view: "list" | "chat" | "details" | "settings" | "pair" | "confirm", id?: string}} Route */
/** @typedef {{route: Route, depth: number}} Entry `depth`: how many entries the list is away */

/** @type {Entry} */
const HOME = { route: { view: "list" }, depth: 0 };

/** @returns {Entry} */
function entry() {
  return history.state?.route ? history.state : HOME;
}

/**
 * The route and the ways to another one.
 *
 * @returns {{route: Route, go: (route: Route, options?: {replace?: boolean}) => void,
 *   back: () => void, home: () => void}}
 */
export function useRoute() {
  const [route, setRoute] = useState(() => entry().route);
  useEffect(() => {
    const listener = () => setRoute(entry().route);
    window.addEventListener("popstate", listener);
    return () => window.removeEventListener("popstate", listener);
  }, []);

  return {
    route,
    go(next, { replace = false } = {}) {
      const { depth, route: before } = entry();
      const same = next.view === before.view && next.id === before.id;
      const over = (replace || same) && depth > 0;
      const state = { route: next, depth: over ? depth : depth + 1 };
      if (over) history.replaceState(state, "", location.pathname);
      else history.pushState(state, "", location.pathname);
      setRoute(next);
    },
    back() {
      if (entry().depth > 0) history.back();
    },
    home() {
      const { depth } = entry();
      if (depth > 0) history.go(-depth);
    },
  };
}
