/** What screen readers are told about changes that sighted people see for themselves. */

/** @type {HTMLElement | null} */
let region = null;

/**
 * Has a screen reader say `text` when it comes to a pause.
 *
 * @param {string} text
 */
export function announce(text) {
  const page = /** @type {Document & {ariaNotify?: (text: string) => void}} */ (document);
  if (page.ariaNotify) {
    page.ariaNotify(text);
    return;
  }
  if (!region) {
    region = document.createElement("div");
    region.className = "visually-hidden";
    region.setAttribute("role", "status");
    document.body.append(region);
  }
  // The same words a second time are a change only when they stand in a new element.
  const line = document.createElement("p");
  line.textContent = text;
  region.replaceChildren(line);
}
