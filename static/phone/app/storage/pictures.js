/** Pictures and other files of messages at rest, each a sealed record beside the pages. */

export class Pictures {
  #storage;
  #pairing;

  /**
   * @param {import("./database.js").Storage} storage
   * @param {string} pairing its id
   */
  constructor(storage, pairing) {
    this.#storage = storage;
    this.#pairing = pairing;
  }

  /**
   * @param {string} id
   * @param {Blob} blob
   * @returns {Promise<void>} rejects with StoreError
   */
  async save(id, blob) {
    await this.#storage.writeBytes(this.#name(id), await blob.arrayBuffer());
  }

  /**
   * @param {string} id
   * @param {string} type MIME
   * @returns {Promise<Blob | null>} null where it is not kept; rejects with StoreError
   */
  async load(id, type) {
    const bytes = await this.#storage.readBytes(this.#name(id));
    return bytes && new Blob([bytes], { type });
  }

  /**
   * @param {string[]} ids
   * @returns {Promise<void>} rejects with StoreError
   */
  async remove(ids) {
    await this.#storage.remove(...ids.map((id) => this.#name(id)));
  }

  /** @param {string} id */
  #name(id) {
    return `picture:${this.#pairing}:${id}`;
  }
}
