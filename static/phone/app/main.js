/** Boots the app: words, storage, pairings, views, service worker. */

import { webCrypto } from "../core/crypto.js";
import { html, render } from "./html.js";
import { speak, t } from "./i18n.js";
import { Phonebook } from "./model/phonebook.js";
import { Storage } from "./storage/database.js";
import { Update } from "./update.js";
import { App } from "./views/app.js";
import { Insecure } from "./views/insecure.js";

/**
 * What stands in a <meta> of the page, "" where there is none.
 *
 * @param {string} name
 */
function setting(name) {
  return document.querySelector(`meta[name="${name}"]`)?.getAttribute("content") ?? "";
}

/**
 * Why the phone cannot work in this browser, null where it can.
 *
 * @returns {Promise<import("./views/insecure.js").Reason | null>}
 */
async function obstacle() {
  if (!window.isSecureContext || !globalThis.crypto?.subtle) return "http";
  try {
    await webCrypto.generateKeyPair();
    return null;
  } catch {
    return "old";
  }
}

/** The worker's address, as Trusted Types want it. It is written by the relay, not by anybody. */
function workerUrl() {
  const url = setting("coralmux-worker");
  const policy = globalThis.trustedTypes?.createPolicy("coralmux", {
    createScriptURL: (/** @type {string} */ text) => text,
  });
  return /** @type {string} */ (/** @type {unknown} */ (policy?.createScriptURL(url) ?? url));
}

async function main() {
  const root = /** @type {HTMLElement} */ (document.getElementById("app"));
  speak();

  const reason = await obstacle();
  if (reason) {
    render(html`<${Insecure} reason=${reason} />`, root);
    return;
  }

  // Where the page comes from no relay, it talks to all of them.
  const anywhere = setting("coralmux-relay") === "any";
  /** @type {Phonebook} */
  let phonebook;
  try {
    phonebook = new Phonebook({
      storage: await Storage.open(),
      page: location,
      locks: navigator.locks,
      anywhere,
      unnamed: () => t("list.unnamed"),
    });
    await phonebook.load();
  } catch {
    render(html`<${Insecure} reason="storage" />`, root);
    return;
  }

  const update = new Update();
  const relay = anywhere
    ? "wss://relay.example.com"
    : `${location.protocol.replace("http", "ws")}//${location.host}`;
  render(html`<${App} phonebook=${phonebook} update=${update} relay=${relay} />`, root);
  phonebook.connect();

  const awake = () => {
    if (document.visibilityState !== "visible") return;
    phonebook.awake();
    update.check();
  };
  document.addEventListener("visibilitychange", awake);
  window.addEventListener("online", awake);
  // The line may live on, or be dead without a word.
  window.addEventListener("offline", () => phonebook.awake());
  window.addEventListener("pageshow", (event) => event.persisted && awake());
  window.addEventListener("pagehide", () => phonebook.flush());
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") phonebook.flush();
  });

  // A file that is dropped beside the chat would take the place of the page.
  for (const type of /** @type {const} */ (["dragover", "drop"])) {
    window.addEventListener(type, (event) => {
      if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
    });
  }

  const url = workerUrl();
  if (url) await update.watch(url);
}

main();
