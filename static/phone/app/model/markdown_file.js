/** What was said, as a file to take along. */

/** @typedef {import("./message.js").Message} Message */

/** @typedef {{me?: string, date?: (at: number) => string}} Words how the user and a time are called */

/** @typedef {{name: string, text: string}} MarkdownFile */

/**
 * @param {Message[]} messages oldest first
 * @param {string} agent who answers
 * @param {Words} [words]
 * @returns {MarkdownFile}
 */
export function markdownOf(
  messages,
  agent,
  { me = "You", date = (at) => new Date(at).toISOString() } = {},
) {
  const parts = messages.map(({ role, text, at, pictures, links }) => {
    const files = pictures.map(({ name }) => `*${name}*`);
    const addresses = links.map(({ url }) => `<${url}>`);
    const heading = `**${role === "user" ? me : agent}**, ${date(at)}`;
    return [heading, text, ...files, ...addresses].filter(Boolean).join("\n\n");
  });
  const name = `${agent.replace(/[^\p{L}\p{N} _-]/gu, "").trim() || "conversation"}.md`;
  return { name, text: `${[`# ${agent}`, ...parts].join("\n\n")}\n` };
}
