// The matrices: heat map, table and the one that is chosen. All three show the same choice.

const report = JSON.parse(byId("report").textContent);
const sites = report.sites;

// ---- derived numbers ------------------------------------------------------------------------------------------------
const denseParameters = (site) => site.shape.reduce((product, extent) => product * extent, 1);
const keptParameters = (site) => site.parameters / denseParameters(site);

/** Layer and kind of each site from its name: the first number in the path, and the shortest ending that tells it apart. */
function places(names) {
  const paths = names.map((name) => name.split("."));
  const words = paths.map((path) => path.filter((part) => !/^\d+$/.test(part)));
  const endings = words.map(() => 1);
  const ending = (i) => words[i].slice(-endings[i]).join(".") || "matrix";
  for (let grew = true; grew;) {
    grew = false;
    const seen = new Map();
    words.forEach((word, i) => seen.set(ending(i), (seen.get(ending(i)) ?? new Set()).add(word.join("."))));
    words.forEach((word, i) => {
      if (seen.get(ending(i)).size > 1 && endings[i] < word.length) { endings[i] += 1; grew = true; }
    });
  }
  return paths.map((path, i) => {
    const layer = path.find((part) => /^\d+$/.test(part));
    return { layer: layer === undefined ? null : Number(layer), kind: ending(i) };
  });
}

const MEASURES = [
  { id: "parameters", label: "parameters kept", over: denseParameters, part: (site) => site.parameters, error: false },
  { id: "bytes", label: "bytes kept", over: (site) => site.dense_bytes, part: (site) => site.bytes, error: false },
  { id: "error", label: "error", over: denseParameters, part: (site) => site.error * denseParameters(site), error: true },
];
const COLUMNS = [
  { title: "Matrix", value: (site) => site.name },
  { title: "Structure", value: (site) => site.structure },
  { title: "Shape", value: (site) => denseParameters(site), text: (site) => site.shape.join(" × "), numeric: true },
  { title: "Parameters", value: (site) => site.parameters, text: (site) => exact(site.parameters), numeric: true },
  { title: "Kept", value: keptParameters, text: (site) => percent(keptParameters(site)), numeric: true },
  { title: "Bytes", value: (site) => site.bytes, text: (site) => bytes(site.bytes), numeric: true },
  { title: "Error", value: (site) => site.error, text: (site) => number(site.error), numeric: true },
  { title: "Predicted KL", value: (site) => site.predicted_kl, text: (site) => number(site.predicted_kl), numeric: true, optional: true },
  { title: "Rank", value: (site) => site.rank, text: (site) => exact(site.rank), numeric: true, optional: true },
  { title: "Bits", value: (site) => site.bits, text: (site) => tidy(number(site.bits)), numeric: true, optional: true },
  { title: "Percent", value: (site) => site.percent, text: (site) => exact(site.percent), numeric: true, optional: true },
  { title: "Kept of 4", value: (site) => site.kept, text: (site) => exact(site.kept), numeric: true, optional: true },
  { title: "Terms", value: (site) => site.terms, text: (site) => exact(site.terms), numeric: true, optional: true },
  { title: "Experts", value: (site) => site.experts, text: (site) => exact(site.experts), numeric: true, optional: true },
  { title: "Blocks", value: (site) => site.blocks, text: (site) => exact(site.blocks), numeric: true, optional: true },
];
const columns = COLUMNS.filter((column) => !column.optional || sites.some((site) => isNumber(column.value(site))));
const located = places(sites.map((site) => site.name));
const narrow = window.matchMedia("(max-width: 760px)");
const state = { chosen: 0, measure: MEASURES[0], sort: null, descending: false };

// ---- heat map -------------------------------------------------------------------------------------------------------
function amount(measure, group) {
  const whole = group.reduce((sum, i) => sum + measure.over(sites[i]), 0);
  return group.reduce((sum, i) => sum + measure.part(sites[i]), 0) / whole;
}

