// Keeps the phone's page and its files, so that it opens at once and without a network.
// VERSION and PATHS are written before this: what is kept, by fixed paths alone, the page first.
//
// A new version is fetched whole into a cache of its own and waits until the page says
// {type: "activate"}, or until no page is open. Page and files are always of one version.

const PREFIX = "coralmux-phone-";
const CACHE = PREFIX + VERSION;
const [PAGE, ...FILES] = PATHS.map((path) => new URL(path, self.location.href).pathname);
const KEPT = new Set(FILES);

self.addEventListener("install", (event) => {
  event.waitUntil(keep());
});

self.addEventListener("activate", (event) => {
  event.waitUntil(takeOver());
});

self.addEventListener("message", (event) => {
  if (event.data?.type === "activate") {
    self.skipWaiting();
  }
});

self.addEventListener("fetch", (event) => {
  const { method, mode, url } = event.request;
  const { origin, pathname } = new URL(url);
  const wanted = mode === "navigate" ? pathname === PAGE : KEPT.has(pathname);
  if (method === "GET" && origin === self.location.origin && wanted) {
    event.respondWith(answer(pathname));
  }
});

async function keep() {
  const cache = await caches.open(CACHE);
  await cache.addAll(PATHS);
}

async function takeOver() {
  const names = await caches.keys();
  const older = names.filter((name) => name.startsWith(PREFIX) && name !== CACHE);
  await Promise.all(older.map((name) => caches.delete(name)));
  await self.clients.claim();
}

/** By the path alone: a request may carry a fragment, and what is asked for by it is the page. */
async function answer(path) {
  const cache = await caches.open(CACHE);
  return (await cache.match(path)) ?? fetch(path);
}
