// What can be said of a matrix, each once: as a column of the table, a fact, and a colour of the map.

/**
 * id, title; value(site): a number, a text, or nothing; text(value, site): how it is shown.
 * column: whether the table has it; map: {label, span, weight, cell} where it can colour the map. span says what no
 * colour and full colour are: "whole" 0 and 1, "top" 0 and the largest, "range" the smallest and the largest.
 */
const one = () => 1;
const hundredths = (value) => (100 * value).toFixed(value < 0.0995 && value > 0 ? 1 : 0);
const tenths = (value) => value.toFixed(1);
const plain = (value) => number(value);
const short = (value) => tidy(number(value));
const field = (id, title, more = {}) => ({ id, title, value: (site) => site[id], text: short, numeric: true, column: true, ...more });
const ofRank = (id, title, map) => field(id, title, {
  text: (value, site) => `${tidy(number(value))} of ${shorter(site)}`,
  map: map && { span: "range", weight: one, cell: hundredths, text: percent, value: (site) => shareOf(site[id], shorter(site)), ...map } });
const inPercent = (id, title, map) => field(id, title, {
  text: (value) => percent(value), map: map && { span: "whole", weight: one, cell: hundredths, text: percent, ...map } });
const counted = (id, title) => field(id, title, { text: exact });

/** Of the leading singular subspaces, left and right, what is no longer there: 0 where they stayed. */
function turnedAway(site) {
  const kept = mean(present([site.overlap_left, site.overlap_right]));
  return kept === null ? null : 1 - kept;
}

const QUANTITIES = [
  { id: "structure", title: "Structure", value: (site) => site.structure, column: true, kind: "mono" },
  { id: "shape", title: "Shape", value: (site) => site.shape && denseParameters(site), text: (_, site) => site.shape.join(" × "), numeric: true, column: true },
  field("parameters", "Parameters", { text: exact, fact: (value, site) => `${exact(value)} of ${exact(denseParameters(site))}` }),
  { id: "kept", title: "Kept", value: keptParameters, text: (value) => percent(value), numeric: true, column: true,
    map: { label: "parameters kept", span: "whole", weight: denseParameters, cell: hundredths, text: percent } },
  field("bytes", "Bytes", { text: bytes, fact: (value, site) => isNumber(site.dense_bytes) ? `${bytes(value)} of ${bytes(site.dense_bytes)}` : bytes(value),
    map: { label: "bytes kept", span: "whole", weight: (site) => site.dense_bytes ?? 0, cell: hundredths, text: percent, value: (site) => shareOf(site.bytes, site.dense_bytes) } }),
  field("error", "Error", { text: plain, map: { label: "error", span: "top", weight: denseParameters, cell: hundredths, text: percent } }),
  field("predicted_kl", "Predicted KL", { text: plain }),
  field("rank", "Rank", { text: exact, fact: (value, site) => site.shape ? `${value} of ${shorter(site)}` : exact(value),
    ...(job === "adapt" ? { map: { label: "rank", span: "top", weight: one, cell: String, text: short } } : {}) }),
  field("bits", "Bits"),
  counted("percent", "Percent"), field("kept_of_4", "Kept of 4", { value: (site) => site.kept, text: exact }), counted("terms", "Terms"), counted("experts", "Experts"), counted("blocks", "Blocks"),

  { id: "then_kept", title: "Slider: kept", value: (site) => chosenThen(site)?.kept, text: (value) => percent(value), numeric: true, column: true, slider: true,
    map: { label: "slider: kept", span: "whole", weight: denseParameters, cell: hundredths, text: percent } },
  { id: "then_size", title: "Slider: size", value: (site) => chosenThen(site)?.kept, text: (_, site) => chosenThen(site).size, numeric: true, column: true, slider: true },
  { id: "then_rise", title: "Slider: rise", value: (site) => chosenThen(site)?.rise, text: plain, numeric: true, column: true, slider: true,
    map: { label: "slider: share of the rise", span: "top", weight: one, cell: hundredths, text: percent, value: (site) => shareOf(chosenThen(site)?.rise, slider.rise) } },

  inPercent("moved", "Moved", { label: "how far it moved", span: "top" }),
  inPercent("moved_spectral", "Moved, spectral norm"),
  field("turned", "Directions turned", { value: turnedAway, text: (value) => percent(value),
    map: { label: "leading directions turned away", span: "top", weight: one, cell: hundredths, text: percent } }),
  field("intruders", "Intruders", { text: String, map: { label: "intruder dimensions", span: "top", weight: one, cell: short, text: short } }),
  ofRank("difference_rank", "Rank of the change", { label: "rank of the change" }),
  field("difference_effective_rank", "Its effective rank", { column: false }),
  field("difference_stable_rank", "Its stable rank", { column: false }),
  { ...inPercent("difference_in_base", "Inside old directions"), column: false },

  field("alpha", "Alpha", { text: plain, fact: (value, site) => `${number(value)}${isNumber(site.sigma) ? ` ± ${number(site.sigma, value)}` : ""}${site.warning ? `, ${site.warning}` : ""}`,
    map: { label: "alpha of the tail", span: "range", weight: one, cell: tenths, text: plain } }),
  field("alpha_farms", "Alpha, windows", { text: plain, map: { label: "alpha over windows (unbiased by shape)", span: "range", weight: one, cell: tenths, text: plain } }),
  field("alpha_hill", "Alpha, Hill", { text: plain, column: false }),
  field("D", "Distance to the law", { text: plain, column: false }),
  ofRank("stable_rank", "Stable rank", { label: "stable rank, of all" }),
  ofRank("effective_rank", "Effective rank", { label: "effective rank, of all" }),
  ofRank("rank_90", "Rank for 90 %", { label: "rank for 90 % of the norm, of all" }),
  { ...ofRank("rank_99", "Rank for 99 %"), column: false },
  ofRank("matrix_rank", "Rank of the matrix"),
  field("mp_spikes", "Above noise", { text: exact, map: { label: "singular values above noise", span: "top", weight: one, cell: short, text: short } }),
  inPercent("mp_energy", "Norm above noise", { label: "norm above noise" }),
  field("entropy", "Entropy", { text: plain, column: false }),
  field("sv_max", "Largest", { text: plain }),
  field("condition", "Condition", { text: plain }),
];

const given = (value) => value !== undefined && value !== null && value !== "";
const known = (value) => sites.some((site) => given(value(site)));
let some = null;
/** Those that this report knows of any matrix; first asked when the slider has its first choice. */
const quantities = () => some ??= QUANTITIES.filter((quantity) => known(quantity.value));

/** The colours the map can have. */
const colours = () => quantities().filter((quantity) => quantity.map).map(({ id, title, value, map }) => ({ id, title, value, ...map }))
  .filter((colour) => known(colour.value));
