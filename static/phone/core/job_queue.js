/** Jobs one after the other, in the order in which they were added. */

/** See the module. A job must not wait for another. */
export class JobQueue {
  /** @type {Promise<unknown>} */
  #last = Promise.resolve();

  /**
   * What becomes of the job.
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  add(work) {
    const done = this.#last.then(work);
    this.#last = done.catch(() => {});
    return done;
  }
}
