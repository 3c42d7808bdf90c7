// What can be said of a matrix, each once: as a column of the table, a fact, and a colour of the map.

/**
 * id, title, about: what it is; value(site): a number, a text, or nothing; text(value, site): how it is shown.
 * column: whether the table has it; map: {label, span, weight, cell} where it can colour the map. span says what no
 * colour and full colour are: "whole" 0 and 1, "top" 0 and the largest, "range" the smallest and the largest.
 */
const given = (value) => value !== undefined && value !== null && value !== "";
const one = () => 1;
const hundredths = (value) => (100 * value).toFixed(value < 0.0995 && value > 0 ? 1 : 0);
/** A number that fits into a cell of the map. */
const tight = (value) => Math.abs(value) >= 99.5 ? count(Math.round(value)) : Math.abs(value) >= 0.95 ? value.toFixed(1) : String(Number(value.toPrecision(1)));
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

// ---- the columns of diagnostics ------------------------------------------------------------------------------------------
/** What a diagnosis says of its columns; of a file that says nothing, every number and text in it by its name. */
const described = job !== "diagnose" ? {} : report.columns?.matrices ?? Object.fromEntries(
  [...new Set(sites.flatMap((site) => Object.keys(site).filter((id) => !["name", "layer_type"].includes(id) && typeof (site[id] ?? []) !== "object")))]
    .map((id) => [id, { title: id.replaceAll("_", " ") }]));

/** What stands beside a number where it is shown alone. */
const BESIDE = {
  alpha: (site) => `${isNumber(site.sigma) ? ` ± ${number(site.sigma, site.alpha)}` : ""}${site.warning ? `, ${site.warning}` : ""}`,
};

/** A column of a diagnostic as a quantity; see `Column` in `eckart.diagnostics.contract` for its words. */
function ofColumn(id, { title, about, kind, unit, place = "map" }) {
  const words = capital(title);
  const counts = kind === "integer" || (!kind && sites.every((site) => !given(site[id]) || Number.isInteger(site[id])));
  const coloured = place === "map" && sites.some((site) => isNumber(site[id]));
  const map = !coloured ? undefined : { label: unit === "rank" ? `${title}, of all` : title };
  const shown = unit === "rank" ? ofRank(id, words, map)
    : unit === "share" ? inPercent(id, words, map)
    : unit === "ratio" ? inPercent(id, words, map && { ...map, span: "top" })
    : counts ? field(id, words, { text: exact, map: map && { ...map, span: "top", weight: one, cell: (value) => tidy(tight(value)), text: short } })
    : field(id, words, { text: (value) => isNumber(value) ? plain(value) : String(value), numeric: sites.some((site) => isNumber(site[id])),
      map: map && { ...map, span: "range", weight: one, cell: tight, text: plain } });
  return { ...shown, about, column: place === "map" || place === "table", hidden: place === "file" || ["numbers", "integers"].includes(kind),
    fact: BESIDE[id] && ((value, site) => shown.text(value, site) + BESIDE[id](site)) };
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
  ...(job === "compensate" ? [["after", "with its branch"], ["before", "without its branch"]].map(([id, how]) => field(id, `Error ${how}`, { text: (value) => percent(value),
    about: "Mean squared error of the layer's output over the calibration tokens, relative to that of the zero matrix",
    map: { label: `error ${how}`, span: "top", weight: one, cell: hundredths, text: percent } })) : []),
  field("predicted_kl", "Predicted KL", { text: plain }),
  field("rank", "Rank", { text: exact, fact: (value, site) => site.shape ? `${value} of ${shorter(site)}` : exact(value),
    ...(["adapt", "compensate"].includes(job) ? { map: { label: "rank", span: "top", weight: one, cell: (value) => tidy(tight(value)), text: short } } : {}) }),
  field("bits", "Bits"), field("input_bits", "Input bits", { text: exact, about: "The inputs are rounded to so many bits, token by token, whenever the model runs" }),
  counted("percent", "Percent"), field("kept_of_4", "Kept of 4", { value: (site) => site.kept, text: exact }), counted("terms", "Terms"), counted("experts", "Experts"), counted("blocks", "Blocks"),

  { id: "then_kept", title: "Slider: kept", value: (site) => chosenThen(site)?.kept, text: (value) => percent(value), numeric: true, column: true, slider: true,
    map: { label: "slider: kept", span: "whole", weight: denseParameters, cell: hundredths, text: percent } },
  { id: "then_size", title: "Slider: size", value: (site) => chosenThen(site)?.kept, text: (_, site) => chosenThen(site).size, numeric: true, column: true, slider: true },
  { id: "then_rise", title: "Slider: rise", value: (site) => chosenThen(site)?.rise, text: plain, numeric: true, column: true, slider: true,
    map: { label: "slider: share of the rise", span: "top", weight: one, cell: hundredths, text: percent, value: (site) => shareOf(chosenThen(site)?.rise, slider.rise) } },

  field("turned", "Directions turned", { value: turnedAway, text: (value) => percent(value), about: "Of the leading singular subspaces, left and right, the share that is no longer there",
    map: { label: "leading directions turned away", span: "top", weight: one, cell: hundredths, text: percent } }),
  ...Object.entries(described).map(([id, column]) => ofColumn(id, column)),
];

const known = (value) => sites.some((site) => given(value(site)));
let some = null;
/** Those that this report knows of any matrix; first asked when the slider has its first choice. */
const quantities = () => some ??= QUANTITIES.filter((quantity) => !quantity.hidden && known(quantity.value));

/** The colours the map can have. */
const colours = () => quantities().filter((quantity) => quantity.map).map(({ id, title, value, map }) => ({ id, title, value, ...map }))
  .filter((colour) => known(colour.value));
