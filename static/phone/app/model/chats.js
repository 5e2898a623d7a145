/** The conversations of a pairing: one with each of the agents behind it. */

import { NotConnected } from "../../core/errors.js";
import { Conversation } from "./conversation.js";
import { markdownOf } from "./markdown_file.js";

/** @typedef {import("./record.js").AgentProfile} AgentProfile */
/** @typedef {import("./record.js").Chat} Chat */
/** @typedef {import("./record.js").Last} Last */

// Characters of the last message that a list shows.
const PREVIEW = 160;

// Milliseconds that an agent of version 1 has to answer: it takes one question at a time, and
// the user's may come at any moment.
const PATIENCE = 4000;

export class Chats {
  #pairing;
  /** @type {Map<string, Conversation>} by agent */
  #conversations = new Map();
  /** Whether the agent was asked in this session which agents there are. */
  #asked = false;
  /** Whether an agent of version 1 did not answer; until the page is opened anew it is not asked. */
  #silent = false;
  /** @type {Set<string>} the agents that were asked in this session what they remember */
  #fetched = new Set();

  /**
   * @param {import("./pairing.js").Pairing} pairing
   * @param {Chats} [before] whose drafts it takes over
   */
  constructor(pairing, before) {
    this.#pairing = pairing;
    for (const conversation of before?.open ?? []) {
      this.with(conversation.agentId).inherit(conversation);
    }
  }

  /** Answers that were not seen, in all conversations. */
  get unread() {
    return this.#remembered.reduce((sum, { unread }) => sum + unread, 0);
  }

  /**
   * What was said last, to whichever agent.
   * @returns {Last | null}
   */
  get last() {
    const all = this.#remembered.map(({ last }) => last);
    return all.reduce((one, other) => ((other?.at ?? 0) > (one?.at ?? 0) ? other : one), null);
  }

  /**
   * The agents among which one can choose, none where there is one only. Those that something was
   * said to stay among them; the id "" stands for whoever answers, before the agents were known.
   * @returns {AgentProfile[]}
   */
  get agents() {
    const { agents, chats } = this.#record;
    const profile = (/** @type {string} */ id) => {
      const name = id || this.#pairing.agentName;
      return { id, name, description: null, avatarUrl: null, model: null };
    };
    const listed = agents.length > 1 ? agents : [profile("")];
    const said = Object.keys(chats).filter((id) => chats[id].last);
    const gone = said.filter((id) => !listed.some((agent) => agent.id === id));
    return listed.length + gone.length > 1 ? [...gone.map(profile), ...listed] : [];
  }

