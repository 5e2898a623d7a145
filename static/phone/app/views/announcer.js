/** What happened, said once: to screen readers, and to the eye where nothing else shows it. */

// Milliseconds that a toast can be read.
const SHOWN = 2500;

const page = /** @type {Document & {ariaNotify?: (text: string) => void}} */ (document);
// A screen reader hears what comes into a region that it knows, not what came along with one.
const region = page.ariaNotify ? null : newRegion();
/** @type {HTMLElement | null} */
let toast = null;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/**
 * Has a screen reader say `text` when it comes to a pause.
 *
 * @param {string} text
 */
export function announce(text) {
  if (!region) {
    page.ariaNotify?.(text);
    return;
  }
  // The same words a second time are a change only when they stand in a new element.
  const line = document.createElement("p");
  line.textContent = text;
  region.replaceChildren(line);
}

function newRegion() {
  const region = document.createElement("div");
  region.className = "visually-hidden";
  region.setAttribute("role", "status");
  document.body.append(region);
  return region;
}

/**
 * Tells everybody, for a moment.
 *
 * @param {string} text
 */
export function tell(text) {
  announce(text);
  if (!toast) {
    toast = document.createElement("p");
    toast.className = "toast";
    // Those who listen have heard it.
    toast.setAttribute("aria-hidden", "true");
    document.body.append(toast);
  }
  toast.textContent = text;
  toast.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => {
    if (toast) toast.hidden = true;
  }, SHOWN);
}
