// The table of all matrices: sorted by its headings, narrowed by the filter.

const MOST_ROWS = 1000;

function order(a, b) {
  const [x, y] = [state.sort.value(a), state.sort.value(b)];
  if (!given(x) || !given(y)) return Number(!given(x)) - Number(!given(y));
  const sign = state.descending ? -1 : 1;
  return sign * (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y);
}

/** What stands in a cell of a column: text, or a tag for a matrix that was left dense. */
function entry(column, site) {
  if (column.id === "structure" && site.dense) {
    return el("span", { class: `tag ${site.reason ? "warn" : ""}`, title: site.reason }, site.reason ? `left dense: ${site.reason}` : "left dense");
  }
  const value = column.value(site);
  return !given(value) ? "" : column.text ? column.text(value, site) : value;
}

function rows() {
  const wanted = byId("filter").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const text = (site) => `${site.name} ${site.structure ?? ""} ${site.layer_type ?? ""} ${site.warning ?? ""} ${site.dense ? "dense" : ""} ${site.reason ?? ""}`.toLowerCase();
  const found = sites.map((_, i) => i).filter((i) => wanted.every((word) => text(sites[i]).includes(word)));
  if (state.sort) found.sort((a, b) => order(sites[a], sites[b]) || a - b);
  const shown = found.slice(0, MOST_ROWS);
  byId("rows").replaceChildren(...shown.map((i, row) => el("tr", { "data-site": i, onclick: () => pick(i) },
    el("th", { scope: "row" }, el("button", { type: "button", "data-row": row, "data-col": 0, "data-site": i, title: sites[i].name }, sites[i].name)),
    state.columns.map((column) => el("td", { class: column.numeric ? "number" : null, "data-slider": column.slider ? column.id : null }, entry(column, sites[i]))))));
  byId("count").textContent = `${found.length === sites.length ? "" : `${found.length} of `}${plural(sites.length, "matrix", "matrices")}${shown.length < found.length ? `; the first ${MOST_ROWS} are shown` : ""}`;
}

/** Brings the columns of the slider up to date, without a new order. */
function refresh() {
  const columns = new Map(state.columns.filter((column) => column.slider).map((column) => [column.id, column]));
  for (const row of byId("rows").rows) {
    const site = sites[Number(row.dataset.site)];
    for (const td of row.querySelectorAll("[data-slider]")) td.replaceChildren(entry(columns.get(td.dataset.slider), site));
  }
}

const NAME = { id: "name", title: "Matrix", value: (site) => site.name };

function sortBy(column, descending) {
  [state.sort, state.descending] = [column, descending];
  for (const th of byId("sites").tHead.querySelectorAll("th")) {
    const here = th.dataset.column === column.id;
    th.setAttribute("aria-sort", !here ? "none" : descending ? "descending" : "ascending");
    th.querySelector("span").textContent = !here ? "" : descending ? "▾" : "▴";
  }
  rows();
  mark();
}

function heads() {
  const press = (column) => {
    sortBy(column, state.sort === column ? !state.descending : Boolean(column.numeric));
    remember("sort", `${state.descending ? "-" : ""}${column.id}`);
  };
  byId("sites").tHead.replaceChildren(el("tr", {}, [NAME, ...state.columns].map((column) => {
    const arrow = el("span", { "aria-hidden": "true" });
    return el("th", { scope: "col", class: column.numeric ? "number" : null, "aria-sort": "none", "data-column": column.id },
      el("button", { type: "button", title: column.about, onclick: () => press(column) }, column.numeric ? [arrow, column.title] : [column.title, arrow]));
  })));
  const said = state.columns.filter((column) => column.about);
  byId("words").hidden = !said.length;
  facts(byId("words").querySelector("dl"), said.map((column) => [column.title, column.about]));
  new ResizeObserver(sideways).observe(byId("sites").parentElement);
}

/** Says whether there are columns that are not seen. */
function sideways() {
  const scroller = byId("sites").parentElement;
  byId("sideways").hidden = scroller.scrollWidth <= scroller.clientWidth + 1;
}