  /** The conversation with the chosen agent; its messages are read when it is first asked for. */
  get chosen() {
    const conversation = this.with(this.#record.agentId);
    conversation.load();
    this.#fetch(conversation);
    return conversation;
  }

  /** The conversations with all agents that anything is remembered of. */
  get all() {
    return Object.keys(this.#record.chats).map((agentId) => this.with(agentId));
  }

  /** Those that were asked for. */
  get open() {
    return [...this.#conversations.values()];
  }

  /** @param {string} agentId */
  with(agentId) {
    let conversation = this.#conversations.get(agentId);
    if (!conversation) {
      conversation = new Conversation(this.#pairing, agentId);
      this.#conversations.set(agentId, conversation);
    }
    return conversation;
  }

  /**
   * What is remembered of one.
   * @param {string} agentId
   * @returns {Chat}
   */
  about(agentId) {
    const { chats } = this.#record;
    chats[agentId] ??= { unread: 0, open: 0, fetched: false, last: null };
    return chats[agentId];
  }

  /** @param {string} agentId */
  nameOf(agentId) {
    const agent = this.#record.agents.find(({ id }) => id && id === agentId);
    return agent?.name || this.#pairing.name;
  }

  /** Goes on with those that something waits in. */
  resume() {
    for (const [agentId, { open }] of Object.entries(this.#record.chats)) {
      if (open) this.with(agentId).load();
    }
  }

  /** Notes how many questions are under way in each of those that were read. */
  waiting() {
    const { open } = this.#pairing.outbox;
    let changed = false;
    for (const conversation of this.open.filter(({ loaded }) => loaded)) {
      const chat = this.about(conversation.agentId);
      let count = open.get(conversation) ?? 0;
      // More may wait where it was not possible to read.
      if (!conversation.whole) count = Math.max(count, chat.open);
      changed ||= chat.open !== count;
      chat.open = count;
    }
    if (changed) this.#pairing.save();
    if (!open.size && !this.#asked) this.ask();
  }

  /**
   * Something was said, or deleted, or seen.
   * @param {Conversation} conversation
   */
  noted({ agentId, messages, loaded }) {
    const last = messages.findLast(({ text, pictures }) => text || pictures.length);
    const chat = this.about(agentId);
    if (last) chat.last = { text: last.text.slice(0, PREVIEW), at: last.at, role: last.role };
    else if (loaded) chat.last = null;
    this.#pairing.save();
  }

  /** There is a new session, and who answers may be another. */
  renew() {
    this.#asked = false;
    this.#fetched.clear();
    this.ask();
  }

  /** Asks which agents there are, and for what they remember of conversations that are new here. */
  ask() {
    if (!this.#phone) return;
    this.#asked = true;
    this.#list();
    for (const conversation of this.open) this.#fetch(conversation);
  }

  /**
   * Deletes what was said with all agents.
   * @returns {Promise<boolean>} whether all is gone; never rejects
   */
  async clear() {
    let gone = true;
    for (const conversation of this.all) {
      // Not taken back from another tab that has just asked for it.
      gone = !this.#pairing.elsewhere && (await conversation.clear()) && gone;
    }
    return gone;
  }

  /**
   * What was said with all agents.
   * @param {import("./markdown_file.js").Words} [words]
   * @returns {Promise<import("./markdown_file.js").MarkdownFile>}
   */
  async export(words) {
    const files = [];
    for (const conversation of this.all) {
      const file = await conversation.export(words);
      if (conversation.messages.length) files.push(file);
    }
    const { name, text: nothing } = markdownOf([], this.#pairing.name);
    return { name, text: files.map(({ text }) => text).join("\n") || nothing };
  }

  /** Forgets what was read: another tab goes on with it. */
  close() {
    for (const conversation of this.open) conversation.close();
    this.#conversations.clear();
  }

  /** The phone, where its agent can be asked something else than what the user does. */
  get #phone() {
    const { phone, outbox } = this.#pairing;
    if (phone?.state.kind !== "ready") return null;
    const free = phone.version === 2 || !(this.#silent || outbox.open.size);
    return free ? phone : null;
  }

  /** An agent that does not say is alone. */
  async #list() {
    const agents = await this.#answer((phone, limit) => phone.agents(limit)).catch(() => null);
    if (!agents) return;
    const record = this.#record;
    record.agents = agents;
    const { agentId, chats } = record;
    const known = agentId === "" ? agents.length < 2 : agents.some(({ id }) => id === agentId);
    const next = agents.length > 1 ? agents[0].id : "";
    if (!known && !chats[agentId]?.last && next !== agentId) await this.#move(agentId, next);
    this.#pairing.save();
  }

  /**
   * Chooses another agent, which what was typed goes along to.
   * @param {string} from
   * @param {string} to
   */
  async #move(from, to) {
    const [left, next] = [this.with(from), this.with(to)];
    await Promise.all([left.load(), next.load()]);
    // Meanwhile the user may have chosen, or asked, or another tab taken the place.
    const { record } = this.#pairing;
    if (this.#pairing.chats !== this || record.agentId !== from || record.chats[from]?.last) return;
    record.agentId = to;
    if (left.draft) {
      next.draft = [next.draft, left.draft].filter(Boolean).join("\n");
      left.draft = "";
    }
    next.chosen = [...next.chosen, ...left.chosen];
    left.chosen = [];
  }

  /** @param {Conversation} conversation */
  async #fetch(conversation) {
    const { agentId } = conversation;
    const chat = this.about(agentId);
    // Version 1 would tell the relay all that was said before.
    if (chat.fetched || this.#fetched.has(agentId) || this.#pairing.version === 1) return;
    if (!this.#phone) return;
    this.#fetched.add(agentId);
    try {
      await conversation.fetch((count) =>
        this.#answer((phone, limit) => phone.history({ agentId, limit: count, ...limit })),
      );
      chat.fetched = true;
    } catch (error) {
      // In another session it is asked again, unless it offers nothing, or nothing sensible.
      const { name } = /** @type {Error} */ (error);
      if (!["AgentError", "InvalidAnswer"].includes(name)) return;
      chat.fetched = true;
    }
    this.#pairing.save();
  }

  /**
   * @template T
   * @param {(phone: import("../../core/index.js").Phone, limit: {timeout?: number}) => Promise<T>} ask
   * @returns {Promise<T>} rejects with what `ask` does
   */
  async #answer(ask) {
    const phone = this.#phone;
    if (!phone) throw new NotConnected("The agent cannot be asked now.");
    try {
      return await ask(phone, phone.version === 1 ? { timeout: PATIENCE } : {});
    } catch (error) {
      const late = error instanceof Error && error.name === "RequestTimeout";
      if (late && phone.version === 1) this.#silent = true;
      throw error;
    }
  }

  get #record() {
    return this.#pairing.record;
  }

  get #remembered() {
    return Object.values(this.#record.chats);
  }
}
