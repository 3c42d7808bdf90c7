// What was measured beside what was predicted: of the sizes a diagnosis compressed to, or of the run that this is.

/** [{keep, of, predicted, kl, loss, title}]: divergence and rise of the loss at sizes of the whole model, nats a token. */
function measurements() {
  const { measured = [], quality, requested, size } = report;
  const linear = size?.linear_parameters;
  const run = isNumber(quality?.kl) && isNumber(quality.predicted_kl)
    ? [{ keep: linear.after / linear.before, of: "linear-parameters", ...requested, ...quality, perplexity: { before: quality.before.mean, after: quality.after.mean } }] : [];
  return [...measured, ...run].map(({ keep, of, predicted_kl: predicted, kl, perplexity: { before, after }, tokens }) => ({
    keep, of, predicted, kl, loss: Math.log(after / before),
    title: `measured at ${percent(keep)}: ${number(kl)}, predicted ${number(predicted)}; perplexity ${number(before)} to ${number(after)} on ${count(tokens)} tokens` }));
}

/**
 * A function from a predicted rise to what is to be expected: through all that was measured, between two of them a
 * straight line on logarithmic scales, outside with the ratio of the nearest. A larger prediction never expects less.
 * points: [[predicted, measured]]; null where none of them are above 0.
 */
function calibration(points) {
  const known = points.filter((point) => Math.min(...point) > 0).map((point) => point.map(Math.log)).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  if (!known.length) return null;
  const xs = known.map(([x]) => x);
  let most = -Infinity;
  const ys = known.map(([, y]) => (most = Math.max(most, y)));
  return (predicted) => {
    if (!(predicted > 0)) return 0;
    const x = Math.log(predicted);
    const next = xs.findIndex((each) => each >= x);
    if (next === 0) return Math.exp(x + ys[0] - xs[0]);
    if (next < 0) return Math.exp(x + ys.at(-1) - xs.at(-1));
    const share = (x - xs[next - 1]) / (xs[next] - xs[next - 1]);
    return Math.exp(ys[next - 1] + share * (ys[next] - ys[next - 1]));
  };
}

const measurement = measurements();
// What training after the cut took back is not what a cut costs.
const trained = Boolean(report.heal || report.distill || report.calibration?.sequential);
const scaling = (what) => trained ? null : calibration(measurement.map((each) => [each.predicted, each[what]]));
const [calibrated, lossOf] = [scaling("kl"), scaling("loss")];

/** What the lines and marks of the plot stand for. */
function keys() {
  const rows = calibrated
    ? [["line", "scaled to what was measured"], ["thin line", "predicted to second order"]]
    : [["line", "predicted to second order"]];
  if (measurement.some(({ of }) => of === slider.of)) rows.push(["spot measured", "measured"]);
  byId("price-keys").replaceChildren(...rows.map(([kind, name]) => el("li", {}, el("i", { class: kind, "aria-hidden": "true" }), name)));
  byId("price-keys").hidden = !measurement.length;
}
