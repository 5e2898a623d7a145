/**
 * English: every text that people see. Each other language has the same keys and parameters.
 *
 * A text is a string with `{name}` for a parameter, or an object of plural forms, chosen by the
 * parameter `count`. Keys begin with the name of their section.
 */

export const en = {
  // language
  "language.name": "English",
  "language.direction": "ltr",

  // app: shared by all views
  "app.name": "CoralMux",
  "app.loading": "Opening…",
  "app.back": "Back",
  "app.close": "Close",
  "app.cancel": "Cancel",
  "app.ok": "OK",
  "app.copy": "Copy",
  "app.copied": "Copied",
  "app.more": "More",
  "app.save": "Save",

  // chat
};
