// A classic script, run before anything else of the page. A pairing link carries its secrets
// in the fragment: they are taken out of the address bar and of the history, and handed over
// once to whoever asks first.
(() => {
  let taken = "";

  function take() {
    if (location.hash.length > 1) {
      taken = location.hash;
      history.replaceState(history.state, "", location.pathname);
    }
  }

  take();
  // A link opened in a tab that shows the page already does not load it again.
  addEventListener("hashchange", () => {
    take();
    dispatchEvent(new Event("coralmux-fragment"));
  });

  /** The fragment with its "#", the first time that it is asked for; then "". */
  globalThis.coralmuxFragment = () => {
    const fragment = taken;
    taken = "";
    return fragment;
  };
})();
