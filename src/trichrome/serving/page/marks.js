// What matched, as pieces of a text: how much each adds to the sparse score, and which words of the query
// found it nearest.

import { h } from "./dom.js";
import { saysSomething, units, wordAround } from "./text.js";

/** The query's words: tokens grown to words, in order. weight: sparse, 0 … 1 of the heaviest. */
export function queryWords(query, tokens) {
  const at = units(query);
  const words = new Map();
  for (const { span, weight } of tokens) {
    const [start, end] = wordAround(query, at(span));
    const text = query.slice(start, end);
    if (!saysSomething(text)) continue;
    const word = words.get(`${start}-${end}`) ?? { start, end, text, weight: 0 };
    word.weight = Math.max(word.weight, weight);
    words.set(`${start}-${end}`, word);
  }
  const found = [...words.values()].sort((a, b) => a.start - b.start);
  const most = Math.max(...found.map((word) => word.weight), 1e-9);
  return found.map((word) => ({ ...word, share: word.weight / most }));
}

/** From a cosine to 0 … 1, by what is usual among these hits: cosines of one model lie close together. */
export function cosineScale(hits) {
  const cosines = hits.flatMap((hit) => hit.explanation.matches.map((match) => match.cosine)).sort((a, b) => a - b);
  const low = cosines[Math.floor(cosines.length / 10)] ?? 0;
  const high = cosines.at(-1) ?? 1;
  return (cosine) => (high > low ? Math.min(1, Math.max(0, (cosine - low) / (high - low))) : 1);
}

/** The pieces of a hit's content that something is to be said of, in order and apart from each other:
 *  {start, end, sparse, near, lit}. sparse: its share of the sparse score beside the largest; near: how near
 *  it is to some word of the query, 0 unless nearer than is usual; lit: query word → strength. */
export function piecesOf(query, words, hit, scale) {
  const { content, shared, matches } = hit.explanation;
  const inContent = units(content);
  const inQuery = units(query);
  const pieces = new Map();
  const piece = (span) => {
    const [start, end] = wordAround(content, inContent(span));
    if (!saysSomething(content.slice(start, end))) return null;
    const key = `${start}-${end}`;
    if (!pieces.has(key)) pieces.set(key, { start, end, sparse: 0, near: 0, lit: new Map() });
    return pieces.get(key);
  };
  const light = (found, word, strength) => found?.lit.set(word, Math.max(found.lit.get(word) ?? 0, strength));

  const most = Math.max(...shared.map((token) => token.contribution), 1e-9);
  for (const token of shared) {
    for (const span of token.passage_spans) {
      const found = piece(span);
      if (found) found.sparse = Math.max(found.sparse, token.contribution / most);
    }
  }
  const wordAt = (span) => {
    const [start, end] = inQuery(span);
    return start < end ? words.findIndex((word) => word.start < end && start < word.end) : -1;
  };
  const spoken = matches.filter((match) => wordAt(match.query_span) >= 0);
  const usual = spoken.reduce((sum, match) => sum + match.cosine, 0) / Math.max(spoken.length, 1);
  for (const match of spoken) {
    const word = wordAt(match.query_span);
    const found = piece(match.passage_span);
    light(found, word, 0.35 + 0.65 * scale(match.cosine));
    if (found && match.cosine >= usual) found.near = Math.max(found.near, 0.3 + 0.7 * scale(match.cosine));
    for (const other of match.runners_up) light(piece(other.span), word, 0.5 * scale(other.cosine));
  }
  return apart([...pieces.values()].sort((a, b) => a.start - b.start || a.end - b.end));
}

/** Pieces that overlap are joined. */
function apart(pieces) {
  const found = [];
  for (const piece of pieces) {
    const last = found.at(-1);
    if (!last || piece.start >= last.end) {
      found.push(piece);
      continue;
    }
    last.end = Math.max(last.end, piece.end);
    last.sparse = Math.max(last.sparse, piece.sparse);
    last.near = Math.max(last.near, piece.near);
    for (const [word, strength] of piece.lit) last.lit.set(word, Math.max(last.lit.get(word) ?? 0, strength));
  }
  return found;
}

/** A stretch of a text as nodes, its pieces as <mark>. lights: gathers (word, element, strength). */
export function marked(text, [from, to], pieces, lights) {
  const nodes = [];
  let at = from;
  for (const piece of pieces) {
    if (piece.start < at || piece.end > to) continue;
    nodes.push(text.slice(at, piece.start));
    const said = text.slice(piece.start, piece.end);
    const quiet = piece.sparse === 0 && piece.near === 0; // of interest only when a word is pointed at
    const element = h(quiet ? "span" : "mark",
      { class: "piece", vars: { "--sparse-share": piece.sparse.toFixed(3), "--near": piece.near.toFixed(3) } }, said);
    for (const [word, strength] of piece.lit) lights?.push({ word, element, strength });
    nodes.push(element);
    at = piece.end;
  }
  nodes.push(text.slice(at, to));
  return nodes;
}
