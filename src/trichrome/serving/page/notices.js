// What is shown where there are no hits: the beginning, waiting, nothing found, an error, no index.

import { h } from "./dom.js";
import { modeMark } from "./mark.js";
import { SIGNALS, SIGNAL_LABELS, SIGNAL_SAYS } from "./state.js";
import { count } from "./text.js";

/** Before the first search: the three signals. */
export function beginning() {
  return h("section", { class: "notice beginning" },
    modeMark(SIGNALS),
    h("h2", {}, "One question, three ways to answer it"),
    h("ul", {}, SIGNALS.map((signal) => h("li", { class: signal },
      h("b", {}, signal === "multivector" ? "multi-vector" : SIGNAL_LABELS[signal]), h("span", {}, SIGNAL_SAYS[signal])))),
    h("p", {}, "Where they agree, their colours mix."));
}

/** While the first hits are on their way: lines where they will stand. */
export const waiting = () => h("div", { class: "waiting", "aria-hidden": "true" }, [1, 2, 3, 4].map(() => h("div", {}, h("i"), h("i"), h("i"))));

/** No hit. unfilter: searches without the language, where one was chosen. */
export const nothing = (mode, language, unfilter) => h("section", { class: "notice" },
  h("h2", {}, "Nothing was found"),
  h("p", {}, mode === "sparse"
    ? "Sparse search finds passages that share a word with the question. Other words, or another ranking, may find more."
    : "The index holds no passage that fits this search."),
  language && h("p", {}, h("button", { type: "button", class: "main", on: { click: unfilter } }, `Search beyond ${language}`)));

export const noIndex = () => h("section", { class: "notice" },
  h("h2", {}, "This server has no index yet"),
  h("p", {}, "Make one from a folder of documents, and start the server with it:"),
  h("pre", {}, "trichrome index PATH --to notes\ntrichrome serve notes"));

const TITLES = {
  0: "No connection",
  404: "Not there",
  413: "Too much at once",
  422: "This cannot be searched for",
  429: "The server is busy",
  503: "The server is not ready",
};

/** An error as one: what went wrong, in the server's words, and what can be done. */
export function failure(error, again) {
  const known = error.status !== undefined;
  const wait = error.wait ? ` Try again in ${count(error.wait, "second")}.` : "";
  return h("section", { class: "notice failure", role: "alert" },
    h("h2", {}, (known && TITLES[error.status]) || "Something went wrong"),
    h("p", { dir: "auto" }, known ? error.message.charAt(0).toUpperCase() + error.message.slice(1) : `The page failed: ${error.message}`, wait),
    error.id && h("p", { class: "meta" }, `status ${error.status}, request `, h("code", {}, error.id)),
    h("p", {}, h("button", { type: "button", class: "main", on: { click: again } }, "Try again")));
}
