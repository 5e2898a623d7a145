/** Days are named after the one that it is. */

import { useEffect, useReducer } from "../html.js";

/** Draws the calling component again when another day has begun. */
export function useMidnight() {
  const [days, another] = useReducer((/** @type {number} */ count) => count + 1, 0);
  useEffect(() => {
    const timer = setTimeout(
      () => another(undefined),
      new Date().setHours(24, 0, 0, 0) - Date.now(),
    );
    return () => clearTimeout(timer);
  }, [days]);
}
