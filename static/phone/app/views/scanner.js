/** Reads a QR code from the camera or from a picture. Frames never leave this module. */

import { html, useEffect, useRef, useState } from "../html.js";
import { t } from "../i18n.js";

/** @typedef {"pair.denied" | "pair.noCamera" | "pair.cameraBusy"} Trouble */

// Milliseconds from one look at the camera's picture to the next.
const PACE = 120;

// Pixels of the longer side that is searched: a code that fills a third of it is found, and a
// small telephone keeps up.
const CAMERA_SIDE = 960;
const PICTURE_SIDE = 1600;

/**
 * The camera's picture until a code is read.
 *
 * @param {object} props
 * @param {(text: string) => void} props.onText called once; the camera is off then
 * @param {(trouble: Trouble) => void} props.onTrouble
 */
export function Scanner({ onText, onTrouble }) {
  const video = useRef(/** @type {HTMLVideoElement | null} */ (null));
  const [running, setRunning] = useState(false);
  useEffect(() => {
    const leaving = new AbortController();
    scan(/** @type {HTMLVideoElement} */ (video.current), leaving.signal, () => setRunning(true))
      .then((text) => text !== null && onText(text))
      .catch((error) => onTrouble(troubleOf(error)));
    return () => leaving.abort();
  }, []);
  return html`<div class="scanner">
    <video ref=${video} muted playsinline aria-label=${t("pair.scanning")}></video>
    <div class="finder" aria-hidden="true"></div>
    <p class="scanner-hint" role="status">${t(running ? "pair.scanning" : "pair.starting")}</p>
  </div>`;
}

/**
 * Looks through the camera until there is a code. Rejects with getUserMedia's errors.
 *
 * @param {HTMLVideoElement} video
 * @param {AbortSignal} leaving
 * @param {() => void} onRunning
 * @returns {Promise<string | null>} null where the user left
 */
async function scan(video, leaving, onRunning) {
  if (!navigator.mediaDevices?.getUserMedia) throw new DOMException("", "NotFoundError");
  const [{ decodeQR }, stream] = await Promise.all([
    import("qr/decode.js"),
    navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 720 } },
    }),
  ]);
  try {
    if (leaving.aborted) return null;
    video.srcObject = stream;
    await video.play().catch(() => {});
    onRunning();
    const canvas = document.createElement("canvas");
    while (!leaving.aborted) {
      const text = video.videoWidth
        ? decode(decodeQR, canvas, video, video.videoWidth, video.videoHeight, CAMERA_SIDE)
        : null;
      if (text !== null) return text;
      await new Promise((resolve) => setTimeout(resolve, PACE));
    }
    return null;
  } finally {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  }
}

/**
 * The text of the code in a picture that the user chose.
 *
 * @param {Blob} picture
 * @returns {Promise<string | null>} null where there is no code, or no picture
 */
export async function readPicture(picture) {
  const [{ decodeQR }, bitmap] = await Promise.all([
    import("qr/decode.js"),
    createImageBitmap(picture).catch(() => null),
  ]);
  if (!bitmap) return null;
  try {
    const canvas = document.createElement("canvas");
    return decode(decodeQR, canvas, bitmap, bitmap.width, bitmap.height, PICTURE_SIDE);
  } finally {
    bitmap.close();
  }
}

/**
 * @param {import("qr/decode.js").DecodeQR} decodeQR
 * @param {HTMLCanvasElement} canvas
 * @param {CanvasImageSource} source
 * @param {number} width pixels
 * @param {number} height pixels
 * @param {number} side pixels of the longer side that is searched, at most
 * @returns {string | null}
 */
function decode(decodeQR, canvas, source, width, height, side) {
  const scale = Math.min(1, side / Math.max(width, height));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) return null;
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  try {
    return decodeQR({ width: canvas.width, height: canvas.height, data });
  } catch {
    return null; // No code in this frame.
  }
}

/**
 * @param {unknown} error
 * @returns {Trouble}
 */
function troubleOf(error) {
  const name = error instanceof DOMException ? error.name : "";
  if (name === "NotAllowedError" || name === "SecurityError") return "pair.denied";
  return name === "NotFoundError" || name === "OverconstrainedError"
    ? "pair.noCamera"
    : "pair.cameraBusy";
}
