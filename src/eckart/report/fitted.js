// What was found in a table.

const fitted = () => [`Fitted by ${report.estimator}`];

function fittedCards() {
  const { table, error, held_out: held, course, singular_values: spectrum } = report;
  const list = [
    card("Table", `${count(table.rows)} × ${count(table.columns)}`, {
      note: table.observed < 1 ? `${percent(table.observed)} of the entries observed` : "every entry observed", part: table.observed })];
  if (spectrum.length) list.push(card("Rank", exact(spectrum.length)));
  if (isNumber(error)) list.push(card("Left over", percent(error), { note: "of the norm of what was observed", part: error }));
  if (held) list.push(card("Error of held-back entries", number(held.rmse), { note: `root mean square, from ${number(held.column_means)} by means of columns`, delta: change(held.column_means, held.rmse, "less") }));
  if (course) list.push(card("Iterations", exact(course.iterations), { note: course.converged ? "converged" : "not converged" }));
  list.push(card("Time", duration(sum(Object.values(report.seconds))), { note: isNumber(report.peak_rss_bytes) ? `peak memory ${bytes(report.peak_rss_bytes)}` : "" }));
  return list;
}

const fittedFacts = () => Object.entries(report.files).map(([name, words]) => [name.split(".")[0], words, "", name]);

/** Convergence, spectrum, predictions and pictures, as far as there are some. */
function foundInTable() {
  const { course, singular_values: spectrum, predictions, pictures } = report;
  const history = (course?.history ?? []).map((value, i) => [i + 1, value]);
  const curve = (title, points, x) => ({
    label: `${capital(title)}: ${[points[0], points.at(-1)].map(([at, y]) => `${number(y)} at ${at}`).join(", ")}.`,
    x: { title: x, format: (value) => Number.isInteger(value) ? exact(value) : "" }, y: { title, format: number, pad: 0.05, log: Math.min(...points.map(([, y]) => y)) > 0 }, lines: [{ points }] });
  if (history.length > 1) {
    byId("trade-title").textContent = "Convergence";
    byId("trade").closest("section").hidden = false;
    draw(byId("trade"), { height: 330, ...curve("what was watched", history, "step") });
  }
  if (spectrum.length > 1) {
    const plot = el("div", { class: "plot" });
    byId("hidden-title").textContent = "Spectrum of the model";
    byId("hidden-states").hidden = false;
    byId("hidden-plots").append(el("figure", {}, plot));
    draw(plot, { height: 210, ...curve("singular value", spectrum.map((value, i) => [i + 1, value]), "number") });
  }
  if (!predictions.length && !pictures.length) return;
  const parts = [];
  if (pictures.length) {
    parts.push(el("div", {}, el("p", { class: "muted small" }, "As it was, as the model has it, and the difference around grey."),
      pictures.map(({ row, data }) => el("figure", {}, el("img", { src: data, alt: `row ${row}: as it was, as the model has it, and what differs`, class: "triple" }), el("figcaption", {}, row)))));
  }
  if (predictions.length) {
    const cells = (tag, values) => el("tr", {}, values.map((value) => el(tag, {}, value)));
    parts.push(el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "predictions" }, el("table", {},
      el("thead", {}, cells("th", ["row", "column", "predicted"])),
      el("tbody", {}, predictions.map(({ row, column, value }) => cells("td", [row, column, number(value)]))))));
  }
  byId("samples-title").textContent = pictures.length ? "Rows as pictures" : "Largest predictions of what was not observed";
  byId("samples").lastElementChild.replaceWith(el("div", {}, parts));
  byId("samples").hidden = false;
}
