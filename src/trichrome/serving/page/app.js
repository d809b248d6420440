// The page: state → search → what is shown.

import * as api from "./api.js";
import { comparison } from "./compare.js";
import * as controls from "./controls.js";
import { find } from "./dom.js";
import { hitList, moveFrom, placesOf } from "./hits.js";
import { listen } from "./keys.js";
import { lens } from "./lens.js";
import { modeMark } from "./mark.js";
import { cosineScale, queryWords } from "./marks.js";
import { beginning, failure, noIndex, nothing, waiting } from "./notices.js";
import { fromAddress, MODES, modeNamed, SIGNALS, toAddress } from "./state.js";
import { count, languageName } from "./text.js";

const RUNNERS_UP = 2;
const COMPARED = 10;

let state = fromAddress(location.search);
let indexes = [];
let running = null;
let held = null; // what Esc lets go of
let modes = MODES; // those that the index can give

async function start() {
  find("brand").append(modeMark(SIGNALS));
  api.askWith(controls.askForKey);
  controls.buildControls((name, value) => change({ [name]: value }));
  controls.listenTheme();
  listen({
    mode: (i) => modes.includes(MODES[i]) && change({ mode: MODES[i].name, view: "list" }),
    compare: () => change({ view: state.view === "list" ? "compare" : "list" }),
    release: () => held?.release() ?? false,
  });
  find("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    change({ q: find("q").value.trim() }, true);
  });
  addEventListener("popstate", () => {
    state = fromAddress(location.search);
    void open();
  });
  await open();
}

/** The indexes, then what the address says. */
async function open() {
  controls.showState(state);
  try {
    if (!indexes.length) indexes = (await api.indexes()).indexes;
  } catch (error) {
    show(failure(error, open));
    return;
  }
  if (!indexes.length) {
    show(noIndex());
    return;
  }
  controls.fillIndexes(indexes);
  state.index ||= indexes[0].name;
  controls.showState(state);
  void describe();
  await search();
}

/** What can be chosen for this index. */
async function describe() {
  const index = indexes.find((one) => one.name === state.index);
  if (!index) return;
  modes = controls.fitModes(index.signals);
  if (!modes.includes(modeNamed(state.mode))) {
    state.mode = modes.at(-1).name;
    controls.showState(state);
  }
  controls.about(index, 0);
  let languages = [];
  try {
    languages = (await api.values(index.name, "lang")).values;
  } catch {
    // the filter stays away; the search itself says what is wrong
  }
  if (index.name !== state.index) return;
  controls.fillLanguages(languages, state.lang);
  controls.about(index, languages.length);
}

/** Another state: shown, put into the address, searched for. */
function change(changes, again = false) {
  const before = toAddress(state);
  state = { ...state, ...changes };
  if ("index" in changes) state.lang = "";
  const after = toAddress(state);
  if (after !== before) history.pushState(null, "", after);
  else if (!again) return;
  controls.showState(state);
  if ("index" in changes) void describe();
  void search();
}

async function search() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  document.title = state.q ? `${state.q} · trichrome` : "trichrome";
  if (!state.q) {
    show(beginning());
    if (!matchMedia("(pointer: coarse)").matches) find("q").focus();
    return;
  }
  busy(true);
  const before = placesOf(find("shown").querySelector(".hits"));
  if (!find("shown").querySelector(".hits, .comparison")) find("shown").replaceChildren(waiting());
  const began = performance.now();
  try {
    if (state.view === "compare") await compare(signal);
    else await list(signal, before, began);
  } catch (error) {
    if (error.name !== "AbortError") show(failure(error, search));
  } finally {
    if (!signal.aborted) busy(false);
  }
}

function asked(mode, k, more = {}) {
  const filter = state.lang ? { filter: { lang: state.lang } } : {};
  return { query: state.q, mode, k, ...filter, ...more };
}

async function list(signal, before, began) {
  const { q, mode } = state;
  const answer = await api.search(state.index, asked(mode, state.k, { explain: true, runners_up: RUNNERS_UP }), signal);
  const words = queryWords(q, answer.query);
  const by = (modeNamed(mode).long ?? mode).toLowerCase();
  const seen = lens(q, words);
  if (!answer.hits.length) {
    show(nothing(mode, state.lang && languageName(state.lang), () => change({ lang: "" })), seen, `No hits by ${by}`);
    return;
  }
  const shown = hitList(q, answer, words, cosineScale(answer.hits), seen);
  const took = (performance.now() - began) / 1000;
  const seconds = took < 1 ? `${Math.round(1000 * took)} ms` : `${took.toFixed(1)} s`;
  show(shown, seen, `${count(answer.hits.length, "hit")} by ${by}, in ${seconds}`);
  moveFrom(shown, before);
}

/** All rankings at once: the server encodes their queries in one pass. One that fails leaves the others. */
async function compare(signal) {
  const answers = await Promise.all(modes.map(async (mode) => {
    try {
      return [mode.name, await api.search(state.index, asked(mode.name, COMPARED), signal)];
    } catch (error) {
      if (error.name === "AbortError") throw error;
      return [mode.name, { error }];
    }
  }));
  const failed = answers.filter(([, answer]) => answer.error);
  if (failed.length === answers.length) throw failed[0][1].error;
  const made = comparison(Object.fromEntries(answers), (mode) => change({ mode, view: "list" }));
  const found = new Set(answers.flatMap(([, answer]) => (answer.hits ?? []).map((hit) => hit.id)));
  show(made.element, { element: [], release: made.release }, `${count(found.size, "hit")} in the first ${COMPARED} of ${count(modes.length, "ranking")}`);
}

/** seen: the lens over the query, or what else can hold something. status: told to screen readers too. */
function show(shown, seen = null, status = "") {
  busy(false);
  held = seen;
  document.body.classList.remove("lighting");
  find("lens").replaceChildren(...(seen?.element ?? []));
  find("lens").hidden = !seen?.element.length;
  find("status").textContent = status;
  find("shown").replaceChildren(shown);
}

function busy(on) {
  document.body.classList.toggle("busy", on);
  find("results").setAttribute("aria-busy", String(on));
  if (on) find("status").textContent = "Searching…";
}

void start();
