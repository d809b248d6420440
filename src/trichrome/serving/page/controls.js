// The form's controls: rankings, views, index, language, number of hits; the theme; the dialogs.

import { find, h, keep } from "./dom.js";
import { modeMark } from "./mark.js";
import { MODES, SIZES, VIEWS } from "./state.js";
import { count, languageName, tagOf } from "./text.js";

/** changed(name, value): what was chosen. */
export function buildControls(changed) {
  find("modes").append(...MODES.map((mode) => radio("mode", mode, modeMark(mode.signals), changed)));
  find("views").append(...VIEWS.map((view) => radio("view", view, null, changed)));
  find("k").append(...SIZES.map((size) => h("option", { value: size }, String(size))));
  for (const name of ["index", "lang", "k"]) {
    find(name).addEventListener("change", (event) => changed(name, name === "k" ? Number(event.target.value) : event.target.value));
  }
}

function radio(name, { name: value, label, long }, mark, changed) {
  const input = h("input", { type: "radio", name, value, "aria-label": long ?? label, on: { change: () => changed(name, value) } });
  return h("label", { title: long ?? label }, input, h("span", {}, mark, label));
}

/** Show what is chosen. */
export function showState(state) {
  find("q").value = state.q;
  for (const name of ["mode", "view"]) {
    for (const input of document.querySelectorAll(`input[name=${name}]`)) input.checked = input.value === state[name];
  }
  for (const name of ["index", "lang", "k"]) find(name).value = state[name];
  document.body.dataset.view = state.view;
}

export function fillIndexes(all) {
  find("index").replaceChildren(...all.map((index) => h("option", { value: index.name }, index.name)));
  find("index").closest("label").hidden = all.length < 2;
}

/** Rankings whose signals the index lacks can't be chosen. */
export function fitModes(signals) {
  const fits = Object.fromEntries(MODES.map((mode) => [mode.name, mode.signals.every((signal) => signals.includes(signal))]));
  for (const input of document.querySelectorAll("input[name=mode]")) {
    input.disabled = !fits[input.value];
    input.closest("label").title = fits[input.value] ? input.getAttribute("aria-label") : "this index lacks a signal that it needs";
  }
  return MODES.filter((mode) => fits[mode.name]);
}

/** The languages of an index; a chosen one that it lacks is kept, so that the state is not changed behind it. */
export function fillLanguages(counts, chosen) {
  const known = counts.map(({ value, count: n }) => ({ value, label: `${languageName(value)} (${n.toLocaleString("en")})` }));
  known.sort((a, b) => a.label.localeCompare(b.label, "en"));
  if (chosen && !known.some(({ value }) => value === chosen)) known.push({ value: chosen, label: languageName(chosen) });
  find("lang").replaceChildren(h("option", { value: "" }, "all"),
    ...known.map(({ value, label }) => h("option", { value, lang: tagOf(value) && "en" }, label)));
  find("lang").value = chosen;
  find("lang-choice").hidden = known.length < 2 && !chosen;
}

export function about(index, languages) {
  const said = [count(index.documents, "passage"), languages > 1 && count(languages, "language"), `model ${index.model}`];
  find("about").replaceChildren(said.filter(Boolean).join(" · "));
}

/** Light, dark, or the system's. */
export function listenTheme() {
  const order = ["auto", "light", "dark"];
  let theme = document.documentElement.dataset.theme ?? "auto";
  const show = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    find("theme").replaceChildren({ auto: "◐ Auto", light: "○ Light", dark: "● Dark" }[theme]);
    find("theme").setAttribute("aria-label", `Theme: ${theme}`);
  };
  find("theme").addEventListener("click", () => {
    theme = order[(order.indexOf(theme) + 1) % order.length];
    keep("localStorage", "trichrome-theme", theme === "auto" ? null : theme);
    show();
  });
  show();
  find("open-help").addEventListener("click", () => find("help").showModal());
}

/** Ask for the server's key until one is given. */
export function askForKey(wrong) {
  const dialog = find("key");
  const value = find("key-value");
  find("key-says").textContent = wrong
    ? "The server does not know that key. Try another."
    : "It is kept in this tab only, and forgotten when the tab is closed.";
  find("key-says").classList.toggle("wrong", wrong);
  value.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const refuse = (event) => event.preventDefault(); // nothing can be shown without a key
    dialog.addEventListener("cancel", refuse);
    dialog.addEventListener("close", function closed() {
      if (!value.value.trim()) return dialog.showModal();
      dialog.removeEventListener("cancel", refuse);
      dialog.removeEventListener("close", closed);
      resolve(value.value.trim());
      value.value = "";
    });
  });
}

