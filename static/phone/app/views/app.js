/** The app: which view stands where. One pane on a telephone, list and chat side by side on a desktop. */

import { html, useEffect, useModel, useRef, useState } from "../html.js";
import { speech, t } from "../i18n.js";
import { Chat } from "./chat.js";
import { Confirm } from "./confirm.js";
import { Details } from "./details.js";
import { Icon } from "./icons.js";
import { List } from "./list.js";
import { Pair, wordsFor } from "./pair.js";
import { useRoute } from "./route.js";
import { Settings } from "./settings.js";

/** @typedef {import("../model/pairing.js").Pairing} Pairing */
/** @typedef {import("../model/phonebook.js").Reading} Reading */
/** @typedef {import("../i18n.js").Key} Key */

const WIDE = "(min-width: 900px)";

/**
 * @param {object} props
 * @param {import("../model/phonebook.js").Phonebook} props.phonebook
 * @param {import("../update.js").Update} props.update
 * @param {string} props.relay address of the relay, for the command that is taught
 */
export function App({ phonebook, update, relay }) {
  useModel(speech);
  useModel(phonebook);
  const wide = useWide();
  const { route, go, back, home } = useRoute();
  // A link's secrets are never in the history: reloading a view that shows one ends at the list.
  const [link, setLink] = useState(/** @type {Link} */ ({ number: 0 }));

  const show = (/** @type {Reading} */ reading, replace = false) => {
    setLink((before) => ({ number: before.number + 1, reading }));
    go({ view: "confirm" }, { replace });
  };
  useFragment((fragment) => {
    const replace = ["pair", "confirm"].includes(route.view);
    try {
      show(phonebook.read(fragment), replace);
    } catch (error) {
      setLink((before) => ({ number: before.number + 1, trouble: wordsFor(error) }));
      go({ view: "pair" }, { replace });
    }
  });

  const pairing = route.id ? phonebook.get(route.id) : null;
  const open = (/** @type {Pairing} */ { id }) =>
    go({ view: "chat", id }, { replace: ["chat", "confirm"].includes(route.view) });
  const details = (/** @type {Pairing} */ { id }) => go({ view: "details", id });
  const pairAnother = () => {
    setLink((before) => ({ number: before.number }));
    go({ view: "pair" });
  };

  const view = () => {
    if (route.view === "chat" && pairing) {
      return html`<${Chat}
        key=${pairing.id}
        pairing=${pairing}
        onBack=${back}
        onSettings=${() => details(pairing)}
        onPairAgain=${pairAnother}
      />`;
    }
    if (route.view === "details" && pairing) {
      return html`<${Details}
        key=${pairing.id}
        pairing=${pairing}
        onBack=${back}
        onForgotten=${home}
      />`;
    }
    if (route.view === "settings") {
      return html`<${Settings} phonebook=${phonebook} onBack=${back} onDetails=${details} />`;
    }
    if (route.view === "confirm" && link.reading) {
      return html`<${Confirm}
        key=${link.number}
        phonebook=${phonebook}
        reading=${link.reading}
        onBack=${wide ? back : home}
        onOpen=${open}
      />`;
    }
    if (route.view === "pair") {
      return html`<${Pair}
        key=${link.number}
        phonebook=${phonebook}
        trouble=${link.trouble}
        onBack=${back}
        onRead=${(/** @type {Reading} */ reading) => show(reading, true)}
      />`;
    }
    return null;
  };
  const shown = view();
  const detail = useRef(/** @type {HTMLElement | null} */ (null));
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  useFocus(shown ? detail : list, shown ? route : null, link.number);

  const unread = phonebook.pairings.reduce((sum, one) => sum + one.unread, 0);
  useEffect(() => {
    document.title = unread ? `(${unread}) ${t("app.name")}` : t("app.name");
  });

  return html`<div class=${`app ${wide ? "wide" : ""}`}>
    <${NewVersion} update=${update} phonebook=${phonebook} />
    ${
      (wide || !shown) &&
      html`<div
        key="list"
        ref=${list}
        class="pane"
        role=${wide ? "navigation" : "main"}
        aria-label=${t("list.title")}
      >
        <${List}
          phonebook=${phonebook}
          current=${wide && pairing ? pairing.id : null}
          relay=${relay}
          onOpen=${open}
          onDetails=${details}
          onAdd=${pairAnother}
          onSettings=${() => go({ view: "settings" })}
        />
      </div>`
    }
    ${
      (wide || shown) &&
      html`<main key="detail" ref=${detail} class=${`pane view-${shown ? route.view : "none"}`}>
        ${shown ?? html`<${Nothing} some=${phonebook.pairings.length > 0} />`}
      </main>`
    }
  </div>`;
}

/**
 * A link that waits for the user's word, or what is wrong with one.
 * @typedef {{number: number, reading?: Reading, trouble?: Key}} Link
 */

/**
 * What stands beside the list while nothing is chosen.
 *
 * @param {{some: boolean}} props
 */
function Nothing({ some }) {
  return html`<div class="nothing quiet">
    <${Icon} name="lock" class="huge" />
    ${some && html`<p>${t("app.choose")}</p>`}
  </div>`;
}

/**
 * @param {object} props
 * @param {import("../update.js").Update} props.update
 * @param {import("../model/phonebook.js").Phonebook} props.phonebook
 */
function NewVersion({ update, phonebook }) {
  useModel(update);
  const apply = async () => {
    await phonebook.flush();
    update.apply();
  };
  return html`<div class="new-version" role="status">
    ${
      update.ready &&
      html`<p>${t("app.newVersion")}</p>
        <button type="button" class="button primary" onClick=${apply}>
          ${t("app.update")}
        </button>`
    }
  </div>`;
}

/** Whether there is room for list and chat side by side. */
function useWide() {
  const [wide, setWide] = useState(() => matchMedia(WIDE).matches);
  useEffect(() => {
    const query = matchMedia(WIDE);
    const listener = () => setWide(query.matches);
    query.addEventListener("change", listener);
    return () => query.removeEventListener("change", listener);
  }, []);
  return wide;
}

/**
 * Hands over the fragment that the page was opened with, and those of links that are opened in
 * this tab later.
 *
 * @param {(fragment: string) => void} onFragment
 */
function useFragment(onFragment) {
  const latest = useRef(onFragment);
  latest.current = onFragment;
  useEffect(() => {
    const take = () => {
      const fragment = globalThis.coralmuxFragment?.();
      if (fragment) latest.current(fragment);
    };
    take();
    window.addEventListener("coralmux-fragment", take);
    return () => window.removeEventListener("coralmux-fragment", take);
  }, []);
}

/**
 * Moves the focus along with the view: to its heading, or back to the row that it came from.
 *
 * @param {{current: HTMLElement | null}} pane
 * @param {import("./route.js").Route | null} route null for the list
 * @param {number} number changes when a view of the same name shows something else
 */
function useFocus(pane, route, number) {
  const came = useRef(/** @type {string | undefined} */ (undefined));
  const first = useRef(true);
  useEffect(() => {
    const left = came.current;
    came.current = route?.id ?? left;
    if (first.current) {
      first.current = false;
      return;
    }
    const { current } = pane;
    if (!current || current.contains(document.activeElement)) return;
    const row = route ? null : left && current.querySelector(`[data-pairing="${left}"]`);
    const target = row || current.querySelector("h1[tabindex]");
    if (target instanceof HTMLElement) target.focus({ preventScroll: !row });
  }, [route?.view, route?.id, number]);
}
