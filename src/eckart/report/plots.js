"use strict";
// Elements, number formats and one plot. Data enters the page as text nodes and attribute values, never as markup.

function showFailure(message) {
  document.documentElement.dataset.error = message;
  const banner = document.getElementById("failure");
  banner.textContent = `This page could not be drawn completely: ${message}. The numbers are in the JSON file beside it.`;
  banner.hidden = false;
}
window.onerror = (message) => showFailure(String(message));

// The namespace is read from the page, so that no address has to be written down.
const SVG = document.querySelector("svg").namespaceURI;

/** Sets attributes, `on*` listeners and `vars` (CSS custom properties), then appends children; strings become text. */
function furnish(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "vars") for (const [name, text] of Object.entries(value)) node.style.setProperty(`--${name}`, text);
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== undefined && child !== null).map((child) =>
    child instanceof Node ? child : document.createTextNode(String(child))));
  return node;
}
const el = (tag, attributes = {}, ...children) => furnish(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => furnish(document.createElementNS(SVG, tag), attributes, children);
const byId = (id) => document.getElementById(id);

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const GAP = "\u00a0";
const MINUS = "\u2212";

function scaled(value, units) {
  let unit = 0;
  while (unit < units.length - 1 && Math.abs(value) >= 999.5) { value /= 1000; unit += 1; }
  const digits = unit === 0 ? 0 : Math.abs(value) >= 100 ? 1 : 2;
  return `${value.toFixed(digits)}${units[unit] ? GAP + units[unit] : ""}`;
}
const count = (value) => scaled(value, ["", "k", "M", "G", "T"]);
const bytes = (value) => scaled(value, ["B", "kB", "MB", "GB", "TB"]);
const exact = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, "\u202f");
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const plural = (amount, one, many) => `${amount} ${amount === 1 ? one : many}`;
const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)}${GAP}%`;

/** A number with about four digits, or with as many decimals as `like` would get. */
function number(value, like = value) {
  if (value === 0) return "0";
  const size = Math.abs(like);
  if (size < 0.001 || size >= 1e6) return value.toExponential(1).replace("e+", "e").replace(/-/g, MINUS);
  const text = value.toFixed(size >= 100 ? 1 : size >= 1 ? 2 : size >= 0.1 ? 3 : 4);
  return Number(text) === 0 && like !== value ? number(value) : text.replace("-", MINUS);
}
const margin = (value) => isNumber(value.stderr) ? ` ± ${number(value.stderr, value.mean)}` : "";
const uncertain = (value) => number(value.mean) + margin(value);
/** A tick's text without the zeros that say nothing. */
const tidy = (text) => text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)}${GAP}s`;
  const minutes = Math.round(seconds / 60);
  if (seconds < 600) {
    const whole = Math.round(seconds);
    return `${Math.floor(whole / 60)}${GAP}min ${whole % 60}${GAP}s`;
  }
  return minutes < 60 ? `${minutes}${GAP}min` : `${Math.floor(minutes / 60)}${GAP}h ${minutes % 60}${GAP}min`;
}

function linearTicks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => power * factor >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) ticks.push(i * step);
  return ticks;
}

function logTicks(low, high, wanted) {
  const [first, last] = [Math.floor(Math.log10(low) + 1e-9), Math.ceil(Math.log10(high) - 1e-9)];
  const factors = last - first <= 1 ? [1, 2, 3, 5] : last - first <= 3 ? [1, 3] : [1];
  const stride = Math.max(1, Math.ceil((last - first) / wanted));
  const ticks = [];
  for (let power = first; power <= last; power += stride) {
    for (const factor of factors) {
      const tick = factor * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks;
}

/** Range and ticks of an axis whose values are given; `pad` widens a range that should not touch the frame. */
function axis(values, { log = false, zero = false, pad = 0, ticks = 5 }) {
  const forward = log ? Math.log10 : (value) => value;
  const back = log ? (value) => 10 ** value : (value) => value;
  let [low, high] = [Math.min(...values.map(forward)), Math.max(...values.map(forward))];
  if (zero && !log) low = Math.min(low, 0);
  if (high === low) { low -= log ? 0.2 : Math.abs(low) * 0.1 + 1e-9; high += log ? 0.2 : Math.abs(high) * 0.1 + 1e-9; }
  const room = (high - low) * pad;
  if (!(zero && low === 0)) low -= room;
  high += room;
  return {
    place: (value) => (forward(value) - low) / (high - low),
    ticks: log ? logTicks(back(low), back(high), ticks) : linearTicks(low, high, ticks),
  };
}

const drawings = new Map();
const watcher = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const drawing = drawings.get(target);
    if (drawing && drawing.width !== target.clientWidth) { drawing.width = 0; paint(target, drawing); }
  }
});

