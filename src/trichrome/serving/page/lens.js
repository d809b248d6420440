// The query as the model reads it: its words shaded by their sparse weight. Pointing at one lights, in every
// hit, what it was matched with; pressing keeps it lit.

import { h } from "./dom.js";

/** words: of queryWords. Gives {element, lights, release}; lights(list): what marked() gathered. */
export function lens(query, words) {
  const lit = words.map(() => []);
  let kept = -1;
  const pieces = [];
  let at = 0;
  const buttons = words.map((word, i) => {
    const button = h("span", { // not a <button>, which would set the words of a mixed line in the wrong order
      role: "button",
      class: "word",
      tabindex: i ? -1 : 0,
      "aria-pressed": "false",
      vars: { "--sparse-share": word.share.toFixed(3) },
      on: {
        pointerenter: (event) => event.pointerType === "mouse" && show(i),
        pointerleave: () => show(kept),
        focus: () => show(i),
        blur: () => show(kept),
        click: () => keepLit(i === kept ? -1 : i),
        keydown: (event) => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          keepLit(i === kept ? -1 : i);
        },
      },
    }, word.text);
    pieces.push(query.slice(at, word.start), button);
    at = word.end;
    return button;
  });
  pieces.push(query.slice(at));

  function show(shown) {
    for (const [i, found] of lit.entries()) {
      if (i !== shown) for (const { element } of found) element.classList.remove("lit");
    }
    for (const { element, strength } of lit[shown] ?? []) {
      element.style.setProperty("--lit", strength.toFixed(3));
      element.classList.add("lit");
    }
    document.body.classList.toggle("lighting", shown >= 0);
    buttons.forEach((button, i) => button.classList.toggle("lit", i === shown));
  }

  function keepLit(word) {
    kept = word;
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === word)));
    show(word);
  }

  const line = h("p", { class: "words", dir: "auto", role: "toolbar", "aria-label": "Words of the query",
    on: { keydown: (event) => step(event, buttons) } }, pieces);
  return {
    element: [line, h("p", { class: "hint" }, "Point at a word to see what it matched.")],
    lights: (found) => found.forEach((light) => lit[light.word].push(light)),
    release() {
      const held = kept >= 0;
      keepLit(-1);
      return held;
    },
  };
}

/** Arrows go from word to word, the way the text runs. */
function step(event, buttons) {
  const ahead = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!ahead || event.altKey || event.ctrlKey || event.metaKey) return;
  const leftward = getComputedStyle(event.currentTarget).direction === "rtl";
  const now = buttons.indexOf(document.activeElement);
  const next = buttons[now + (leftward ? -ahead : ahead)];
  if (!next) return;
  event.preventDefault();
  buttons.forEach((button) => button.setAttribute("tabindex", button === next ? 0 : -1));
  next.focus();
}
