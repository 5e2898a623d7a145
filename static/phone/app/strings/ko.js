/** Korean, with the keys and parameters of `en.js`. */

/** @type {Record<import("../i18n.js").Key, import("../i18n.js").Text>} */
export const ko = {
  // language
  "language.name": "한국어",
  "language.direction": "ltr",

  // app: shared by all views
  "app.name": "CoralMux",
  "app.loading": "여는 중…",
  "app.back": "뒤로",
  "app.close": "닫기",
  "app.cancel": "취소",
  "app.ok": "확인",
  "app.copy": "복사",
  "app.copied": "복사했어요",
  "app.more": "더 보기",
  "app.save": "저장",

  // chat
};