/**
 * Draws a plot that follows the width of its container, or says why there is none.
 * spec: {label, height, x: {title, format, log, pad, zero}, y: {..., include: [values that are in its range]}, lines: [{points: [[x, y]], kind}], rules: [{x, name}],
 *        marks: [{x, y, low, high, name, kind, title, radius}]}, or {empty: text}.
 */
function draw(container, spec) {
  // Asking for the width anew would lay out the whole page at every move of the slider.
  const drawing = { spec, width: drawings.get(container)?.width ?? 0 };
  drawings.set(container, drawing);
  watcher.observe(container);
  paint(container, drawing);
}

function paint(container, drawing) {
  const { spec } = drawing;
  drawing.width ||= container.clientWidth;
  if (spec.empty) {
    container.replaceChildren(el("p", { class: "empty" }, spec.empty));
    return;
  }
  const width = Math.max(200, drawing.width);
  const height = spec.height;
  const marks = spec.marks ?? [];
  const lines = spec.lines ?? [];
  const rules = spec.rules ?? [];
  const all = [...marks.flatMap((m) => [[m.x, m.y], [m.x, m.low ?? m.y], [m.x, m.high ?? m.y]]), ...lines.flatMap((l) => l.points)];
  const xs = axis([...all.map((p) => p[0]), ...rules.map((r) => r.x)], { ticks: Math.max(2, width / 110), ...spec.x });
  const ys = axis([...all.map((p) => p[1]), ...(spec.y.include ?? [])], { ticks: Math.max(2, height / 55), ...spec.y });
  const labels = ys.ticks.map((tick) => tidy(spec.y.format(tick)));
  const frame = { left: 16 + 7 * Math.max(...labels.map((text) => text.length)), right: width - 14, top: 30, bottom: height - 40 };
  const px = (value) => frame.left + xs.place(value) * (frame.right - frame.left);
  const py = (value) => frame.bottom - ys.place(value) * (frame.bottom - frame.top);

  // What a mark stands for, for those who point at it or tap it.
  const said = el("p", { class: "tip" });
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": spec.label });
  picture.append(svg("text", { x: 0, y: 11 }, spec.y.title));
  ys.ticks.forEach((tick, i) => picture.append(
    svg("line", { class: "grid", x1: frame.left, x2: frame.right, y1: py(tick), y2: py(tick) }),
    svg("text", { x: frame.left - 8, y: py(tick) + 4, "text-anchor": "end" }, labels[i])));
  picture.append(svg("line", { class: "base", x1: frame.left, x2: frame.right, y1: frame.bottom, y2: frame.bottom }));
  for (const tick of xs.ticks) {
    const end = px(tick) > frame.right - 14;
    picture.append(svg("text", { x: end ? frame.right + 8 : px(tick), y: frame.bottom + 17, "text-anchor": end ? "end" : "middle" }, tidy(spec.x.format(tick))));
  }
  picture.append(svg("text", { x: frame.right, y: height - 5, "text-anchor": "end" }, spec.x.title));
  for (const rule of rules) {
    picture.append(svg("line", { class: "rule", x1: px(rule.x), x2: px(rule.x), y1: frame.top, y2: frame.bottom }));
  }
  for (const line of lines) {
    picture.append(svg("polyline", { class: `line ${line.kind ?? ""}`, points: line.points.map(([x, y]) => `${px(x)},${py(y)}`).join(" ") }));
  }
  for (const mark of marks) {
    const [x, y] = [px(mark.x), py(mark.y)];
    if (isNumber(mark.low)) picture.append(svg("line", { class: "whisker", x1: x, x2: x, y1: py(mark.low), y2: py(mark.high) }));
    const [r, tone] = [mark.radius ?? 5, { class: `mark ${mark.kind ?? ""}` }];
    const shape = mark.kind === "measured" ? svg("rect", { ...tone, x: x - r, y: y - r, width: 2 * r, height: 2 * r }) : svg("circle", { ...tone, cx: x, cy: y, r });
    // What a finger can hit is larger than what is seen.
    const hit = svg("circle", { class: "hit", cx: x, cy: y, r: 14, onpointerover: () => { said.textContent = mark.title; }, onclick: () => { said.textContent = mark.title; } });
    hit.append(svg("title", {}, mark.title));
    picture.append(shape, hit);
  }
  const curves = lines.map((line) => line.points.map(([x, y]) => [px(x), py(y)]));
  const upright = rules.map(({ x }) => [[px(x), frame.top], [px(x), frame.bottom]]);
  const spots = marks.map((m) => ({ mark: m, x: px(m.x), y: py(m.y) }));
  for (const { x, name } of rules) spots.push({ mark: { name, rule: true }, x: px(x), y: frame.top + 8 });
  for (const { mark, x, y } of labelled(spots, [...curves, ...upright], frame)) {
    picture.append(svg("text", { class: `name ${mark.kind ? "strong" : ""}`, x, y }, mark.name));
  }
  container.replaceChildren(...(marks.length ? [picture, said] : [picture]));
}