function cell(group, title, top, row, col) {
  const value = amount(state.measure, group);
  const share = Math.max(0, Math.min(1, top > 0 ? value / top : 0));
  const dense = group.every((i) => sites[i].dense);
  const what = `${title}: ${state.measure.label} ${percent(value)}${group.length > 1 ? ` in ${group.length} matrices` : ""}${dense ? ", left dense" : ""}`;
  return el("button", {
    type: "button", class: `cell${share > 0.74 ? " deep" : ""}${dense ? " kept" : ""}`, vars: { part: `${(100 * share).toFixed(1)}%` },
    "data-row": row, "data-col": col, "data-site": group[0], "data-group": group.join(" "), "aria-label": what, title: what,
    onclick: () => pick(group.includes(state.chosen) ? group[(group.indexOf(state.chosen) + 1) % group.length] : group[0]),
  }, (100 * value).toFixed(value < 0.0995 && state.measure.error ? 1 : 0));
}

function grouped(indices, key) {
  const groups = new Map();
  for (const i of indices) groups.set(key(i), [...(groups.get(key(i)) ?? []), i]);
  return groups;
}

function map() {
  const inside = sites.map((_, i) => i).filter((i) => located[i].layer !== null);
  const outside = sites.map((_, i) => i).filter((i) => located[i].layer === null);
  const cells = grouped(inside, (i) => `${located[i].layer} ${located[i].kind}`);
  const layers = [...new Set(inside.map((i) => located[i].layer))].sort((a, b) => a - b);
  const kinds = [...new Set(inside.map((i) => located[i].kind))];
  const all = [...cells.values(), ...outside.map((i) => [i])].map((group) => amount(state.measure, group));
  const top = state.measure.error ? Math.max(...all) : 1;
  const byKind = grouped(inside, (i) => located[i].kind);
  const total = (kind) => el("td", { class: "total" }, percent(amount(state.measure, byKind.get(kind)), state.measure.error ? 1 : 0));
  const at = (layer, kind, row, col) => {
    const group = cells.get(`${layer} ${kind}`);
    return el("td", {}, group ? cell(group, `layer ${layer} ${kind}`, top, row, col) : null);
  };
  const heading = (text, scope, kind) => el("th", { scope, class: kind }, text);
  const parts = [];
  if (inside.length) {
    const tall = narrow.matches || layers.length > 48;
    const across = tall ? kinds : layers;
    const down = tall ? layers : kinds;
    const rows = down.map((head, row) => el("tr", {}, heading(head, "row"),
      across.map((other, col) => tall ? at(head, other, row, col) : at(other, head, row, col)), tall ? null : total(head)));
    const foot = el("tr", {}, heading("all", "row"), kinds.map(total));
    parts.push(el("table", { class: `heat${tall ? " tall" : ""}` },
      el("caption", { class: "unseen" }, `${capital(state.measure.label)} in per cent, by layer and kind of matrix`),
      el("thead", {}, el("tr", {}, heading("layer", "col", "head"), across.map((text) => heading(text, "col")), tall ? null : heading("all", "col", "total"))),
      el("tbody", {}, rows, tall ? foot : null)));
  }
  if (outside.length) {
    parts.push(el("div", { class: "others" }, inside.length ? "Outside the layers:" : null,
      outside.map((i, order) => el("span", {}, located[i].kind, cell([i], sites[i].name, top, -1, order)))));
  }
  parts.push(el("div", { class: "key" }, "0", el("span", { class: "ramp", "aria-hidden": "true" }), `${percent(top, state.measure.error ? 1 : 0)} ${state.measure.label}`,
    sites.some((site) => site.dense) ? el("span", { class: "pairing" }, el("span", { class: "swatch", "aria-hidden": "true" }), "left dense") : null));
  byId("map").replaceChildren(...parts);
  mark();
}

