/** Files for the user to keep. */

import { t } from "../i18n.js";
import { tell } from "./announcer.js";

/**
 * Saves a picture or another file of a message; says so where it is not here any more.
 *
 * @param {import("../model/message.js").Picture} picture
 */
export async function save(picture) {
  const blob = await picture.blob().catch(() => null);
  if (blob?.size) download(picture.name, blob);
  else tell(t("chat.pictureMissing"));
}

/**
 * Has the browser save a file.
 *
 * @param {string} name
 * @param {Blob} blob
 */
export function download(name, blob) {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // The browser has begun to read it by then.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
