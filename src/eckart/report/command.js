// The commands: the one that repeats the run, the one of the slider's place, and buttons that copy them.

/** A word as a shell takes it. */
const quoted = (word) => /^[\w./:@%+=,-]+$/.test(word) ? word : `'${word.replace(/'/g, "'\\''")}'`;
const line = (words) => words.map(quoted).join(" ");
const BUDGET = ["--keep", "--of", "--max-loss"];

/** The words that stand behind an option of a command. */
const told = (words, option) => words.filter((_, i) => words[i - 1] === option);

/** The words of a compression of this model, but for its budget and place; null where there is none. */
function compressing() {
  const words = job === "compress" ? report.command : report.compress;
  if (words?.length) return words.filter((word, i) => !BUDGET.includes(word) && !BUDGET.includes(words[i - 1]));
  if (job !== "compress" && report.command?.length) return null;
  // Reports of older versions do not say how they were calibrated and judged.
  const method = job === "compress" ? ["--method", report.method, ...(report.allocation ? ["--allocation", report.allocation] : [])] : ["--method", "kfac"];
  return ["eckart", "compress", report.model, ...method];
}

const stem = (name) => name.replace(/\/+$/, "").split("/").pop() || "model";

/** The command that compresses to the slider's place. */
function command() {
  const kept = String(Number(slider.share.toFixed(4)));
  const words = compressing();
  return words && line([...words, "--keep", kept, "--of", slider.of, "--out", `${stem(subject)}-${kept}`]);
}

/** Puts a button beside a command that copies it; where no clipboard may be written it is selected instead. */
function copyable(code) {
  const said = el("span", { class: "unseen", "aria-live": "polite" });
  const button = el("button", { type: "button", class: "copy" }, "Copy");
  button.addEventListener("click", async () => {
    const done = await copied(code);
    button.textContent = done ? "Copied" : "Selected";
    said.textContent = done ? "The command was copied." : "The command is selected: copy it with the keys for it.";
    setTimeout(() => { button.textContent = "Copy"; said.textContent = ""; }, 2500);
  });
  code.closest(".command").append(button, said);
}

async function copied(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return true;
  } catch {
    // Pages from a disk have no clipboard in some browsers.
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    return document.execCommand("copy");
  }
}

/** The command that repeats the run, where the report has it. */
function repeated() {
  for (const code of document.querySelectorAll(".command code")) copyable(code);
  if (!report.command?.length) return;
  const place = { compress: "", diagnose: "-diagnosis", adapt: "-adapter", train: "-trained", compensate: "-compensated" }[job];
  byId("again-command").textContent = line([...report.command, "--out", `${stem(subject)}${place}-again`]);
  byId("again").hidden = false;
}
