// The map: a cell for each layer and kind of matrix, coloured by one quantity.

const narrow = window.matchMedia("(max-width: 760px)");

/** The mean of a colour over the matrices of a cell, by its weights; null where none has it. */
function amount(colour, group) {
  let [part, whole] = [0, 0];
  for (const i of group) {
    const value = colour.value(sites[i]);
    const weight = isNumber(value) ? colour.weight(sites[i]) : 0;
    if (weight) { part += value * weight; whole += weight; }
  }
  return whole > 0 ? part / whole : null;
}

function grouped(indices, key) {
  const groups = new Map();
  for (const i of indices) groups.set(key(i), [...(groups.get(key(i)) ?? []), i]);
  return groups;
}

const inside = sites.map((_, i) => i).filter((i) => located[i].layer !== null);
const outside = sites.map((_, i) => i).filter((i) => located[i].layer === null);
const cells = grouped(inside, (i) => `${located[i].layer} ${located[i].kind}`);
const layers = [...new Set(inside.map((i) => located[i].layer))].sort((a, b) => a - b);
const kinds = [...new Set(inside.map((i) => located[i].kind))];
const byKind = grouped(inside, (i) => located[i].kind);

/**
 * What no colour and full colour stand for. A range is at least half as wide as its largest value is far from 0:
 * numbers that are nearly alike have colours that are nearly alike, instead of the whole ramp for their noise.
 */
function limits({ span }, values) {
  if (span === "whole" || !values.length) return [0, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (span === "top") return [0, high];
  const missing = Math.max(0, LEAST_SPAN * Math.max(Math.abs(low), Math.abs(high)) - (high - low));
  return [low - missing / 2, high + missing / 2];
}
const LEAST_SPAN = 0.5;

/** Whether a colour is of what the run did, and not of what the slider would do. */
const ofRun = ({ id }) => !id.startsWith("then_");

function cell(colour, [low, high], group, title, row, col, bare) {
  const value = amount(colour, group);
  const share = value === null || !(high > low) ? 0 : Math.max(0, Math.min(1, (value - low) / (high - low)));
  const dense = ofRun(colour) && group.every((i) => sites[i].dense);
  const what = `${title}: ${colour.label} ${value === null ? "not known" : colour.text(value)}${group.length > 1 ? ` in ${group.length} matrices` : ""}${dense ? ", left dense" : ""}`;
  return el("button", {
    type: "button", class: `cell${share > 0.74 ? " deep" : ""}${dense ? " kept" : ""}${value === null ? " unknown" : ""}`, vars: { part: `${(100 * share).toFixed(1)}%` },
    "data-row": row, "data-col": col, "data-site": group[0], "data-group": group.join(" "), "aria-label": what, title: what,
    onclick: () => pick(group.includes(state.chosen) ? group[(group.indexOf(state.chosen) + 1) % group.length] : group[0]),
  }, bare || value === null ? null : colour.cell(value));
}

/** Fills a container with the map of a colour; a bare one has no numbers in its cells and no totals. */
function map(container, colour, bare = false) {
  const found = present([...cells.values(), ...outside.map((i) => [i])].map((group) => amount(colour, group)));
  const ends = limits(colour, found);
  const heading = (text, scope, kind) => el("th", { scope, class: kind }, text);
  const total = (kind, text) => { const value = amount(colour, byKind.get(kind)); return el("td", { class: "total", title: value === null ? null : colour.text(value) }, value === null ? "" : text(value)); };
  const at = (layer, kind, row, col) => {
    const group = cells.get(`${layer} ${kind}`);
    return el("td", {}, group ? cell(colour, ends, group, `layer ${layer} ${kind}`, row, col, bare) : null);
  };
  const parts = [];
  if (inside.length) {
    const tall = narrow.matches || layers.length > 48;
    const [across, down] = tall ? [kinds, layers] : [layers, kinds];
    const wide = !tall && !bare;
    const rows = down.map((head, row) => el("tr", {}, heading(head, "row"),
      across.map((other, col) => tall ? at(head, other, row, col) : at(other, head, row, col)), wide ? total(head, colour.text) : null));
    // Below narrow columns the totals are as short as the numbers in the cells.
    const foot = el("tr", {}, heading("all", "row"), kinds.map((kind) => total(kind, colour.cell)));
    // Every layer's number fits above a cell only where cells are wide.
    const sparse = (text, i) => heading(bare && !tall && layers.length > 16 && i % 4 ? el("span", { class: "unseen" }, text) : text, "col");
    parts.push(el("table", { class: `heat${tall ? " tall" : ""}${bare ? " bare" : ""}` },
      el("caption", { class: "unseen" }, `${capital(colour.label)}, by layer and kind of matrix`),
      el("thead", {}, el("tr", {}, heading("layer", "col", "head"), across.map(sparse), wide ? heading("all", "col", "total") : null)),
      el("tbody", {}, rows, tall && !bare ? foot : null)));
  }
  if (outside.length) {
    parts.push(el("div", { class: `others${bare ? " bare" : ""}` }, inside.length ? "Outside the layers:" : null,
      outside.map((i, order) => el("span", {}, located[i].kind, cell(colour, ends, [i], sites[i].name, -1, order, bare)))));
  }
  const wider = found.length && (Math.min(...found) > ends[0] || Math.max(...found) < ends[1]) && colour.span === "range";
  parts.push(el("div", { class: "key" }, colour.text(ends[0]), el("span", { class: "ramp", "aria-hidden": "true" }), `${colour.text(ends[1])} ${colour.label}`,
    wider ? `; here ${colour.text(Math.min(...found))} to ${colour.text(Math.max(...found))}` : null,
    ofRun(colour) && sites.some((site) => site.dense) ? el("span", { class: "pairing" }, el("span", { class: "swatch", "aria-hidden": "true" }), "left dense") : null));
  container.replaceChildren(...parts);
}

/** Shows the matrix under the pointer, and the chosen one again when the pointer has left. */
function preview(container) {
  container.addEventListener("pointerover", (event) => {
    const under = event.target.closest("button[data-site]");
    if (under) show(Number(under.dataset.site));
  });
  container.addEventListener("pointerleave", () => show(state.chosen));
}
