// The hits as a list: rank, mark, text with what matched, and the three scores as bars.

import { h, still } from "./dom.js";
import { marked, piecesOf } from "./marks.js";
import { hitMark } from "./mark.js";
import { modeNamed, SIGNALS, SIGNAL_LABELS } from "./state.js";
import { rangesOf, strengthsOf } from "./strengths.js";
import { directionOf, languageName, score, tagOf, windowOf } from "./text.js";
import { why } from "./why.js";

/** The list of an answer. words, scale: of marks.js; lens: gathers what lights up. */
export function hitList(query, answer, words, scale, lens) {
  const ranges = rangesOf(answer.hits);
  const counted = modeNamed(answer.mode).signals;
  const all = answer.hits.map((hit) => strengthsOf(ranges, hit));
  const items = answer.hits.map((hit, i) => {
    const pieces = piecesOf(query, words, hit, scale);
    const panel = h("div", { class: "why", id: `why-${i}`, hidden: true });
    const open = () => toggle(item, panel, () => why(query, hit));
    const button = h("button", { class: "quiet open-why", type: "button", "aria-expanded": "false", "aria-controls": panel.id,
      on: { click: open } }, "Why");
    const item = h("li", { class: "hit", "data-id": hit.id, tabindex: i ? -1 : 0, "aria-labelledby": `rank-${i} text-${i}`,
      on: { keydown: (event) => event.target === item && event.key === "Enter" && open() } },
      h("div", { class: "place" }, h("h2", { class: "rank", id: `rank-${i}` }, h("span", { class: "unseen" }, "Hit "), String(i + 1)), hitMark(all[i])),
      h("div", { class: "said", dir: directionOf(hit.text) }, ...texts(hit, i, pieces, lens), meta(hit, button)),
      scores(hit, all[i], counted, all),
      panel);
    return item;
  });
  return h("ol", { class: "hits" }, items);
}

function texts(hit, i, pieces, lens) {
  const { content } = hit.explanation;
  const lang = tagOf(hit.lang);
  const start = content.length - hit.text.length; // the title and a line break come first
  const draw = (range) => {
    const lights = [];
    const nodes = marked(content, range, pieces, lights);
    lens.lights(lights);
    return nodes;
  };
  const title = hit.title && h("h3", { dir: "auto", lang }, draw([0, hit.title.length]));
  const whole = [start, content.length];
  const shown = windowOf(content, start, pieces.filter((p) => p.start >= start).map((p) => [p.start, p.end]));
  const text = h("p", { class: "text", id: `text-${i}`, dir: "auto", lang });
  const cut = shown[0] > whole[0] || shown[1] < whole[1];
  text.append(shown[0] > whole[0] ? "… " : "", ...draw(shown), shown[1] < whole[1] ? " …" : "");
  const more = cut && h("button", { type: "button", class: "quiet more", on: { click: () => {
    text.replaceChildren(...draw(whole));
    more.remove();
    text.closest(".hit").focus();
  } } }, "Whole passage");
  return [title, text, more];
}

const UNSAID = new Set(["document", "start", "end", "path", "format", "pages", "message"]);

function meta(hit, button) {
  const said = Object.entries(hit.metadata)
    .filter(([name, value]) => !UNSAID.has(name) && value !== "" && ["string", "number"].includes(typeof value))
    .slice(0, 3);
  return h("div", { class: "meta" },
    hit.lang && h("span", { class: "lang" }, languageName(hit.lang)),
    said.map(([name, value]) => h("span", { title: name }, h("bdi", {}, String(value)))),
    !hit.lang && !said.length && h("bdi", {}, hit.id),
    button);
}

/** Bars from the lowest to the highest of these hits; ticks where the others stand. */
function scores(hit, strengths, counted, all) {
  return h("dl", { class: "scores" }, SIGNALS.map((signal) => {
    const value = hit[signal];
    const used = counted.includes(signal);
    const ticks = all.map((other) => other[signal]).filter(Boolean);
    return h("div", { class: `score ${signal}${used ? "" : " unused"}`, title: used ? null : "not part of this ranking" },
      h("dt", {}, SIGNAL_LABELS[signal]),
      h("dd", {},
        h("span", { class: "bar", "aria-hidden": "true", vars: { "--share": (strengths[signal] ?? 0).toFixed(3) } },
          ticks.map((at) => h("i", { vars: { "--at": at.toFixed(3) } }))),
        h("span", { class: "number" }, value === null ? "–" : score(value))));
  }));
}

function toggle(item, panel, make) {
  const opened = panel.hidden;
  if (!panel.firstChild) panel.append(...make().filter(Boolean));
  panel.hidden = !opened;
  item.classList.toggle("opened", opened);
  item.querySelector(".open-why").setAttribute("aria-expanded", String(opened));
}

/** Where each hit of a list stands on the screen. */
export function placesOf(list) {
  const hits = list?.querySelectorAll(".hit") ?? [];
  return new Map([...hits].map((hit) => [hit.dataset.id, hit.getBoundingClientRect().top]));
}

/** Hits that were there before move from their old place, so that one sees what a ranking changes. */
export function moveFrom(list, before) {
  if (still() || !before.size) return;
  for (const [id, top] of placesOf(list)) {
    const hit = list.querySelector(`.hit[data-id="${CSS.escape(id)}"]`);
    const from = before.get(id);
    const frames = from === undefined
      ? [{ opacity: 0 }, { opacity: 1 }]
      : [{ transform: `translateY(${from - top}px)` }, { transform: "none" }];
    hit.animate(frames, { duration: 420, easing: "cubic-bezier(.2, .8, .2, 1)" });
  }
}