/** Where the names of marks go (left end of the baseline): beside the mark, clear of other names, marks and lines. */
function labelled(spots, curves, frame) {
  const HEIGHT = 13;
  const taken = spots.filter(({ mark }) => !mark.rule).map(({ x, y }) => [x - 6, y - 6, x + 6, y + 6]);
  const steps = curves.flatMap((curve) => curve.slice(1).flatMap(([x, y], i) => {
    const pieces = Math.ceil(Math.hypot(x - curve[i][0], y - curve[i][1]) / 5);
    return Array.from({ length: pieces }, (_, k) => [curve[i][0] + (x - curve[i][0]) * k / pieces, curve[i][1] + (y - curve[i][1]) * k / pieces]);
  }));
  const placed = [];
  for (const { mark, x, y } of [...spots].sort((a, b) => Number(Boolean(b.mark.kind)) - Number(Boolean(a.mark.kind)))) {
    if (!mark.name) continue;
    const length = (mark.kind ? 7.6 : 7) * mark.name.length;
    const beside = mark.rule ? [0, 16, 32, 48, 80, 120].flatMap((down) => [[x + 6, y + down], [x - 6 - length, y + down]])
      : [9, 22, 40].flatMap((far) => [[x + 9, y - far], [x - 9 - length, y - far], [x + 9, y + far + 9], [x - 9 - length, y + far + 9], [x - length / 2, y - far - 4], [x - length / 2, y + far + 15]]);
    const options = beside.map(([left, base]) => {
      const box = [left, base - HEIGHT, left + length, base + 3];
      const meets = (other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3];
      const outside = box[0] < frame.left || box[2] > frame.right + 12 || box[1] < frame.top - 12 || box[3] > frame.bottom + 4;
      const cost = 1000 * Number(outside) + 100 * taken.filter(meets).length + steps.filter(([sx, sy]) => meets([sx - 2, sy - 2, sx + 2, sy + 2])).length;
      return { left, base, box, cost };
    });
    const best = options.reduce((least, option) => option.cost < least.cost ? option : least);
    if (best.cost >= 100 && !mark.kind && !mark.rule) continue;
    taken.push(best.box);
    placed.push({ mark, x: best.left, y: best.base });
  }
  return placed;
}

/** Arrow keys, Home and End move among the buttons that carry data-row and data-col; only one is in the tab order. */
function arrows(container, choose) {
  const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  container.addEventListener("keydown", (event) => {
    const from = event.target.closest("button[data-row]");
    if (!from) return;
    const buttons = [...container.querySelectorAll("button[data-row]")];
    const at = (button) => [Number(button.dataset.row), Number(button.dataset.col)];
    let to;
    if (event.key === "Home") [to] = buttons;
    else if (event.key === "End") to = buttons.at(-1);
    else if (STEPS[event.key]) {
      const [dr, dc] = STEPS[event.key];
      const [r, c] = at(from);
      const ahead = buttons.filter((button) => {
        const [row, col] = at(button);
        return dr ? col === c && (row - r) * dr > 0 : row === r && (col - c) * dc > 0;
      });
      const distance = (button) => Math.abs(at(button)[0] - r) + Math.abs(at(button)[1] - c);
      to = ahead.sort((a, b) => distance(a) - distance(b))[0];
    }
    if (!to) return;
    event.preventDefault();
    choose(Number(to.dataset.site));
    to.focus();
  });
}
