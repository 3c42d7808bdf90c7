// The budget slider: what a size would cost, how it would be shared out, and the command that does it.

const FINEST = 0.005;
const slider = { of: null, share: null, choice: null, rise: null, expected: null };
const priced = sites.map((_, i) => i).filter((i) => offers[i]);
const orderOf = new Map(sites.map((site, i) => [site, i]));
const placeOf = new Map(priced.map((i, k) => [i, k]));
const currencies = priced.length ? totals() : {};

/** The least share of its dense cost that the run let a matrix keep. */
const floor = () => Number(told(compressing() ?? [], "--floor")[0] ?? 0.1);

/** For each currency the solver, its least share, and what lies outside the curves. */
const budgets = new Map();
function budgetOf(of) {
  if (!budgets.has(of)) {
    const costs = (i) => of === "bytes" ? offers[i].bytes : offers[i].parameters;
    const matrices = priced.map((i) => ({ costs: costs(i), errors: offers[i].rise }));
    const total = currencies[of];
    const fixed = total - sum(matrices.map((matrix) => matrix.costs.at(-1)));
    const choose = solver(matrices, floor());
    const solve = (share) => choose(share * total - fixed);
    const smallest = (fixed + sum(matrices.map((matrix) => Math.min(...matrix.costs)))) / total;
    const least = Math.ceil(smallest / FINEST) * FINEST;
    budgets.set(of, { least: Math.min(1, solve(least) ? least : least + FINEST), solve });
  }
  return budgets.get(of);
}

const riseOf = (choice) => sum(choice.map((at, k) => offers[priced[k]].rise[at]));

/** What the slider would make of a matrix: {at, size, kept, rise}; null for one without a curve. */
function chosenThen(site) {
  const k = placeOf.get(orderOf.get(site));
  if (k === undefined || !slider.choice) return null;
  const [each, at] = [offers[priced[k]], slider.choice[k]];
  const costs = slider.of === "bytes" ? each.bytes : each.parameters;
  return { at, size: each.named[at], kept: costs[at] / costs.at(-1), rise: each.rise[at] };
}

/** Moves to a share of a currency; the nearest that can be met. */
function move(share, of = slider.of) {
  const budget = budgetOf(of);
  slider.of = of;
  slider.share = Math.min(1, Math.max(budget.least, share));
  slider.choice = budget.solve(slider.share);
  slider.rise = riseOf(slider.choice);
  slider.expected = calibrated ? calibrated(slider.rise) : null;
}

/** A rise as the reader is told it, and what it does to the perplexity. */
const risen = (rise, loss) => [el("b", {}, `+ ${number(rise)}`), ` nats a token${isNumber(loss) ? ` (perplexity + ${percent(Math.expm1(loss), loss < 0.1 ? 2 : 0)})` : ""}`];

function describe() {
  const input = byId("keep");
  const of = slider.of.replace("-", " ");
  const scaled = calibrated ? `; scaled to what was measured by ${number(slider.expected)}` : "";
  const text = `keep ${percent(slider.share)} of ${of}: the loss is predicted to rise by ${number(slider.rise)} nats a token${scaled}`;
  byId("kept").replaceChildren(el("b", {}, percent(slider.share)), ` of ${of}`);
  byId("rise").replaceChildren(...risen(slider.rise, scored === "tokens" ? slider.rise : null));
  byId("scaled").hidden = !calibrated;
  if (calibrated) byId("expected").replaceChildren(...risen(slider.expected, lossOf?.(slider.rise)));
  input.setAttribute("aria-valuetext", text);
  byId("command").textContent = command();
  const marks = measurement.filter((each) => each.of === slider.of).map(({ keep: x, kl: y, title }) => ({ x, y, kind: "measured", title, radius: 8 }));
  const { keep } = report.requested ?? {};
  const predicted = report.quality?.predicted_kl;
  if (report.requested?.of === slider.of && isNumber(predicted)) marks.push({ x: keep, y: predicted, kind: "start", name: "this run", title: `this run: keep ${percent(keep)}, predicted rise ${number(predicted)}` });
  marks.push({ x: slider.share, y: slider.expected ?? slider.rise, kind: "now", name: "slider", title: text });
  const lines = calibrated ? [{ points: slider.points, kind: "thin" }, { points: slider.points.map(([x, rise]) => [x, calibrated(rise)]) }] : [{ points: slider.points }];
  draw(byId("price"), { height: 230, label: `Rise of the loss against the share that is kept, ${calibrated ? "predicted, and scaled to what was measured" : "as predicted"}. ${marks.map((each) => each.title).join("; ")}.`,
    x: { title: `kept of ${of}`, format: (value) => percent(value, 0) }, y: { title: "rise of the loss, nats a token (log scale)", format: number, log: true, ticks: 6 },
    ...aboveZero(lines, marks) });
}

