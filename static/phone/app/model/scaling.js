/** Pictures toward an agent of version 1, whose messages have room for small ones only. */

/** Bytes of a picture that goes out as it is, in version 2. */
export const SENDABLE_BYTES = 5_000_000;

/** Bytes of a picture that is scaled down for version 1: more would take a phone's memory. */
export const SCALABLE_BYTES = 50_000_000;

// Pixels of the longer side, and JPEG quality, from good to small.
const STEPS = [
  [2560, 0.85],
  [2048, 0.8],
  [1600, 0.75],
  [1280, 0.7],
  [1024, 0.6],
  [640, 0.5],
];

/**
 * @param {import("./message.js").Picture} picture
 * @returns {Promise<{width?: number, height?: number}>} pixels, where the browser can tell
 */
export async function measure(picture) {
  if (!picture.shown) return {};
  try {
    const bitmap = await createImageBitmap(await picture.blob());
    const { width, height } = bitmap;
    bitmap.close();
    return { width, height };
  } catch {
    return {};
  }
}

/**
 * The picture as it is where it fits, or a smaller JPEG of it.
 * @param {Blob} blob
 * @param {number} maxBytes
 * @returns {Promise<Blob | null>} null where the browser cannot read it
 */
export async function scaled(blob, maxBytes) {
  if (blob.size <= maxBytes) return blob;
  const bitmap = await createImageBitmap(blob).catch(() => null);
  if (!bitmap) return null;
  try {
    for (const [side, quality] of STEPS) {
      const factor = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
      const canvas = new OffscreenCanvas(
        Math.max(1, Math.round(bitmap.width * factor)),
        Math.max(1, Math.round(bitmap.height * factor)),
      );
      const context = canvas.getContext("2d");
      if (!context) return null;
      // JPEG knows no transparency, and what is behind it would be black.
      context.fillStyle = "white";
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      const smaller = await canvas.convertToBlob({ type: "image/jpeg", quality });
      if (smaller.size <= maxBytes) return smaller;
    }
    return null;
  } finally {
    bitmap.close();
  }
}
