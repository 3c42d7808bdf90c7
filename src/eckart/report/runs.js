// What a compression did to the whole model.

// ---- cards ----------------------------------------------------------------------------------------
function change(before, after, wanted) {
  if (!(before > 0) || !isNumber(after)) return null;
  const ratio = after / before;
  const text = ratio >= 2 ? `× ${ratio.toFixed(2)}` : `${ratio < 1 ? MINUS : "+"}${percent(Math.abs(ratio - 1))}`;
  const tone = Math.abs(ratio - 1) < 0.0005 || !wanted ? "" : (ratio > 1) === (wanted === "more") ? "good" : "bad";
  return el("span", { class: `change ${tone}` }, text);
}

function card(label, value, { note, delta, part } = {}) {
  return el("li", {},
    el("div", { class: "card-label" }, el("span", {}, label), delta),
    el("div", { class: "card-value" }, value),
    isNumber(part) ? el("div", { class: "track", "aria-hidden": "true" }, el("span", { vars: { part: percent(Math.min(part, 1)).replace(GAP, "") } })) : null,
    note ? el("div", { class: "muted small" }, note) : null);
}

function sizeCard(label, pair, format, extra = "") {
  return card(label, format(pair.after), {
    note: `from ${format(pair.before)}${extra}`, delta: change(pair.before, pair.after, "less"), part: pair.after / pair.before });
}

const metricName = report.quality?.metric ?? "perplexity";
const better = /perplexity|loss|bits|entropy|drift/i.test(metricName) ? "less" : /accuracy/i.test(metricName) ? "more" : undefined;
const scored = /perplexity/i.test(metricName) ? "tokens" : "samples";

function runCards() {
  const { size, quality, speed, seconds, memory } = report;
  const linear = size.linear_parameters;
  const list = [
    sizeCard("Size on disk", size.bytes, bytes),
    sizeCard("Parameters", size.parameters, count, `; linear ${count(linear.before)} → ${count(linear.after)}`),
  ];
  if (quality) {
    const { before, after } = quality;
    list.push(card(capital(metricName), [number(after.mean), el("small", {}, margin(after))], {
      note: `from ${uncertain(before)}`, delta: change(before.mean, after.mean, better) }));
    const divergence = [
      isNumber(quality.kl) ? `KL divergence ${number(quality.kl)}` : null,
      isNumber(quality.predicted_kl) ? `predicted ${number(quality.predicted_kl)}` : null].filter(Boolean).join(", ");
    if (isNumber(quality.top1_agreement)) list.push(card(scored === "tokens" ? "Same next token" : "Same label", percent(quality.top1_agreement), { note: divergence, part: quality.top1_agreement }));
    else if (divergence) list.push(card("Divergence", number(quality.kl ?? quality.predicted_kl), { note: divergence }));
  }
  if (speed) {
    for (const phase of ["decode", "prefill"]) {
      const pair = speed[`${phase}_tokens_per_second`];
      list.push(card(`${capital(phase)} speed`, [number(pair.after), el("small", {}, " tokens/s")], { note: `from ${number(pair.before)} tokens/s`, delta: change(pair.before, pair.after, "more") }));
    }
  }
  list.push(sizeCard("Multiply-adds per token", size.macs_per_token, count));
  const total = sum(Object.values(seconds));
  list.push(card("Time", duration(total), { note: `peak memory ${bytes(memory.peak_rss_bytes)}` }));
  return list;
}

function asked() {
  const { requested } = report;
  const wish = requested.counts ? `give every matrix ${requested.counts} ${requested.each}`
    : requested.keep === undefined ? `lose at most ${tidy(number(requested.max_loss))}` : `keep ${percent(requested.keep)} of ${requested.of.replace("-", " ")}`;
  const scheme = [requested.group ? `groups of ${requested.group}` : null, requested.symmetric ? "symmetric" : null].filter(Boolean).join(", ");
  return [`Asked to ${wish}`, `method ${report.method}${scheme ? ` (${scheme})` : ""}`, report.allocation ? `allocation ${report.allocation}` : null];
}

