/**
 * Where a list of messages stands: at its end, and it stays there while the list grows; or where
 * the reader has left it, whatever comes in below or above.
 */

const NEAR = 24; // pixels from the end that count as there

/**
 * @param {HTMLElement} scroller
 * @param {HTMLElement} content what grows in it
 * @param {(atEnd: boolean) => void} onChange
 */
export function keepPlace(scroller, content, onChange) {
  let atEnd = true;
  let last = 0;
  let height = 0;

  function set(/** @type {boolean} */ value) {
    if (value === atEnd) return;
    atEnd = value;
    onChange(atEnd);
  }

  function onScroll() {
    const { scrollTop, scrollHeight, clientHeight } = scroller;
    const left = scrollHeight - clientHeight - scrollTop;
    const shrunk = scrollHeight < height;
    // Only the reader moves it up; what shrinks moves it as well.
    if (scrollTop < last - 1 && left > 1 && !shrunk) set(false);
    else if (left <= NEAR && scrollTop >= last - 1) set(true);
    last = scrollTop;
    height = scrollHeight;
  }

  function follow() {
    height = scroller.scrollHeight;
    if (atEnd) scroller.scrollTop = height;
    else onScroll();
    last = scroller.scrollTop;
  }

  const observer = new ResizeObserver(follow);
  observer.observe(content);
  observer.observe(scroller);
  scroller.addEventListener("scroll", onScroll, { passive: true });
  follow();

  return {
    /** To the end, and stay there. */
    toEnd() {
      set(true);
      follow();
    },
    /** Away from the end: something further up is shown. */
    leaveEnd() {
      set(false);
    },
    /**
     * Remembers where an element stands, to be put there again after something came in above.
     *
     * @param {Element | null} anchor
     * @returns {() => void}
     */
    hold(anchor) {
      const before = anchor?.getBoundingClientRect().top ?? 0;
      // The browser would do it too, and then it were done twice.
      scroller.style.overflowAnchor = "none";
      // Out of sight for a moment, it would be taken to be as high as it was when last drawn.
      const entry = anchor?.closest(".entry");
      if (entry instanceof HTMLElement) entry.style.contentVisibility = "visible";
      return () => {
        if (anchor?.isConnected && !atEnd) {
          scroller.scrollTop += anchor.getBoundingClientRect().top - before;
        }
        last = scroller.scrollTop;
        requestAnimationFrame(() => {
          scroller.style.overflowAnchor = "";
          if (entry instanceof HTMLElement) entry.style.contentVisibility = "";
        });
      };
    },
    stop() {
      observer.disconnect();
      scroller.removeEventListener("scroll", onScroll);
    },
  };
}
