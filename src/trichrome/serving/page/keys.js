// The keyboard: what single keys and arrows do.

import { find, keep, kept } from "./dom.js";

const NAME = "trichrome-single-keys";

/** does: {mode(i), compare(), release()}; release lets go of what is held and says whether anything was. */
export function listen(does) {
  const box = find("single-keys");
  box.checked = kept("localStorage", NAME) !== "off";
  box.addEventListener("change", () => keep("localStorage", NAME, box.checked ? null : "off"));

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (document.querySelector("dialog[open]")) return; // dialogs have their own
    const writing = event.target.matches("input[type=search], input[type=password], select, textarea");
    if (event.key === "Escape") escape(event, does);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") walk(event);
    else if (!writing && box.checked) single(event, does);
  });
}

function single(event, does) {
  if (event.key === "/") toSearch();
  else if (/^[1-5]$/.test(event.key)) does.mode(Number(event.key) - 1);
  else if (event.key === "c") does.compare();
  else return;
  event.preventDefault();
}

function toSearch() {
  find("q").focus();
  find("q").select();
}

/** First lets go, then closes what is open, then goes back to the search. */
function escape(event, does) {
  const opened = document.activeElement.closest(".hit.opened");
  if (does.release()) event.preventDefault();
  else if (opened) {
    opened.querySelector(".open-why").click();
    opened.focus();
  } else if (document.activeElement !== find("q")) toSearch();
  else find("q").blur();
}

/** From the search to the first hit, from hit to hit, and back. */
function walk(event) {
  if (event.target.matches("select, input[type=radio], input[type=password]")) return;
  const hits = [...document.querySelectorAll(".hit, .cell[data-column='0']")];
  if (!hits.length) return;
  const here = document.activeElement.closest(".hit");
  const inSearch = document.activeElement === find("q");
  const down = event.key === "ArrowDown";
  if (!here && !inSearch) return; // the page scrolls, as ever
  if (inSearch && !down) return;
  event.preventDefault();
  const next = inSearch ? hits[0] : hits[hits.indexOf(here) + (down ? 1 : -1)];
  if (!next) {
    if (!down) toSearch();
    return;
  }
  for (const hit of hits) hit.setAttribute("tabindex", hit === next ? 0 : -1);
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}
