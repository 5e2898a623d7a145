/** What is said: messages, and the pictures that belong to them. */

/** @typedef {"waiting" | "sending" | "sent" | "streaming" | "done" | "cancelled" | "failed"} State */

/**
 * Why a message failed. `name` is the error's class and `code` its code, by which words are chosen;
 * `text` stands only where the agent has words of its own, which are shown as they are.
 * @typedef {{name: string, code?: string, text?: string}} Failure
 */

/** @typedef {{tool: string, status: "running" | "done" | "error"}} Tool */

/** Types under which a browser runs nothing of a file, wherever it is opened. */
const INERT = "application/octet-stream";

/** A picture, or another file that an agent sent. */
export class Picture {
  /** @type {number | undefined} 0 to 1 while it is on its way */
  progress;
  /**
   * The id of a file that is still on its way here, so that there is nothing to show but `progress`.
   * @type {string | null}
   */
  coming = null;
  #store;
  /** @type {Blob | null} while it is not kept */
  #blob = null;
  /** @type {Promise<string> | null} */
  #url = null;

  /**
   * @param {{id: string, name: string, type: string, size: number, width?: number,
   *   height?: number, scaled?: boolean}} fields
   * @param {import("../storage/pictures.js").Pictures} store
   * @param {Blob} [blob] its bytes, where they are not kept yet
   */
  constructor(fields, store, blob) {
    this.id = fields.id;
    this.name = fields.name;
    /** MIME type */
    this.type = fields.type;
    /** bytes */
    this.size = fields.size;
    /** pixels, where they are known */
    this.width = fields.width;
    this.height = fields.height;
    /** whether it was scaled down for an agent of version 1 */
    this.scaled = fields.scaled ?? false;
    this.#store = store;
    this.#blob = blob ?? null;
  }

  /** Whether a browser shows it. */
  get shown() {
    return this.type.startsWith("image/");
  }

  /** @returns {Promise<Blob>} empty where nothing was kept; rejects with StoreError */
  async blob() {
    const type = this.shown ? this.type : INERT;
    return this.#blob ?? (await this.#store.load(this.id, type)) ?? new Blob([], { type });
  }

  /**
   * An object URL, the same each time until `release`.
   * @returns {Promise<string>} rejects with StoreError
   */
  url() {
    if (!this.#url) {
      const url = this.blob().then((blob) => URL.createObjectURL(blob));
      this.#url = url;
      // It may be read another time.
      url.catch(() => {
        if (this.#url === url) this.#url = null;
      });
    }
    return this.#url;
  }

  /** Gives its memory back. */
  release() {
    this.#url?.then(URL.revokeObjectURL, () => {});
    this.#url = null;
  }

  /** Keeps its bytes. @returns {Promise<void>} rejects with StoreError; it can be shown then, too */
  async keep() {
    if (!this.#blob) return;
    await this.#store.save(this.id, this.#blob);
    this.#blob = null;
  }

  toJSON() {
    const { id, name, type, size, width, height, scaled } = this;
    return { id, name, type, size, width, height, scaled: scaled || undefined };
  }
}

/**
 * One message. A question goes waiting → sending → sent → done, an answer streaming → done;
 * both may become failed or cancelled.
 */
export class Message {
  /** @type {number | undefined} the page that it is kept on */
  page;
  /** @type {Tool | null} what the agent says to be doing right now */
  tool = null;

  /**
   * @param {{id: string, role: "user" | "agent", text?: string, at?: number, state: State,
   *   error?: Failure | null, pictures?: Picture[], links?: {url: string, name: string}[],
   *   refId?: string, wireId?: string}} fields
   */
  constructor(fields) {
    this.id = fields.id;
    this.role = fields.role;
    this.text = fields.text ?? "";
    /** Unix milliseconds */
    this.at = fields.at ?? Date.now();
    this.state = fields.state;
    this.error = fields.error ?? null;
    this.pictures = fields.pictures ?? [];
    /** What an agent of version 1 names by address instead of sending it; never fetched. */
    this.links = fields.links ?? [];
    /** The question that this answers. */
    this.refId = fields.refId;
    /** The id under which the agent knows a question: a new one each time that it is asked. */
    this.wireId = fields.wireId ?? fields.id;
  }

  /**
   * @param {any} record what `toJSON` made
   * @param {import("../storage/pictures.js").Pictures} store
   */
  static from(record, store) {
    const pictures = (record.pictures ?? []).map(
      (/** @type {any} */ fields) => new Picture(fields, store),
    );
    return new Message({ ...record, pictures });
  }

  /** Whether nothing more becomes of it by itself. */
  get settled() {
    return ["done", "cancelled", "failed"].includes(this.state);
  }

  toJSON() {
    const { id, role, text, at, state, error, refId, wireId } = this;
    const pictures = this.pictures.filter(({ coming }) => !coming);
    return {
      id,
      role,
      text,
      at,
      state,
      error: error ?? undefined,
      pictures: pictures.length ? pictures : undefined,
      links: this.links.length ? this.links : undefined,
      refId,
      wireId: wireId === id ? undefined : wireId,
    };
  }
}
