/** Events at the pace of the screen. */

// Milliseconds. Not by animation frames: there are none while a page is hidden.
const FRAME = 16;

/**
 * Tells of each thing that changed: at once of the first, and then of all of them together once
 * in 16 ms, however often they change.
 * @template T
 * @param {(thing: T) => void} tell
 * @returns {(thing: T) => void}
 */
export function paced(tell) {
  /** @type {Set<T>} */
  const changed = new Set();
  let resting = false;

  function tellAll() {
    resting = changed.size > 0;
    if (!resting) return;
    setTimeout(tellAll, FRAME);
    const things = [...changed];
    changed.clear();
    for (const thing of things) tell(thing);
  }

  return (thing) => {
    changed.add(thing);
    if (!resting) tellAll();
  };
}
