/** A conversation: who it is with, how the connection stands, what was said, what to say. */

import { html, useEffect, useModel, useRef, useState } from "../html.js";
import { moment, t } from "../i18n.js";
import { AgentPicker } from "./agent_picker.js";
import { Banner } from "./banner.js";
import { BackButton } from "./bar.js";
import { Composer } from "./composer.js";
import { confirm, Menu } from "./dialog.js";
import { download } from "./download.js";
import { Icon } from "./icons.js";
import { MessageList } from "./message_list.js";
import { Search } from "./search.js";

/**
 * @param {object} props
 * @param {import("../model/pairing.js").Pairing} props.pairing
 * @param {() => void} [props.onBack] none where the list stands beside it
 * @param {() => void} props.onSettings
 * @param {() => void} [props.onPairAgain] for a pairing that is no more
 */
export function Chat({ pairing, onBack, onSettings, onPairAgain = onSettings }) {
  useModel(pairing, "change", "banner");
  const { conversation } = pairing;
  const [searching, setSearching] = useState(false);
  const [scroller, setScroller] = useState(/** @type {HTMLElement | null} */ (null));
  const [area, setArea] = useState(/** @type {HTMLElement | null} */ (null));
  const searchButton = useRef(/** @type {HTMLButtonElement | null} */ (null));
  const name = pairing.chats.nameOf(pairing.agentId);

  const closeSearch = useRef(() => {});
  closeSearch.current = () => {
    if (!searching) return;
    setSearching(false);
    searchButton.current?.focus();
  };

  useEffect(() => {
    const onKey = (/** @type {KeyboardEvent} */ event) => {
      const typing =
        event.target instanceof Element && event.target.closest("input, textarea, select, dialog");
      if (event.key === "Escape" && !event.isComposing && !event.defaultPrevented) {
        // What lies above the chat is closed first.
        if (!document.querySelector("dialog[open], :popover-open")) closeSearch.current();
        return;
      }
      if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      setSearching(true);
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, []);

  const exportAll = async () => {
    const file = await conversation.export({ me: t("chat.me"), date: moment });
    download(file.name, new Blob([file.text], { type: "text/markdown" }));
  };
  const clear = async () => {
    const sure = await confirm({
      title: t("chat.clear"),
      text: t("chat.clearText"),
      action: t("chat.delete"),
      danger: true,
    });
    if (sure) await conversation.clear();
  };

  return html`<section class="chat" aria-label=${pairing.name} ref=${setArea}>
    <header class="bar chat-bar">
      ${onBack && html`<${BackButton} onBack=${onBack} />`}
      <div class="chat-title">
        <h1 tabindex="-1"><bdi>${pairing.name}</bdi></h1>
        <${Standing} pairing=${pairing} />
      </div>
      <${AgentPicker} pairing=${pairing} />
      <button
        ref=${searchButton}
        type="button"
        class="icon-button"
        aria-label=${t("chat.search")}
        aria-expanded=${searching}
        onClick=${() => setSearching(!searching)}
      >
        <${Icon} name="search" />
      </button>
      <${Menu}
        label=${t("chat.menu")}
        items=${[
          { label: t("chat.settings"), icon: "settings", onClick: onSettings },
          { label: t("chat.export"), icon: "export", onClick: exportAll },
          { label: t("chat.clear"), icon: "trash", danger: true, onClick: clear },
        ]}
      />
    </header>
    ${
      searching &&
      html`<${Search}
        conversation=${conversation}
        scroller=${scroller}
        onClose=${closeSearch.current}
      />`
    }
    <${Banner} pairing=${pairing} onPairAgain=${onPairAgain} />
    <${MessageList}
      key=${`${pairing.id}:${conversation.agentId}`}
      conversation=${conversation}
      name=${name}
      hint=${t(pairing.version === 1 ? "chat.emptyHintNotVerified" : "chat.emptyHint")}
      onScroller=${setScroller}
    />
    <${Composer}
      key=${`composer:${pairing.id}:${conversation.agentId}`}
      pairing=${pairing}
      conversation=${conversation}
      area=${area}
    />
  </section>`;
}

/** @param {{pairing: import("../model/pairing.js").Pairing}} props */
function Standing({ pairing }) {
  const { online, verified, version } = pairing;
  return html`<p class="standing">
    <span class=${`dot ${online ? "online" : ""}`}></span>
    ${t(online ? "chat.online" : "chat.offline")}
    ${
      verified &&
      html`<span class="standing-verified" title=${t("chat.verified")}>
        <${Icon} name="shield" /><span class="visually-hidden">${t("chat.verified")}</span>
      </span>`
    }
    ${
      version === 1 &&
      html`<span class="standing-not-verified" title=${t("details.notVerifiedText")}>
        ${t("confirm.notVerified")}
      </span>`
    }
  </p>`;
}