/** Lines and marks for a logarithmic axis: what is below a ten-thousandth of the most, or 0, lies on its lower end. */
function aboveZero(lines, marks) {
  const most = Math.max(...lines.flatMap(({ points }) => points.map(([, y]) => y)), ...marks.map(({ y }) => y));
  const shown = (y) => Math.max(y, 1e-4 * most, 1e-12);
  return {
    lines: lines.map((line) => ({ ...line, points: line.points.map(([x, y]) => [x, shown(y)]) })),
    marks: marks.map((mark) => ({ ...mark, y: shown(mark.y) })) };
}

/** The line of the plot, and the range of the slider, of the currency. */
function range() {
  const { least, solve } = budgetOf(slider.of);
  const stops = Array.from({ length: 41 }, (_, i) => least + ((1 - least) * i) / 40);
  slider.points = stops.map((share) => [share, riseOf(solve(share))]);
  Object.assign(byId("keep"), { min: (100 * least).toFixed(1), max: "100", step: "0.5" });
  byId("keep").value = String(100 * slider.share);
  keys();
}

/** Takes the slider's place over everything that shows it. */
function moved() {
  describe();
  if (!ofRun(state.colour)) colourMap();
  refresh();
  if (state.shown !== null) detail();
}

function budget() {
  if (!priced.length || !Object.keys(currencies).length) return;
  byId("budget").hidden = false;
  const { keep, of } = report.requested ?? {};
  const first = of in currencies ? of : Object.keys(currencies)[0];
  // A run that was asked for a loss, or for a share of something else, kept what it kept.
  const kept = report.size?.[first.replace("-", "_")];
  move((of === first ? keep : shareOf(kept?.after, kept?.before)) ?? 0.7, first);
  byId("does").hidden = !compressing();
  byId("of").append(...Object.keys(currencies).map((name) => el("option", { value: name, selected: name === slider.of }, name.replace("-", " "))));
  const left = sites.length - priced.length;
  byId("budget-note").textContent = `Shared out greedily over ${plural(priced.length, "curve", "curves")} of ${Math.max(...priced.map((i) => offers[i].rise.length))} points at most`
    + `${left ? `; ${plural(left, "matrix", "matrices")} without a curve ${left === 1 ? "stays" : "stay"} dense` : ""}. Compressing chooses among all sizes`
    + `${job === "compress" && report.allocation && report.allocation !== "greedy" ? `, and the command shares them out by ${report.allocation}, as this run did: what it makes of single matrices is not what the slider shows` : ""}. The prediction is of second order and often low`
    + `${job === "diagnose" && !measurement.length ? ": diagnose with --measure to see by how much" : ""}.${job === "compress" && !report.command?.length ? " This report does not say with which texts and options it was made; the command leaves them at their defaults." : ""}`;
  byId("keep").addEventListener("input", () => {
    if (ofRun(state.colour)) recolour("then_kept");
    move(Number(byId("keep").value) / 100);
    moved();
  });
  byId("keep").addEventListener("change", () => settle());
  byId("of").addEventListener("change", () => { move(slider.share, byId("of").value); range(); moved(); settle(); });
}

/** After a move: the table in its order, and the place in the address. */
function settle() {
  if (state.sort?.slider) { rows(); mark(); }
  remember("of", slider.of);
  remember("keep", String(Number(slider.share.toFixed(4))));
}