function measures() {
  const offered = MEASURES.filter((measure) => measure.id !== "bytes" || sites.every((site) => isNumber(site.dense_bytes)));
  byId("measure").append(...offered.map((measure) => el("label", {},
    el("input", { type: "radio", name: "measure", value: measure.id, checked: measure === state.measure, onchange: () => { state.measure = measure; map(); } }), measure.label)));
}

// ---- table ----------------------------------------------------------------------------------------------------------
function order(a, b) {
  const [x, y] = [state.sort.value(a), state.sort.value(b)];
  const [lacksX, lacksY] = [x === undefined || x === null, y === undefined || y === null];
  if (lacksX || lacksY) return Number(lacksX) - Number(lacksY);
  const sign = state.descending ? -1 : 1;
  return sign * (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y);
}

function rows() {
  const wanted = byId("filter").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const text = (site) => `${site.name} ${site.structure} ${site.dense ? "dense" : ""} ${site.reason ?? ""}`.toLowerCase();
  const shown = sites.map((_, i) => i).filter((i) => wanted.every((word) => text(sites[i]).includes(word)));
  if (state.sort) shown.sort((a, b) => order(sites[a], sites[b]) || a - b);
  byId("sites").tBodies[0].replaceChildren(...shown.map((i, row) => el("tr", { "data-site": i, onclick: () => pick(i) },
    columns.map((column, c) => {
      const site = sites[i];
      if (c === 0) return el("th", { scope: "row" }, el("button", { type: "button", "data-row": row, "data-col": 0, "data-site": i, title: site.name }, site.name));
      const value = column.value(site);
      const shownText = value === undefined || value === null ? "" : column.text ? column.text(site) : value;
      const tag = c === 1 && site.dense ? el("span", { class: `tag ${site.reason ? "warn" : ""}`, title: site.reason }, site.reason ? `left dense: ${site.reason}` : "left dense") : null;
      return el("td", { class: column.numeric ? "number" : null }, tag ?? shownText);
    }))));
  byId("count").textContent = (shown.length === sites.length ? "" : `${shown.length} of `) + plural(sites.length, "matrix", "matrices");
  mark();
}

function heads() {
  const headings = columns.map((column) => {
    const arrow = el("span", { "aria-hidden": "true" });
    const heading = el("th", { scope: "col", class: column.numeric ? "number" : null, "aria-sort": "none" },
      el("button", { type: "button", onclick: () => {
        state.descending = state.sort === column ? !state.descending : Boolean(column.numeric);
        state.sort = column;
        for (const [other, sign] of headings) { other.setAttribute("aria-sort", "none"); sign.textContent = ""; }
        heading.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
        arrow.textContent = state.descending ? "▾" : "▴";
        rows();
      } }, column.numeric ? [arrow, column.title] : [column.title, arrow]));
    return [heading, arrow];
  });
  byId("sites").tHead.replaceChildren(el("tr", {}, headings.map(([heading]) => heading)));
}

// ---- the chosen matrix ----------------------------------------------------------------------------------------------
function mark() {
  for (const button of document.querySelectorAll("#map button[data-group]")) {
    const here = button.dataset.group.split(" ").includes(String(state.chosen));
    button.setAttribute("aria-pressed", String(here));
  }
  for (const row of byId("sites").tBodies[0].rows) {
    const here = Number(row.dataset.site) === state.chosen;
    row.classList.toggle("chosen", here);
    row.querySelector("button").setAttribute("aria-pressed", String(here));
  }
  for (const area of [byId("map"), byId("sites").tBodies[0]]) {
    const buttons = [...area.querySelectorAll("button[data-row]")];
    const stop = buttons.find((button) => button.getAttribute("aria-pressed") === "true") ?? buttons[0];
    for (const button of buttons) button.tabIndex = button === stop ? 0 : -1;
  }
}

/** Brings the chosen row into the table's own window without moving the page. */
function reveal() {
  const row = byId("sites").querySelector("tr.chosen");
  const scroller = byId("sites").parentElement;
  if (!row) return;
  const head = byId("sites").tHead.offsetHeight;
  if (row.offsetTop < scroller.scrollTop + head) scroller.scrollTop = row.offsetTop - head;
  const below = row.offsetTop + row.offsetHeight - scroller.clientHeight;
  if (below > scroller.scrollTop) scroller.scrollTop = below;
}

