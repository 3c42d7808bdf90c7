// The report as the page sees it: of which job it is, its matrices, and what smaller sizes of them would cost.

const report = JSON.parse(byId("report").textContent);
/** What the job was given: a model, or a table. */
const subject = report.model ?? report.data;
const sites = report.sites ?? report.matrices ?? [];
const job = report.table ? "fit" : report.sites ? "compress" : report.optimizer ? "train" : report.training ? "adapt" : report.size?.dense ? "compensate" : "diagnose";
const source = { compress: "report.json", adapt: "training.json", train: "train.json", compensate: "compensation.json", diagnose: "diagnosis.json", fit: "fit.json" }[job];

const sum = (values) => values.reduce((total, value) => total + value, 0);
const denseParameters = (site) => (site.shape ?? []).reduce((product, extent) => product * extent, 1);
const keptParameters = (site) => isNumber(site.parameters) ? site.parameters / denseParameters(site) : null;
/** Whether the run was about bytes: it was asked for them, or made no fewer numbers. */
const inBytes = job === "compress" && (report.requested?.of === "bytes" || report.size.parameters.after === report.size.parameters.before);
const shorter = (site) => site.shape ? Math.min(...site.shape.slice(-2)) : null;
const shareOf = (part, whole) => isNumber(part) && isNumber(whole) && whole > 0 ? part / whole : null;
const present = (values) => values.filter(isNumber);
const mean = (values) => values.length ? sum(values) / values.length : null;

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
const located = places(sites.map((site) => site.name));

/** The spectrum as points (index from 1, singular value). */
function spectrumOf(site) {
  const values = site.singular_values ?? site.spectrum ?? [];
  const step = values.length > 1 ? (shorter(site) - 1) / (values.length - 1) : 0;
  return values.map((value, i) => [site.curve_ranks?.[i] ?? 1 + i * step, value]);
}

/** What each size of a matrix would cost, the dense matrix last; null where that was not measured in the loss. */
function offer(site) {
  const { parameters, bytes: stored, predicted_kl: rise, size } = site.curve ?? {};
  if (!rise || rise.length < 2) return null;
  return { parameters, bytes: stored, rise, named: size ?? parameters.map(count) };
}
const offers = sites.map(offer);

/** The size of the whole model in each currency a budget can be named in; those that are not known are missing. */
function totals() {
  const whole = (name) => report.size?.[name]?.before ?? report.size?.[name];
  const matrices = sum(offers.map((each) => each ? each.parameters.at(-1) : 0));
  const known = {
    // With embeddings or the head among the matrices they are more than what is called linear.
    "linear-parameters": (whole("linear_parameters") ?? matrices) >= matrices ? whole("linear_parameters") ?? matrices : undefined,
    parameters: whole("parameters"),
    bytes: offers.every((each) => !each || each.bytes) ? whole("bytes") : undefined };
  return Object.fromEntries(Object.entries(known).filter(([, value]) => isNumber(value) && value > 0));
}
