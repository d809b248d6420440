// What is asked and how it is shown. It stands in the page's address, so that it can be linked and gone back to.

export const SIGNALS = ["dense", "sparse", "multivector"];
export const SIGNAL_LABELS = { dense: "dense", sparse: "sparse", multivector: "multi" };
export const SIGNAL_SAYS = {
  dense: "what the whole text means",
  sparse: "the words that weigh most",
  multivector: "each word by its nearest word",
};

/** The rankings, in the server's names. signals: those whose scores are summed. */
export const MODES = [
  { name: "dense", label: "Dense", signals: ["dense"] },
  { name: "sparse", label: "Sparse", signals: ["sparse"] },
  { name: "multivector", label: "Multi", long: "Multi-vector", signals: ["multivector"] },
  { name: "dense+sparse", label: "D+S", long: "Dense + sparse", signals: ["dense", "sparse"] },
  { name: "all", label: "All", long: "All three signals", signals: SIGNALS },
];
export const VIEWS = [
  { name: "list", label: "List" },
  { name: "compare", label: "Compare" },
];
export const SIZES = [10, 20, 50];

const DEFAULTS = { q: "", index: "", mode: "all", lang: "", k: 10, view: "list" };

export const modeNamed = (name) => MODES.find((mode) => mode.name === name);

/** The state in an address's query; what it doesn't say, or says wrongly, is the default. */
export function fromAddress(query) {
  const said = new URLSearchParams(query);
  const state = { ...DEFAULTS };
  for (const name of ["q", "index", "lang"]) state[name] = said.get(name) ?? "";
  if (modeNamed(said.get("mode"))) state.mode = said.get("mode");
  if (SIZES.includes(Number(said.get("k")))) state.k = Number(said.get("k"));
  if (VIEWS.some((view) => view.name === said.get("view"))) state.view = said.get("view");
  return state;
}

/** The address of a state: only what is not the default. */
export function toAddress(state) {
  const said = new URLSearchParams();
  for (const [name, value] of Object.entries(DEFAULTS)) {
    if (state[name] !== value) said.set(name, state[name]);
  }
  const query = said.toString();
  return query ? `?${query}` : location.pathname;
}