// ---- quality against size, time, the run ------------------------------------------------------------------------------
function trade() {
  const { quality, size } = report;
  // Sizes that were searched are known in parameters alone.
  const unit = inBytes && !report.history?.length ? "bytes" : "parameters";
  const told = unit === "bytes" ? bytes : (value) => `${count(value)} parameters`;
  const history = [...(report.history ?? [])].sort((a, b) => a.parameters - b.parameters);
  const whole = size[unit];
  const marks = history.filter((p) => !quality || Math.abs(p.parameters / whole.after - 1) > 0.004).map((p) => ({
    x: p.parameters, y: p.perplexity, name: percent(p.keep, 0), title: `keep ${percent(p.keep)}: ${number(p.perplexity)}`, radius: 4 }));
  if (quality) {
    for (const [when, kind] of [["before", "start"], ["after", "now"]]) {
      const { mean, stderr } = quality[when];
      const bounds = isNumber(stderr) ? { low: mean - stderr, high: mean + stderr } : {};
      marks.push({ x: whole[when], y: mean, ...bounds, kind, name: `${when} ${number(mean)}`, title: `${when}: ${uncertain(quality[when])} at ${told(whole[when])}`, radius: 6 });
    }
  }
  if (!marks.length) return;
  byId("trade").closest("section").hidden = false;
  const values = marks.flatMap((mark) => [mark.low ?? mark.y, mark.high ?? mark.y]);
  const points = marks.map((mark) => [mark.x, mark.y]).sort((a, b) => a[0] - b[0]);
  draw(byId("trade"), {
    height: 330,
    label: `${capital(metricName)} against ${unit}. ${marks.map((mark) => mark.title).join("; ")}.`,
    x: { title: `${unit} of the model`, format: unit === "bytes" ? bytes : count, pad: 0.09 },
    y: { title: capital(metricName), format: number, pad: 0.12, log: Math.min(...values) > 0 && Math.max(...values) > 4 * Math.min(...values) },
    lines: history.length ? [{ points, kind: "thin" }] : [], marks });
}

function time() {
  const phases = Object.entries(report.seconds);
  const total = sum(phases.map(([, value]) => value));
  const tone = (i) => ({ tone: `var(--phase-${i + 1})` });
  byId("time").closest("section").hidden = false;
  byId("time").replaceChildren(
    el("div", { class: "stack", "aria-hidden": "true" }, phases.map(([, value], i) => value > 0 ? el("span", { vars: { ...tone(i), part: String(value / total) } }) : null)),
    el("ul", { class: "legend" }, phases.map(([name, value], i) => el("li", {}, el("i", { vars: tone(i), "aria-hidden": "true" }), name, el("b", {}, duration(value))))));
}

function runFacts() {
  const { calibration, quality, speed, heal } = report;
  return [
    ["Calibrated on", calibration ? `${calibration.text}, ${count(calibration.tokens)} tokens` : "nothing"],
    ["Fingerprint", calibration?.fingerprint, "mono"],
    ["Passes", calibration ? `${calibration.passes}${calibration.sequential ? ", sequential" : ""}${calibration.gradient_checkpointing ? ", gradient checkpointing" : ""}${calibration.mixed_precision ? ", in bfloat16" : ""}` : null],
    ["Healed", heal ? `${plural(heal.steps, "step", "steps")} a block, relative error of its output ${number(mean(heal.loss_before))} → ${number(mean(heal.loss_after))} on average` : null],
    ["Evaluated on", quality ? `${quality.text}, ${count(quality.tokens)} ${scored}` : "nothing: no evaluation was asked for"],
    ["Timed with", speed ? [isNumber(speed.threads) ? plural(speed.threads, "thread", "threads") : null, speed.dtype].filter(Boolean).join(", ") : null],
    ["Matrices", `${sites.length}, of which ${sites.filter((site) => site.dense).length} left dense`]];
}

function samples() {
  const { samples: texts } = report;
  if (!texts) return;
  const text = (title, words) => el("div", {}, el("h3", {}, title), el("div", { class: "text" }, el("b", {}, texts.prompt), words));
  byId("samples").lastElementChild.replaceWith(el("div", { class: "texts" }, text("Before", texts.before), text("After", texts.after)));
  byId("samples").hidden = false;
}

