// Places in texts. The server counts characters (code points), strings here count UTF-16 units.

// Scripts that put no space between words: there a token stays as it is, and is not grown to a word.
const UNSPACED =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}ー々]/u;
const JOINS = /[\p{L}\p{M}\p{N}]/u;
const joins = (character) => JOINS.test(character) && !UNSPACED.test(character);

/** A function from the server's [start, end) to this string's. */
export function units(text) {
  if (!/[\ud800-\udbff]/.test(text)) return ([start, end]) => [start, end];
  const places = [];
  let at = 0;
  for (const character of text) {
    places.push(at);
    at += character.length;
  }
  places.push(at);
  return ([start, end]) => [places[start] ?? at, places[end] ?? at];
}

const before = (text, at) => {
  const low = text.charCodeAt(at - 1);
  return text.slice(low >= 0xdc00 && low <= 0xdfff ? at - 2 : at - 1, at);
};
const after = (text, at) => String.fromCodePoint(text.codePointAt(at));

/** A token's place grown to the whole word, so that no word is torn (or, in Arabic, disjoined). */
export function wordAround(text, [start, end]) {
  if (start >= end) return [start, end];
  while (start > 0 && joins(before(text, start)) && joins(after(text, start))) start -= before(text, start).length;
  while (end < text.length && joins(after(text, end)) && joins(before(text, end))) end += after(text, end).length;
  return [start, end];
}

const LEFTWARD = /^\P{L}*[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u;

/** The way a text runs, by its first letter. */
export const directionOf = (text) => (LEFTWARD.test(text) ? "rtl" : "ltr");

/** Whether there is a letter or a digit. */
export const saysSomething = (text) => JOINS.test(text);

const SHOWN = 420;

/** Where a window of a long text should begin and end so that it holds most of these places. */
export function windowOf(text, from, places) {
  if (text.length - from <= SHOWN * 1.25) return [from, text.length];
  let best = from;
  let most = -1;
  for (const [first] of places) {
    const held = places.filter(([a, b]) => first <= a && b <= first + SHOWN * 0.75).length;
    if (held > most) [best, most] = [first, held];
  }
  let start = Math.max(from, Math.min(best - SHOWN / 6, text.length - SHOWN));
  while (start > from && !/\s/.test(text[start - 1])) {
    start -= 1;
    if (best - start > SHOWN / 3) break; // a script without spaces
  }
  if (start > from && text.charCodeAt(start) >= 0xdc00 && text.charCodeAt(start) <= 0xdfff) start -= 1;
  let end = Math.min(text.length, Math.ceil(start + SHOWN));
  if (text.charCodeAt(end) >= 0xdc00 && text.charCodeAt(end) <= 0xdfff) end += 1;
  return [Math.floor(start), end];
}

const NAMES = typeof Intl.DisplayNames === "function" ? new Intl.DisplayNames(["en"], { type: "language" }) : null;

/** A language tag as browsers know it: zh_Hans is zh-Hans. Undefined for what is none. */
export function tagOf(lang) {
  try {
    return lang ? Intl.getCanonicalLocales(lang.replaceAll("_", "-"))[0] : undefined;
  } catch {
    return undefined;
  }
}

/** A language's English name, or its tag. */
export function languageName(lang) {
  const tag = tagOf(lang);
  return (tag && NAMES?.of(tag)) || lang;
}

const SCORE = new Intl.NumberFormat("en", { minimumFractionDigits: 3, maximumFractionDigits: 3 });
const COUNT = new Intl.NumberFormat("en");
/** Numbers as they are shown: a score, or a count. */
export const score = (value) => SCORE.format(value);
export const count = (value, one, many = `${one}s`) => `${COUNT.format(value)} ${value === 1 ? one : many}`;
