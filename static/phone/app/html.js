/**
 * Templates: htm bound to Preact, and a hook that draws a view again when a model changes.
 *
 * Views import from here, so that the libraries' names stand in one place.
 */

import htm from "htm";
import { h } from "preact";
import { useLayoutEffect, useReducer, useState } from "preact/hooks";

export { createContext, createRef, Fragment, h, render } from "preact";
export {
  useCallback,
  useContext,
  useEffect,
  useLayoutEffect,
  useMemo,
  useReducer,
  useRef,
  useState,
} from "preact/hooks";

/** @typedef {import("preact").ComponentChildren} Children */

export const html =
  /** @type {(strings: TemplateStringsArray, ...values: unknown[]) => import("preact").VNode<any>} */ (
    /** @type {unknown} */ (htm.bind(h))
  );

/**
 * Draws the calling component again whenever `target` dispatches one of `events`.
 *
 * @template {EventTarget | null | undefined} Target
 * @param {Target} target
 * @param {...string} events "change" where none is named
 * @returns {Target}
 */
export function useModel(target, ...events) {
  const [, redraw] = useReducer((/** @type {number} */ count) => count + 1, 0);
  const names = events.length ? events : ["change"];
  // Before the browser paints, so that no change falls between the drawing and the listening.
  useLayoutEffect(() => {
    if (!target) return undefined;
    const listener = () => redraw(undefined);
    for (const name of names) target.addEventListener(name, listener);
    return () => {
      for (const name of names) target.removeEventListener(name, listener);
    };
  }, [target, ...names]);
  return target;
}

/**
 * An id for an element of the calling component. Preact's own repeats itself where several trees
 * are drawn, as the app and a dialog are.
 *
 * @returns {string}
 */
export function useId() {
  return useState(() => `id-${crypto.randomUUID()}`)[0];
}
