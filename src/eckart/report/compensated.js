// What branches of low rank gave back to a compressed model.

function compensationCards() {
  const { size, quality } = report;
  const list = ["parameters", "bytes"].map((name) => {
    const text = name === "bytes" ? bytes : count;
    return card(capital(name), text(size.after[name]), {
      note: `from ${text(size.before[name])}; dense ${text(size.dense[name])}`, delta: change(size.before[name], size.after[name], "less"), part: size.after[name] / size.dense[name] });
  });
  if (quality) {
    const [dense, before, after] = ["dense", "before", "after"].map((state) => ({ mean: quality[state].perplexity, stderr: quality[state].stderr }));
    list.push(card("Perplexity", [number(after.mean), el("small", {}, margin(after))], { note: `from ${uncertain(before)}; dense ${uncertain(dense)}`, delta: change(before.mean, after.mean, "less") }));
    if (isNumber(quality.after.kl)) list.push(card("Divergence", number(quality.after.kl), { note: `nats a token, from ${number(quality.before.kl)}`, delta: change(quality.before.kl, quality.after.kl, "less") }));
    if (isNumber(quality.after.top1_agreement)) list.push(card("Same next token", percent(quality.after.top1_agreement), { note: `from ${percent(quality.before.top1_agreement)}`, part: quality.after.top1_agreement }));
  }
  const [before, after] = ["before", "after"].map((id) => mean(values(id)));
  list.push(card("Error of the outputs", percent(after), { note: `mean over the matrices, from ${percent(before)}`, delta: change(before, after, "less") }));
  return list;
}

const compensated = () => [`Compensated by branches of rank ${report.rank}`, `metric ${report.metric}`, `ranks shared out by ${report.allocation}`, `against ${report.against}`];

function compensationFacts() {
  const { calibration, quality } = report;
  return [
    ["Calibrated on", `${calibration.text}, ${count(calibration.tokens)} tokens`], ["Fingerprint", calibration.fingerprint, "mono"],
    ["Evaluated on", quality ? `${quality.text}, ${count(quality.tokens)} tokens` : "nothing: no evaluation was asked for"],
    ["Matrices", `${sites.length}, of which ${sites.filter((site) => site.rank > 0).length} have a branch`]];
}
