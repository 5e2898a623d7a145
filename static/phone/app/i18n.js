/**
 * The words of the app in the language of its user, and dates, sizes and numbers with them.
 *
 * A text of `strings/*.js` is a string with `{name}` where a parameter goes, or, where a number
 * decides, an object with a form for each category that Intl.PluralRules knows in that language,
 * chosen by the parameter `count`.
 */

import { en } from "./strings/en.js";
import { ko } from "./strings/ko.js";

/** @typedef {keyof typeof en} Key */
/** @typedef {string | {other: string, zero?: string, one?: string, two?: string, few?: string, many?: string}} Text */
/** @typedef {Record<string, string | number>} Parameters */

/** @type {Record<string, Record<Key, Text>>} */
export const languages = { en, ko };

/** Dispatches "change" when another language is spoken. */
export const speech = new EventTarget();

const CHOICE = "coralmux.language";
const DAY = 86_400_000;
const TURNS = /[\u202a-\u202e\u2066-\u2069]/g;

let language = "en";
let locale = "en";
/** @type {Map<string, any>} Formatters are costly to make, and used for each row of a list. */
const formatters = new Map();

/**
 * The first of `preferred` (BCP 47 tags) that the app speaks, else English.
 *
 * @param {readonly string[]} preferred
 * @returns {{language: string, locale: string}} `locale` keeps the region, for dates
 */
export function negotiate(preferred) {
  for (const tag of preferred) {
    const base = tag.toLowerCase().split("-")[0];
    if (Object.hasOwn(languages, base)) return { language: base, locale: tag };
  }
  return { language: "en", locale: "en" };
}

/** The language that the user has chosen, or null where the browser's decides. */
export function chosenLanguage() {
  try {
    const choice = localStorage.getItem(CHOICE);
    return choice && Object.hasOwn(languages, choice) ? choice : null;
  } catch {
    return null; // A browser that keeps nothing.
  }
}

/**
 * Keeps the user's choice and speaks it from now on.
 *
 * @param {string | null} choice null for the browser's language
 */
export function chooseLanguage(choice) {
  try {
    if (choice) localStorage.setItem(CHOICE, choice);
    else localStorage.removeItem(CHOICE);
  } catch {
    // A browser that keeps nothing: the choice lasts as long as the page.
  }
  speak(choice);
}

/**
 * Sets the language of `t` and of the document.
 *
 * @param {string | null} [choice]
 */
export function speak(choice = chosenLanguage()) {
  const browser = negotiate(navigator.languages);
  const matching = choice
    ? negotiate([...navigator.languages.filter((tag) => tag.startsWith(choice)), choice])
    : browser;
  language = matching.language;
  locale = matching.locale;
  formatters.clear();
  document.documentElement.lang = language;
  document.documentElement.dir = t("language.direction");
  speech.dispatchEvent(new CustomEvent("change"));
}

/**
 * The text for `key`. Numbers are written as the language writes them.
 *
 * @param {Key} key
 * @param {Parameters} [parameters]
 * @returns {string}
 */
export function t(key, parameters = {}) {
  const text = languages[language][key];
  const form = typeof text === "string" ? text : plural(text, Number(parameters.count));
  return form.replace(/\{(\w+)\}/g, (_, name) => {
    const value = parameters[name];
    return typeof value === "number" ? number(value) : unturned(String(value));
  });
}

/**
 * A name as it stands among other words: one that turns the direction of reading would turn those
 * behind it.
 *
 * @param {string} name
 */
export function unturned(name) {
  return name.replace(TURNS, "");
}

/**
 * @param {Exclude<Text, string>} forms
 * @param {number} count
 */
function plural(forms, count) {
  const rules = formatter("plural", () => new Intl.PluralRules(locale));
  return forms[/** @type {Intl.LDMLPluralRule} */ (rules.select(count))] ?? forms.other;
}

/**
 * @template T
 * @param {string} name
 * @param {() => T} make
 * @returns {T}
 */
function formatter(name, make) {
  if (!formatters.has(name)) formatters.set(name, make());
  return formatters.get(name);
}

/**
 * @param {number} at Unix milliseconds
 * @param {Intl.DateTimeFormatOptions} options
 */
function date(at, options) {
  const name = JSON.stringify(options);
  return formatter(name, () => new Intl.DateTimeFormat(locale, options)).format(at);
}

/** @param {number} value */
export function number(value) {
  return formatter("number", () => new Intl.NumberFormat(locale)).format(value);
}

/**
 * The time of day, such as "14:05".
 *
 * @param {number} at Unix milliseconds
 */
export function time(at) {
  return date(at, { hour: "numeric", minute: "2-digit" });
}

/**
 * Date and time in full, for names that screen readers say and for exports.
 *
 * @param {number} at Unix milliseconds
 */
export function moment(at) {
  return date(at, { dateStyle: "long", timeStyle: "short" });
}

/**
 * The day as people say it: "Today", "Yesterday", "Monday", "3 March", "3 March 2025".
 *
 * @param {number} at Unix milliseconds
 * @param {number} [now]
 */
export function day(at, now = Date.now()) {
  const days = daysBetween(at, now);
  if (days === 0 || days === 1) return relativeDay(-days);
  if (days > 1 && days < 7) return date(at, { weekday: "long" });
  const sameYear = new Date(at).getFullYear() === new Date(now).getFullYear();
  return date(at, { day: "numeric", month: "long", ...(sameYear ? {} : { year: "numeric" }) });
}

/**
 * Short, for a list: the time today, else the day.
 *
 * @param {number} at Unix milliseconds
 * @param {number} [now]
 */
export function when(at, now = Date.now()) {
  const days = daysBetween(at, now);
  if (days === 0) return time(at);
  if (days === 1) return relativeDay(-1);
  if (days > 1 && days < 7) return date(at, { weekday: "short" });
  return date(at, { dateStyle: "short" });
}

/** @param {number} days 0 or -1 */
function relativeDay(days) {
  const words = formatter(
    "relative",
    () => new Intl.RelativeTimeFormat(locale, { numeric: "auto" }),
  ).format(days, "day");
  return words.charAt(0).toLocaleUpperCase(locale) + words.slice(1);
}

/**
 * @param {number} at
 * @param {number} now
 */
function daysBetween(at, now) {
  const midnight = (/** @type {number} */ ms) => new Date(ms).setHours(0, 0, 0, 0);
  return Math.round((midnight(now) - midnight(at)) / DAY);
}

/**
 * A size as people read it, such as "4.8 MB": one of 1,000 kB.
 *
 * @param {number} count bytes
 */
export function bytes(count) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  let step = 0;
  let value = count;
  while (value >= 1000 && step < units.length - 1) {
    value /= 1000;
    step += 1;
  }
  const unit = units[step];
  const digits = step > 0 && value < 10 ? 1 : 0;
  return formatter(
    `${unit}${digits}`,
    () =>
      new Intl.NumberFormat(locale, {
        style: "unit",
        unit,
        unitDisplay: step ? "short" : "long",
        maximumFractionDigits: digits,
      }),
  ).format(value);
}
