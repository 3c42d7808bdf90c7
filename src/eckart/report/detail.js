// One matrix: what is known of it, its spectrum, its curves, and the directions in which it moved.

function facts(list, rows) {
  list.replaceChildren(...rows.filter(([, value]) => given(value)).map(([name, value, kind, about]) => el("div", {}, el("dt", { title: about }, name), el("dd", { class: kind }, value))));
}

function show(index) {
  if (state.shown === index) return;
  state.shown = index;
  detail();
}

/** Says below the map what the matrix that is shown has of its colour; a finger covers what it points at. */
function saidOfMap(site) {
  const value = state.colour?.value(site);
  const text = given(value) ? `${state.colour.label} ${state.colour.text(value)}` : "";
  byId("map-said").replaceChildren(el("b", {}, site.name), text ? `: ${text}. ` : ". ",
    el("button", { type: "button", class: "link for-touch", onclick: () => byId("detail-title").scrollIntoView({ behavior: "smooth" }) }, "See it below"));
}

/** Draws the matrix that is shown, with what the slider would make of it. */
function detail() {
  const site = sites[state.shown];
  const notes = [site.reason ? `${site.dense ? "Left dense: " : ""}${site.reason}` : null, ...(site.notes ?? [])].filter(Boolean);
  saidOfMap(site);
  byId("detail-title").textContent = site.name;
  byId("detail-note").textContent = notes.join("; ");
  byId("detail-note").hidden = !notes.length;
  facts(byId("facts"), quantities().map((quantity) => {
    const value = quantity.value(site);
    const text = quantity.fact ?? quantity.text ?? String;
    return [quantity.title, given(value) ? text(value, site) : null, quantity.kind, quantity.about];
  }));
  for (const [id, picture] of [["spectrum", spectrum], ["curve", curve], ["cosines", cosines]]) {
    const spec = picture(site);
    byId(id).closest("figure").hidden = !spec;
    if (spec) draw(byId(id), { height: 230, ...spec });
  }
}

function spectrum(site) {
  if (!sites.some((other) => spectrumOf(other).length > 1)) return null;
  const values = spectrumOf(site);
  const top = Math.max(0, ...values.map(([, value]) => value));
  if (!(top > 0) || values.length < 2) return { empty: "No spectrum was recorded for this matrix." };
  const points = values.map(([x, value]) => [x, Math.max(value, top * 1e-9)]);
  const full = shorter(site);
  const then = /^rank (\d+)$/.exec(chosenThen(site)?.size ?? "");
  const rules = isNumber(site.rank) && site.rank >= 1 ? [{ x: site.rank, name: `rank ${site.rank}` }] : then ? [{ x: Number(then[1]), name: `slider: rank ${then[1]}` }] : [];
  const edge = site.mp_edge > 0 ? Math.max(Math.sqrt(site.mp_edge), top * 1e-9) : null;
  return {
    label: `Singular values of ${site.name}, from ${number(points[0][1])} down to ${number(points.at(-1)[1])}${rules.length ? `; ${rules[0].name} of ${full}` : ""}${edge ? `; noise explains those below ${number(edge)}, ${site.mp_spikes} are above it` : ""}.`,
    x: { title: "index", format: exact }, y: { title: `singular value (log scale)${edge ? "; dashed: edge of the noise" : ""}`, format: number, log: true, pad: 0.04 },
    lines: [{ points }, ...(edge ? [{ points: [[1, edge], [full, edge]], kind: "thin" }] : [])], rules };
}

/** The cost of smaller sizes: the rise of the loss where it was measured, else the error; else the norm by rank. */
function curve(site) {
  const [caption, spec] = site.curve?.predicted_kl ? rises(site) : site.curve ? errors(site) : site.energy ? energy(site)
    : [null, sites.some((other) => other.curve || other.energy) ? { empty: "No curve was recorded for this matrix." } : null];
  byId("curve-title").textContent = caption ?? "What a smaller size would cost";
  return spec;
}

