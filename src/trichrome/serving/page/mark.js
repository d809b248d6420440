// The mark: three discs, one a signal, printed over one another; where signals agree their colours mix.

import { s } from "./dom.js";
import { SIGNALS } from "./state.js";

const CENTRES = { dense: [12, 9.1], sparse: [8.9, 14.5], multivector: [15.1, 14.5] };

/** radii: signal → radius of its disc, 0 for a ring alone. */
function discs(radii, ring) {
  return s("svg", { class: "mark", viewBox: "0 0 24 24", "aria-hidden": "true" },
    s("g", { class: "overprint" }, SIGNALS.map((signal) => {
      const [cx, cy] = CENTRES[signal];
      const on = radii[signal] > 0;
      return s("circle", { class: on ? signal : "ring", cx, cy, r: on ? radii[signal] : ring });
    })));
}

/** A hit's mark: each disc as large as the signal is strong (0 … 1) among the hits, none where it is not. */
export function hitMark(strengths) {
  const radius = (strength) => (strength ? 1.6 + 4.9 * strength : 0);
  return discs(Object.fromEntries(SIGNALS.map((name) => [name, radius(strengths[name])])), 1);
}

/** A ranking's mark: the discs of the signals that it sums. */
export function modeMark(signals) {
  return discs(Object.fromEntries(SIGNALS.map((name) => [name, signals.includes(name) ? 6.2 : 0])), 5.6);
}