function choose(index) {
  state.chosen = index;
  const site = sites[index];
  const full = Math.min(...site.shape.slice(-2));
  byId("detail-title").textContent = site.name;
  byId("detail-note").textContent = site.reason ? `${site.dense ? "Left dense: " : ""}${site.reason}` : "";
  byId("detail-note").hidden = !site.reason;
  facts(byId("facts"), [
    ["Structure", site.structure, "mono"], ["Shape", site.shape.join(" × ")],
    ["Parameters", `${exact(site.parameters)} of ${exact(denseParameters(site))}`], ["Kept", percent(keptParameters(site))],
    ["Bytes", isNumber(site.dense_bytes) ? `${bytes(site.bytes)} of ${bytes(site.dense_bytes)}` : bytes(site.bytes)],
    ["Error", number(site.error)], ["Predicted KL", isNumber(site.predicted_kl) ? number(site.predicted_kl) : null],
    ["Rank", isNumber(site.rank) ? `${site.rank} of ${full}` : null], ["Bits", isNumber(site.bits) ? tidy(number(site.bits)) : null]]);
  spectrum(site, full);
  curve(site);
  mark();
}

function pick(index) {
  choose(index);
  reveal();
}

function spectrum(site, full) {
  const values = site.spectrum ?? [];
  const top = Math.max(0, ...values);
  if (!(top > 0) || values.length < 2) return draw(byId("spectrum"), { empty: "No spectrum was recorded for this matrix." });
  const points = values.map((value, i) => [1 + (i * (full - 1)) / (values.length - 1), Math.max(value, top * 1e-9)]);
  const rules = isNumber(site.rank) && site.rank >= 1 ? [{ x: site.rank, name: `rank ${site.rank}` }] : [];
  return draw(byId("spectrum"), {
    height: 230, label: `Singular values of ${site.name}, from ${number(points[0][1])} down to ${number(points.at(-1)[1])}${rules.length ? `; rank ${site.rank} of ${full} is kept` : ""}.`,
    x: { title: "index", format: exact }, y: { title: "singular value (log scale)", format: number, log: true, pad: 0.04 }, lines: [{ points }], rules });
}

function curve(site) {
  const { parameters = [], bytes: stored = [], error = [] } = site.curve ?? {};
  const inBytes = new Set(parameters).size < 2;
  const sizes = inBytes ? stored : parameters;
  if (sizes.length < 2 || sizes.length !== error.length) return draw(byId("curve"), { empty: "No error curve was recorded for this matrix." });
  const chosen = {
    x: inBytes ? site.bytes : site.parameters, y: site.error, kind: "now", name: site.dense ? "dense" : "chosen",
    title: `chosen: ${inBytes ? bytes(site.bytes) : `${exact(site.parameters)} parameters`}, error ${number(site.error)}` };
  return draw(byId("curve"), {
    height: 230, label: `Error against ${inBytes ? "bytes" : "parameters"} of ${site.name}; ${chosen.title}.`,
    x: { title: inBytes ? "bytes" : "parameters", format: inBytes ? bytes : count, zero: true }, y: { title: "error, 1 = nothing kept", format: number, zero: true },
    lines: [{ points: sizes.map((x, i) => [x, error[i]]) }], marks: [chosen] });
}

function explore() {
  if (!sites.length) {
    for (const id of ["map", "detail-title", "table-title"]) byId(id).closest("section").hidden = true;
    return;
  }
  measures();
  heads();
  rows();
  map();
  byId("filter").addEventListener("input", rows);
  narrow.addEventListener("change", map);
  arrows(byId("map"), pick);
  arrows(byId("sites").tBodies[0], pick);
  choose(sites.reduce((worst, site, i) => site.error > sites[worst].error ? i : worst, 0));
}