/** A curve over the sizes the budget counts: [size, value] wherever a larger size loses less; and how that axis is labelled. */
function falling({ parameters, bytes: stored, error }, values = error) {
  const wanted = slider.of ?? report.requested?.of;
  const inBytes = stored && (wanted === "bytes" || new Set(parameters).size < 2);
  const sizes = inBytes ? stored : parameters;
  // Candidates of several methods need not lose less where they are larger.
  const points = sizes.map((size, i) => [size, values[i]]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  let least = Infinity;
  const lower = points.filter(([, value]) => value < least && ((least = value), true));
  return { points: lower, sizes, of: inBytes ? "bytes" : "parameters", axis: { title: inBytes ? "bytes" : "parameters", format: inBytes ? bytes : count, zero: true } };
}

function rises(site) {
  const rise = site.curve.predicted_kl;
  const { points, sizes, of, axis: x } = falling(site.curve, rise);
  const marks = [];
  if (isNumber(site.predicted_kl)) {
    marks.push({ x: site[of], y: site.predicted_kl, kind: "now", name: site.dense ? "dense" : "chosen", title: `chosen: rise ${number(site.predicted_kl)}` });
  }
  const then = chosenThen(site);
  if (then) marks.push({ x: sizes[then.at], y: rise[then.at], kind: marks.length ? "" : "now", name: `slider: ${then.size}`, title: `slider: ${then.size}, rise ${number(then.rise)}` });
  return ["What a smaller size would cost", {
    label: `Predicted rise of the loss against ${of} of ${site.name}. ${marks.map((each) => each.title).join("; ")}.`,
    x, y: { title: "predicted rise of the loss, nats a token", format: number, zero: true }, lines: [{ points }], marks }];
}

function errors(site) {
  const { points, of, axis: x } = falling(site.curve);
  const chosen = {
    x: site[of], y: site.error, kind: "now", name: site.dense ? "dense" : "chosen",
    title: `chosen: ${of === "bytes" ? bytes(site.bytes) : `${exact(site.parameters)} parameters`}, error ${number(site.error)}` };
  return ["Error curve: what a smaller size would cost", {
    label: `Error against ${of} of ${site.name}; ${chosen.title}.`,
    x, y: { title: "error, 1 = nothing kept", format: number, zero: true }, lines: [{ points }], marks: [chosen] }];
}

function energy(site) {
  const points = [[0, 0], ...site.energy.map((share, i) => [site.curve_ranks[i], share])];
  const rules = isNumber(site.rank_90) ? [{ x: site.rank_90, name: `90 %: rank ${site.rank_90}` }] : [];
  return ["Squared norm in the first ranks", {
    label: `Share of the squared norm of ${site.name} by rank${rules.length ? `; ${rules[0].name}` : ""}.`,
    x: { title: "rank", format: exact, zero: true }, y: { title: "share of the squared norm", format: (value) => percent(value, 0), zero: true }, lines: [{ points }], rules }];
}

function cosines(site) {
  const values = site.cosines ?? [];
  if (!values.length) return sites.some((other) => other.cosines) ? { empty: "This matrix was not compared." } : null;
  const marks = values.map((y, i) => ({ x: i + 1, y, kind: y < 0.5 ? "off" : "now", title: `direction ${i + 1}: cosine ${number(y)}${y < 0.5 ? ", an intruder" : ""}` }));
  return {
    label: `The ${values.length} leading directions of ${site.name}: largest cosine to a direction of the other model. ${marks.map((each) => each.title).join("; ")}.`,
    x: { title: "direction, from the strongest", format: exact, pad: 0.05 }, y: { title: "cosine; below the dashed line: intruder", format: number, zero: true, include: [1] },
    lines: [{ points: [[1, 0.5], [values.length, 0.5]], kind: "thin" }], marks };
}

// ---- the choice -----------------------------------------------------------------------------------------------------
const AREAS = ["map", "far", "turned", "rows"];

/** Marks the chosen matrix wherever it stands, and puts one cell of each map and one row into the tab order. */
function mark() {
  for (const area of AREAS.map(byId)) {
    const buttons = [...area.querySelectorAll("button[data-row]")];
    for (const button of buttons) {
      const here = (button.dataset.group ?? button.dataset.site).split(" ").includes(String(state.chosen));
      button.setAttribute("aria-pressed", String(here));
    }
    const stop = buttons.find((button) => button.getAttribute("aria-pressed") === "true") ?? buttons[0];
    for (const button of buttons) button.tabIndex = button === stop ? 0 : -1;
  }
  for (const row of byId("rows").rows) row.classList.toggle("chosen", Number(row.dataset.site) === state.chosen);
}

/** Brings the chosen row into the table's own window without moving the page. */
function reveal() {
  const row = byId("rows").querySelector("tr.chosen");
  const scroller = byId("sites").parentElement;
  if (!row) return;
  const head = byId("sites").tHead.offsetHeight;
  if (row.offsetTop < scroller.scrollTop + head) scroller.scrollTop = row.offsetTop - head;
  const below = row.offsetTop + row.offsetHeight - scroller.clientHeight;
  if (below > scroller.scrollTop) scroller.scrollTop = below;
}

function choose(index) {
  state.chosen = index;
  show(index);
  mark();
}

function pick(index) {
  choose(index);
  reveal();
  remember("matrix", sites[index].name);
}
