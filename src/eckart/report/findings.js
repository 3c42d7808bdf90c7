// What a diagnosis found in the whole model, and what training did to it, or to an adapter.

const values = (id) => present(sites.map((site) => site[id]));
const average = (id) => mean(values(id));
const most = (id) => sites.reduce((best, site) => (site[id] ?? -Infinity) > (best[id] ?? -Infinity) ? site : best, sites[0]);

/** The columns that sum a model up and single matrices out, by name. */
const telling = () => Object.keys(described).filter((id) => described[id].mean && described[id].extremes);

function diagnosisCards() {
  const exactly = sites.filter((site) => site.exact).length;
  const list = [card("Matrices", String(sites.length), {
    note: `${count(sum(sites.map(denseParameters)))} entries; ${exactly === sites.length ? "all singular values" : `${plural(sites.length - exactly, "spectrum", "spectra")} estimated`}` })];
  if (average("alpha") !== null) {
    const [heavy, light] = [values("alpha").filter((alpha) => alpha < 2).length, values("alpha").filter((alpha) => alpha > 6).length];
    list.push(card("Alpha of the tails", number(average("alpha")), { note: `mean; ${heavy} below 2, ${light} above 6` }));
  }
  for (const { id, title, text } of quantities().filter((quantity) => telling().includes(quantity.id))) {
    const [whole, top] = [average(id), most(id)];
    list.push(card(title, ["ratio", "share"].includes(described[id].unit) ? percent(whole) : number(whole), { note: `mean; most: ${top.name}, ${text(top[id], top)}` }));
  }
  const share = mean(present(sites.map((site) => shareOf(site.rank_90, shorter(site)))));
  if (share !== null) list.push(card("Rank for 90 %", percent(share), { note: "of all, mean", part: share }));
  if (average("mp_energy") !== null) list.push(card("Norm above noise", percent(average("mp_energy")), { note: `mean; ${exact(sum(values("mp_spikes")))} singular values`, part: average("mp_energy") }));
  if (average("intruders") !== null) {
    list.push(card("Intruder dimensions", exact(sum(values("intruders"))), { note: `in ${values("intruders").filter(Boolean).length} matrices; of the ten leading ones in each` }));
  }
  if (slider.choice) list.push(card(`At ${percent(slider.share, 0)} of ${slider.of.replace("-", " ")}`, `+ ${number(slider.expected ?? slider.rise)}`, { note: `rise of the loss, nats a token, ${calibrated ? "scaled to what was measured" : "predicted"}` }));
  return list;
}

function looked() {
  return [report.against ? `Diagnosed against ${report.against}` : "Diagnosed",
    report.text ? `text ${report.text.name}, ${count(report.text.tokens)} tokens` : "without a text: no curves of cost",
    report.window ? `windows of ${report.window} × ${report.window}` : null,
    isNumber(report.seconds) ? duration(report.seconds) : null];
}

/** Two maps side by side: how far each matrix moved, and how much of its leading directions stayed. */
function comparison() {
  const [far, turned] = ["moved", "turned"].map((id) => colours().find((colour) => colour.id === id));
  if (!far || !turned) return;
  byId("compare").hidden = false;
  byId("compare-title").textContent = `Against ${report.against ?? "the other model"}`;
  map(byId("far"), far, true);
  map(byId("turned"), turned, true);
}

function hiddenStates() {
  const states = report.hidden_states ?? [];
  if (states.length < 2) return;
  byId("hidden-states").hidden = false;
  const own = ["layer", "tokens", "dimension"];
  const columns = report.columns?.hidden_states ?? Object.fromEntries(Object.keys(states[0]).filter((id) => !own.includes(id)).map((id) => [id, { title: id.replaceAll("_", " ") }]));
  for (const [id, { title, about }] of Object.entries(columns)) {
    const points = states.filter((each) => isNumber(each[id])).map((each) => [each.layer, each[id]]);
    if (points.length < 2) continue;
    const plot = el("div", { class: "plot" });
    byId("hidden-plots").append(el("figure", { title: about }, plot));
    draw(plot, { height: 210, label: `${capital(title)} of the hidden states, layer by layer: ${points.map(([x, y]) => `${x}: ${number(y)}`).join(", ")}.`,
      x: { title: "layer; 0 is the embedding", format: exact }, y: { title, format: number, pad: 0.05 }, lines: [{ points }] });
  }
}

