// How strong a signal is in one hit, beside the other hits: what bars, marks and ribbons are drawn by.

import { SIGNALS } from "./state.js";

/** Of some hits: signal → [least, most], null where no hit has that signal. */
export function rangesOf(hits) {
  return Object.fromEntries(SIGNALS.map((signal) => {
    const scores = hits.map((hit) => hit[signal]).filter((score) => score !== null);
    return [signal, scores.length ? [Math.min(...scores), Math.max(...scores)] : null];
  }));
}

/** 0 … 1 between the least and the most of a signal; null where the hit has none. No shared word is 0, and
 *  equal scores are all 1. */
export function strength(ranges, signal, score) {
  if (score === null || ranges[signal] === null) return null;
  const [least, most] = ranges[signal];
  if (signal === "sparse") return most > 0 ? Math.max(score, 0) / most : 0; // it has a true zero
  return most > least ? 0.12 + 0.88 * ((score - least) / (most - least)) : 1;
}

export const strengthsOf = (ranges, hit) =>
  Object.fromEntries(SIGNALS.map((signal) => [signal, strength(ranges, signal, hit[signal])]));
