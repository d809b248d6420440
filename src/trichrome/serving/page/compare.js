// The five rankings side by side; a ribbon follows each hit from one to the next.

import { h, s } from "./dom.js";
import { hitMark, modeMark } from "./mark.js";
import { MODES, SIGNALS, SIGNAL_LABELS } from "./state.js";
import { rangesOf, strengthsOf } from "./strengths.js";
import { languageName, score, tagOf } from "./text.js";

/** answers: ranking → {hits} or {error}, of those that the index can give. choose: shows one as a list. */
export function comparison(answers, choose) {
  const modes = MODES.filter((mode) => answers[mode.name]);
  const hits = new Map(modes.flatMap((mode) => (answers[mode.name].hits ?? []).map((hit) => [hit.id, hit])));
  const ranges = rangesOf([...hits.values()]);
  const strengths = new Map([...hits].map(([id, hit]) => [id, strengthsOf(ranges, hit)]));
  const ranks = new Map([...hits.keys()].map((id) => [id, modes.map((mode) => rankOf(answers[mode.name], id))]));
  const ribbons = s("svg", { class: "ribbons", "aria-hidden": "true" });
  const detail = h("aside", { class: "detail", "aria-live": "polite" });
  const cells = [];
  let chosen = null;

  const columns = modes.map((mode, column) => {
    const { hits: found = [], error } = answers[mode.name];
    const list = found.map((hit, row) => {
      const cell = h("button", { type: "button", class: "cell", "data-id": hit.id, "data-row": row, "data-column": column,
        tabindex: row || column ? -1 : 0, "aria-pressed": "false",
        "aria-label": `${row + 1}. in ${mode.long ?? mode.label}: ${hit.title || hit.text.slice(0, 120)}. ${spoken(hit.id)}`,
        on: {
          pointerenter: (event) => event.pointerType === "mouse" && show(hit.id),
          pointerleave: () => show(chosen),
          focus: () => show(hit.id),
          blur: () => show(chosen),
          click: () => keep(chosen === hit.id ? null : hit.id),
        } },
      h("span", { class: "rank" }, row + 1),
      hitMark(strengths.get(hit.id)),
      h("span", { class: "gist", dir: "auto", lang: tagOf(hit.lang) }, hit.title || hit.text.slice(0, 160)));
      cells.push(cell);
      return h("li", {}, cell);
    });
    return h("section", { class: "ranking", "aria-label": mode.long ?? mode.label },
      h("h2", {}, h("button", { type: "button", class: "quiet", title: "Show as a list", on: { click: () => choose(mode.name) } },
        modeMark(mode.signals), mode.label)),
      error ? h("p", { class: "none" }, error.message) : null,
      !error && !found.length ? h("p", { class: "none" }, "No hits") : null,
      h("ol", {}, list));
  });
  const grid = h("div", { class: "rankings", vars: { "--columns": modes.length }, on: { keydown: step } }, ribbons, columns);

  function spoken(id) {
    return modes.map((mode, i) => `${mode.long ?? mode.label} ${ranks.get(id)[i] ?? "none"}`).join(", ");
  }

  function show(id) {
    grid.classList.toggle("following", id !== null);
    for (const element of grid.querySelectorAll("[data-id]")) element.classList.toggle("followed", element.dataset.id === id);
    detail.replaceChildren(...(id === null ? hint() : told(hits.get(id), ranks.get(id), modes)));
  }

  function keep(id) {
    chosen = id;
    for (const cell of cells) cell.setAttribute("aria-pressed", String(cell.dataset.id === id));
    show(id);
  }

  /** Up and down in a ranking; sideways to the same hit, or to the same place where the next lacks it. */
  function step(event) {
    const cell = event.target.closest(".cell");
    const [rows, sideways] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] ?? [0, 0];
    if (!cell || (!rows && !sideways)) return;
    const column = Number(cell.dataset.column) + sideways;
    const there = cells.filter((other) => Number(other.dataset.column) === column);
    const same = sideways ? there.find((other) => other.dataset.id === cell.dataset.id) : undefined;
    const next = same ?? there[Math.min(Number(cell.dataset.row) + rows, there.length - (rows ? 0 : 1))];
    if (!next) return;
    event.preventDefault();
    event.stopPropagation();
    for (const other of cells) other.setAttribute("tabindex", other === next ? 0 : -1);
    next.focus();
  }

  const draw = () => ribbons.replaceChildren(...ribbonsOf(grid, cells, strengths, modes.length));
  new ResizeObserver(draw).observe(grid);
  show(null);
  return {
    element: h("div", { class: "comparison" }, grid, detail),
    release() {
      const held = chosen !== null;
      keep(null);
      return held;
    },
  };
}

function rankOf(answer, id) {
  const place = (answer.hits ?? []).findIndex((hit) => hit.id === id);
  return place < 0 ? null : place + 1;
}

const hint = () => [h("p", { class: "hint" }, "Point at a hit to follow it through the rankings; a ribbon is as broad as its signals are strong.")];

/** One hit, under the rankings: its text, its scores and its ranks. */
function told(hit, ranks, modes) {
  return [
    h("p", { class: "text", dir: "auto", lang: tagOf(hit.lang) }, hit.title ? h("b", {}, `${hit.title} `) : null,
      hit.text.length > 320 ? `${hit.text.slice(0, 320)}…` : hit.text),
    h("p", { class: "meta" },
      hit.lang && h("span", { class: "lang" }, languageName(hit.lang)),
      SIGNALS.map((signal) => h("span", { class: signal }, `${SIGNAL_LABELS[signal]} `, h("b", {}, hit[signal] === null ? "–" : score(hit[signal]))))),
    h("p", { class: "meta ranks" }, modes.map((mode, i) => h("span", {}, `${mode.label} `, h("b", {}, ranks[i] ?? "–")))),
  ];
}

/** From each hit a ribbon to the same one in the next ranking that has it (behind those that lack it), its
 *  strands as broad as its signals are strong; where none has it, it ends. */
function ribbonsOf(grid, cells, strengths, columns) {
  const frame = grid.getBoundingClientRect();
  const boxes = new Map(cells.map((cell) => {
    const box = cell.getBoundingClientRect();
    const place = { start: box.left - frame.left, end: box.right - frame.left, middle: (box.top + box.bottom) / 2 - frame.top };
    return [`${cell.dataset.column} ${cell.dataset.id}`, place];
  }));
  const drawn = [];
  for (const cell of cells) {
    const { id } = cell.dataset;
    const column = Number(cell.dataset.column);
    if (column === columns - 1) continue;
    let next = column + 1;
    while (next < columns && !boxes.has(`${next} ${id}`)) next += 1;
    const from = boxes.get(`${column} ${id}`);
    const to = boxes.get(`${next} ${id}`);
    const strands = Object.entries(strengths.get(id)).filter(([, strength]) => strength);
    drawn.push(s("g", { class: next === column + 1 ? "ribbon" : "ribbon lost", "data-id": id }, strands.map(([signal, strength], i) => {
      const shift = (i - (strands.length - 1) / 2) * 1.6;
      return s("path", { class: signal, d: to ? curve(from, to, shift) : stub(from, shift), "stroke-width": (0.6 + 3 * strength).toFixed(2) });
    })));
  }
  return drawn;
}

function curve(from, to, shift) {
  const [x1, x2] = [from.end, to.start];
  const bend = (x2 - x1) / 2;
  const [y1, y2] = [from.middle + shift, to.middle + shift];
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
}

const stub = (from, shift) => `M${from.end} ${from.middle + shift}h8`;