// ---- training -------------------------------------------------------------------------------------------------------
function trainingCards() {
  const { validation = [], forgetting, examples = {} } = report;
  const list = [card("Trained", count(report.parameters), { note: report.moved_by
    ? `${Object.entries(report.moved_by).map(([rule, moved]) => `${count(moved)} by ${rule}`).join(", ")}; ${exact(examples.learned ?? 0)} examples`
    : `parameters in ${plural(sites.length, "matrix", "matrices")}; ${exact(examples.learned ?? 0)} examples` })];
  if (validation.length) {
    const kept = validation.findLast((each) => each.step === report.best_step);
    const best = kept ?? validation.reduce((least, each) => each.loss < least.loss ? each : least);
    list.push(card("Validation loss", number(best.loss), { note: `from ${number(validation[0].loss)}; ${kept ? "kept" : "best"} at step ${best.step}`, delta: change(validation[0].loss, best.loss, "less") }));
  }
  if (forgetting) {
    const [before, after] = [forgetting.before, forgetting.after].map(({ perplexity, stderr }) => ({ mean: perplexity, stderr }));
    list.push(card(`Perplexity of ${forgetting.text}`, [number(after.mean), el("small", {}, margin(after))], { note: `from ${uncertain(before)}`, delta: change(before.mean, after.mean, "less") }));
  }
  if (isNumber(report.optimizer_bytes)) list.push(card("State of the optimizer", bytes(report.optimizer_bytes), { note: isNumber(report.peak_rss_bytes) ? `memory of the process ${bytes(report.peak_rss_bytes)}` : undefined }));
  if (report.seconds) list.push(card("Time", duration(sum(Object.values(report.seconds))), { note: isNumber(report.start?.peak_rss_bytes) ? `memory of the start ${bytes(report.start.peak_rss_bytes)}` : undefined }));
  return list;
}

function trainingFacts() {
  const { training } = report;
  return [
    report.optimizer ? ["Optimizer", report.optimizer] : ["Method", `${report.method} of rank ${report.rank}${isNumber(report.alpha) ? `, alpha ${short(report.alpha)}` : ""}`],
    ...(report.parametrization ? [["Parametrization", report.parametrization]] : []),
    ["Data", report.data], ["Steps", training.steps], ["Batch", training.batch], ["Learning rate", isNumber(training.rate) ? short(training.rate) : null]];
}

function learning() {
  const losses = (report.loss ?? []).map((loss, i) => [i + 1, loss]);
  const marks = (report.validation ?? []).map(({ step, loss }) => ({ x: step, y: loss, kind: step === report.best_step ? "now" : "", name: step === report.best_step ? `kept: ${number(loss)}` : "", title: `validation at step ${step}: ${number(loss)}` }));
  if (losses.length + marks.length < 2) return;
  byId("trade-title").textContent = "Training";
  byId("trade").closest("section").hidden = false;
  draw(byId("trade"), { height: 330, label: `Loss of ${losses.length} steps. ${marks.map((each) => each.title).join("; ")}.`,
    x: { title: "step", format: exact, zero: true }, y: { title: "loss, nats a token; circles: validation", format: number, pad: 0.08 },
    lines: losses.length ? [{ points: losses }] : [], marks });
}

/** What else went with the steps: the rate, and the spectra of the matrices. */
function overSteps() {
  const looks = (id) => (report.spectra ?? []).map((each) => [each.step, each[id]]);
  const curves = { "learning rate": (report.rate ?? []).map((rate, i) => [i + 1, rate]), "largest singular value": looks("norm"), "stable rank": looks("stable_rank") };
  for (const [title, points] of Object.entries(curves)) {
    if (points.length < 2) continue;
    const plot = el("div", { class: "plot" });
    byId("hidden-title").textContent = "Rate and spectra, step by step";
    byId("hidden-states").hidden = false;
    byId("hidden-plots").append(el("figure", { title: title === "learning rate" ? title : `${title}, in the mean over up to sixteen matrices` }, plot));
    draw(plot, { height: 210, label: `${capital(title)}: ${[points[0], points.at(-1)].map(([x, y]) => `${number(y)} at step ${x}`).join(", ")}.`,
      x: { title: "step", format: exact, zero: true }, y: { title, format: number, pad: 0.05 }, lines: [{ points }] });
  }
}
