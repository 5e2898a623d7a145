/** Waiting that can be given up: a change that somebody tells of, a pause, a time limit. */

/** Somebody gave up waiting, by the signal. */
export class Interrupted extends Error {
  name = "Interrupted";
}

/** The time of `within` is over. */
export class TimedOut extends Error {
  name = "TimedOut";
}

// Milliseconds: timers take no more.
const LONGEST_MS = 2 ** 31 - 1;

/** Wakes all who wait for the next change. */
export class Change {
  /** @type {Set<() => void>} */
  #waiting = new Set();

  notify() {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }

  /**
   * Settles with the next `notify`. Rejects with Interrupted where the signal is aborted.
   * @param {AbortSignal} [signal]
   * @returns {Promise<void>}
   */
  next(signal) {
    return new Promise((resolve, reject) => {
      const wake = () => {
        signal?.removeEventListener("abort", stop);
        resolve();
      };
      const stop = () => {
        this.#waiting.delete(wake);
        reject(new Interrupted());
      };
      if (signal?.aborted) {
        stop();
        return;
      }
      this.#waiting.add(wake);
      signal?.addEventListener("abort", stop, { once: true });
    });
  }
}

/**
 * Rejects with Interrupted where the signal is aborted.
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export async function sleep(ms, signal) {
  const change = new Change();
  const timer = setTimeout(() => change.notify(), Math.min(ms, LONGEST_MS));
  try {
    await change.next(signal);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Do work that ends, by its signal, after so many milliseconds, or with the signal given here.
 * Rejects with TimedOut or Interrupted then.
 * @template T
 * @param {number} ms Infinity for no limit
 * @param {(signal: AbortSignal) => Promise<T>} work
 * @param {AbortSignal} [signal]
 * @returns {Promise<T>}
 */
export async function within(ms, work, signal) {
  const controller = new AbortController();
  let late = false;
  const stop = () => controller.abort();
  const timer =
    ms <= LONGEST_MS
      ? setTimeout(() => {
          late = true;
          stop();
        }, ms)
      : undefined;
  if (signal?.aborted) stop();
  signal?.addEventListener("abort", stop, { once: true });
  try {
    return await work(controller.signal);
  } catch (error) {
    throw late && error instanceof Interrupted ? new TimedOut() : error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}
