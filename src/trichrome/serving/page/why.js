// Why a hit was found: the arithmetic behind its sparse and its multi-vector score, and what is known of it.

import { h } from "./dom.js";
import { score, units } from "./text.js";

const plain = (token) => token.replaceAll("▁", "") || "␣";
/** A token by its characters in the text where it has some: as it was written, in its own script. */
const said = (text, span, token) => {
  const found = text.slice(...units(text)(span)).trim();
  return h("bdi", {}, found || (span[0] === span[1] ? "end of text" : plain(token)));
};

export function why(query, hit) {
  const { shared, matches, content, sparse, multivector } = hit.explanation;
  return [
    sparse === null ? null : h("section", { class: "sparse" },
      h("h3", {}, "Sparse ", h("b", {}, score(sparse)), h("small", {}, " sum over shared words")),
      shared.length ? table(["word", "query", "passage", "adds"], shared.map((token) => [
        h("bdi", {}, plain(token.token)), score(token.query_weight), `× ${score(token.passage_weight)}`,
        bar(token.contribution, shared[0].contribution),
      ])) : h("p", { class: "none" }, "It shares no word with the query.")),
    multivector === null ? null : h("section", { class: "multivector" },
      h("h3", {}, "Multi-vector ", h("b", {}, score(multivector)), h("small", {}, " mean over the query")),
      table(["query", "nearest", "cosine"], matches.map((match) => [
        said(query, match.query_span, match.query_token),
        said(content, match.passage_span, match.passage_token),
        bar(match.cosine, 1),
      ]))),
    h("section", { class: "about-hit" }, h("h3", {}, "Document"), h("dl", {}, facts(hit))),
  ];
}

function table(heads, rows) {
  return h("table", {},
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell))))));
}

const bar = (value, full) =>
  h("span", { class: "amount", vars: { "--share": Math.max(0, Math.min(1, value / (full || 1))).toFixed(3) } }, score(value));

/** The id and the metadata, each as a name and a value. */
function facts(hit) {
  const known = [["id", hit.id], ...Object.entries(hit.metadata)];
  return known.filter(([, value]) => value !== null && value !== "").flatMap(([name, value]) => [
    h("dt", {}, name),
    h("dd", { dir: "auto" }, typeof value === "string" ? value : JSON.stringify(value)),
  ]);
}
