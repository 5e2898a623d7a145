// What the page has beside its modules.

/** Of fragment.js: the fragment that the page was opened with, the first time; then "". */
declare var coralmuxFragment: (() => string) | undefined;

/** Trusted Types, where the browser has them. */
declare var trustedTypes:
  | {
      createPolicy(
        name: string,
        rules: { createScriptURL?: (text: string) => string },
      ): { createScriptURL(text: string): unknown };
    }
  | undefined;
