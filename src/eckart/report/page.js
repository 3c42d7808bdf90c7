// The page as a whole: the header, the order of its parts, and the place in the address; the last lines start everything.

const state = { chosen: null, shown: null, colour: null, sort: null, descending: false, columns: [] };

function header() {
  document.title = `${subject} · eckart ${job}`;
  byId("version").textContent = report.eckart;
  byId("model").textContent = subject;
  byId("footer").textContent = `The same numbers are in ${source} beside this page.${job === "compress" ? " Sizes are measured on what was written." : ""}`;
  const wish = {
    compress: asked,
    diagnose: looked,
    adapt: () => [`Adapted by ${report.method} of rank ${report.rank}`],
    train: () => [`${report.scratch ? "Trained from the start" : "Trained"} by ${report.optimizer}${report.parametrization ? ` as ${report.parametrization}` : ""}`],
    compensate: compensated,
    fit: fitted }[job]();
  const seed = report.seed ?? report.training?.seed;
  byId("request").textContent = [...wish, isNumber(seed) ? `seed ${seed}` : null].filter(Boolean).join(" · ");
  const warnings = report.warnings ?? [];
  const covered = report.coverage?.sentence;
  byId("covered").textContent = covered && !warnings.includes(covered) ? covered : "";
  if (!warnings.length) return;
  byId("warnings-title").textContent = plural(warnings.length, "warning", "warnings");
  byId("warnings").querySelector("ul").append(...warnings.map((text) => el("li", {}, text)));
  byId("warnings").hidden = false;
}

function story() {
  const cards = { compress: runCards, diagnose: diagnosisCards, adapt: trainingCards, train: trainingCards, compensate: compensationCards, fit: fittedCards }[job];
  byId("cards").replaceChildren(...cards());
  if (job === "diagnose") {
    byId("whole").hidden = true;
    comparison();
    hiddenStates();
    return;
  }
  time();
  facts(byId("run"), { compress: runFacts, adapt: trainingFacts, train: trainingFacts, compensate: compensationFacts, fit: fittedFacts }[job]());
  if (["adapt", "train"].includes(job)) learning();
  if (job === "train") overSteps();
  if (job === "fit") foundInTable();
  if (job === "compress") trade();
  samples();
}

// ---- the matrices ---------------------------------------------------------------------------------------------------
const FIRST = { compress: inBytes ? ["bytes", "kept"] : ["kept"], adapt: ["rank"], train: [], compensate: ["after"], fit: [], diagnose: telling() }[job];

/** The matrix that is shown first: the one with the largest error, or that moved most. */
function first() {
  const id = ["moved", "error"].find((each) => sites.some((site) => site[each] > 0));
  if (id) return sites.reduce((worst, site, i) => (site[id] ?? 0) > (sites[worst][id] ?? 0) ? i : worst, 0);
  return inside[0] ?? 0;
}

function colourMap() {
  byId("map").closest("section").hidden = !state.colour;
  if (!state.colour) return;
  map(byId("map"), state.colour);
  if (state.shown !== null) saidOfMap(sites[state.shown]);
  if (state.chosen !== null) mark();
}

function recolour(id) {
  state.colour = colours().find((colour) => colour.id === id) ?? state.colour;
  if (!state.colour) return;
  byId("measure").value = state.colour.id;
  colourMap();
}

function explore() {
  if (!sites.length) {
    for (const id of ["map", "detail-title", "table-title"]) byId(id).closest("section").hidden = true;
    return;
  }
  state.columns = quantities().filter((quantity) => quantity.column);
  const offered = colours();
  // A report without one number has no map.
  state.colour = FIRST.map((id) => offered.find((colour) => colour.id === id)).find(Boolean) ?? offered[0] ?? null;
  byId("measure").append(...offered.map(({ id, label }) => el("option", { value: id, selected: id === state.colour?.id }, label)));
  byId("map-title").textContent = job === "compress" ? "Where the budget went" : "The matrices";
  heads();
  rows();
  colourMap();
  byId("measure").addEventListener("change", () => { recolour(byId("measure").value); remember("map", state.colour.id); });
  byId("filter").addEventListener("input", () => { rows(); mark(); });
  byId("filter").addEventListener("change", () => remember("filter", byId("filter").value));
  narrow.addEventListener("change", () => { colourMap(); if (job === "diagnose") comparison(); mark(); });
  for (const area of AREAS) arrows(byId(area), pick);
  for (const area of ["map", "far", "turned"]) preview(byId(area));
  choose(first());
  sideways();
}

// ---- the address: #matrix=NAME&map=ID&sort=ID (-ID falls)&filter=WORDS&keep=SHARE&of=CURRENCY ------------------------
const wishes = () => new URLSearchParams(location.hash.slice(1));

/** Puts a choice of the reader into the address, so that it is a link to what is seen. */
function remember(key, value) {
  const all = wishes();
  if (value) all.set(key, value); else all.delete(key);
  history.replaceState(null, "", `#${all}`);
}

/** Does what the address says; what this report does not have is passed over. */
function follow() {
  const all = wishes();
  const keep = Number(all.get("keep"));
  if (slider.choice && (keep > 0 || all.get("of") in currencies)) {
    move(keep > 0 ? keep : slider.share, all.get("of") in currencies ? all.get("of") : slider.of);
    byId("of").value = slider.of;
    range();
    moved();
    if (keep > 0 && !all.has("map")) recolour("then_kept");
  }
  if (all.has("map")) recolour(all.get("map"));
  if (all.has("filter")) byId("filter").value = all.get("filter");
  const column = [NAME, ...state.columns].find(({ id }) => id === all.get("sort")?.replace(/^-/, ""));
  if (column) sortBy(column, all.get("sort").startsWith("-"));
  else if (all.has("filter")) { rows(); mark(); }
  const index = sites.findIndex((site) => site.name === all.get("matrix"));
  if (index >= 0) { choose(index); reveal(); }
}

header();
repeated();
budget();
story();
explore();
if (slider.choice) { range(); describe(); }
if (sites.length) follow();
window.addEventListener("hashchange", follow);
document.documentElement.dataset.ready = "true";
