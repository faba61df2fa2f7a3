"use strict";
(() => {
  const root = document.documentElement;

  // Theme: the system's until the switch is used; then it is remembered where that is allowed.
  const themeSwitch = document.getElementById("theme");
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const remembered = (value) => {
    try {
      if (value) localStorage.setItem("peftport-theme", value);
      return localStorage.getItem("peftport-theme");
    } catch {
      return null;
    }
  };
  const showTheme = () => themeSwitch.setAttribute("aria-pressed", String(isDark()));
  const before = remembered();
  if (before === "dark" || before === "light") root.dataset.theme = before;
  themeSwitch.hidden = false;
  themeSwitch.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remembered(root.dataset.theme);
    showTheme();
  });
  systemDark.addEventListener("change", showTheme);
  showTheme();

  // On paper nothing can be unfolded.
  addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll("details.group")) folded.open = true;
  });

  // Views: of several tables show the one that the choices name. Without this script all show.
  for (const group of document.querySelectorAll("[data-views]")) {
    const views = [...group.querySelectorAll("[data-view]")];
    const bar = group.querySelector(".choices");
    const choices = new Map();
    for (const name of Object.keys(JSON.parse(views[0]?.dataset.view ?? "{}"))) {
      const options = [...new Set(views.map((view) => JSON.parse(view.dataset.view)[name]))];
      if (options.length < 2) continue;
      const select = document.createElement("select");
      for (const value of options) select.add(new Option(bar.dataset[value] ?? value, value));
      const label = document.createElement("label");
      label.append(name === "budget" ? "Training steps" : "Setting", select);
      bar.append(label);
      choices.set(name, select);
      select.addEventListener("change", show);
    }
    function show() {
      for (const view of views) {
        const own = JSON.parse(view.dataset.view);
        view.hidden = [...choices].some(([name, select]) => own[name] !== select.value);
      }
    }
    show();
  }

  // The table of runs.
  const runs = JSON.parse(document.getElementById("runs-data").textContent);
  const texts = new Set(runs.texts);
  const size = runs.data.run_id.length;
  const pageSize = 100;
  const value = (row, name) =>
    texts.has(name) ? runs.words[runs.data[name][row]] : runs.data[name][row];
  const haystack = Array.from({ length: size }, (_, row) =>
    runs.columns.map((name) => value(row, name)).join(" ").toLowerCase());
  const table = document.getElementById("runs-table");
  const body = table.tBodies[0];
  const status = document.getElementById("runs-status");
  const search = document.getElementById("runs-search");
  const [previous, next] = ["previous", "next"].map((name) =>
    document.getElementById(`runs-${name}`));
  const filters = new Map();
  let sortBy = null;
  let down = false;
  let page = 0;
  let shown = [];

  for (const name of runs.filters) {
    const found = [...new Set(Array.from({ length: size }, (_, row) => value(row, name)))];
    if (found.length < 2) continue;
    found.sort((a, b) => (typeof a === "number" ? a - b : a.localeCompare(b)));
    const select = document.createElement("select");
    select.dataset.column = name;
    select.add(new Option("all", ""));
    for (const each of found) select.add(new Option(each === "" ? "none" : each, `=${each}`));
    const label = document.createElement("label");
    label.append(name.replace("_", " "), select);
    document.getElementById("runs-filters").append(label);
    filters.set(name, select);
    select.addEventListener("change", refresh);
  }

  function compare(a, b) {
    const [x, y] = [value(a, sortBy), value(b, sortBy)];
    if (x === null || y === null) return (x === null) - (y === null);
    const order = texts.has(sortBy) ? x.localeCompare(y) : x - y;
    return (down ? -order : order) || a - b;
  }

  function refresh() {
    const wanted = search.value.trim().toLowerCase().split(/\s+/);
    shown = [];
    for (let row = 0; row < size; row++) {
      const fits = [...filters].every(([name, select]) =>
        select.value === "" || select.value === `=${value(row, name)}`);
      if (fits && wanted.every((word) => haystack[row].includes(word))) shown.push(row);
    }
    if (sortBy !== null) shown.sort(compare);
    page = 0;
    draw();
  }

  function text(row, name) {
    const found = value(row, name);
    if (found === null) return "";
    if (typeof found !== "number" || Number.isInteger(found) && !name.endsWith("accuracy")) return found;
    return found.toFixed(name === "train_seconds" ? 1 : 3);
  }

  function draw() {
    const start = page * pageSize;
    const rows = shown.slice(start, start + pageSize).map((row) => {
      const line = document.createElement("tr");
      for (const name of runs.columns) {
        const cell = line.insertCell();
        cell.textContent = text(row, name);
        if (name === "status" && cell.textContent === "failed") cell.className = "failed";
        if (name === "error" && cell.textContent) cell.title = cell.textContent;
      }
      return line;
    });
    body.replaceChildren(...rows);
    const end = Math.min(start + pageSize, shown.length);
    const many = (number) => number.toLocaleString("en");
    status.textContent = shown.length
      ? `Runs ${many(start + 1)} to ${many(end)} of ${many(shown.length)}` +
        (shown.length < size ? ` (of ${many(size)} in all)` : "")
      : `No run fits (of ${many(size)} in all)`;
    previous.disabled = page === 0;
    next.disabled = end >= shown.length;
  }

  const heads = [...table.tHead.rows[0].cells];
  for (const head of heads) {
    head.querySelector("button").addEventListener("click", () => {
      const name = head.dataset.column;
      down = sortBy === name ? !down : false;
      sortBy = name;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      refresh();
    });
  }
  previous.addEventListener("click", () => { page -= 1; draw(); });
  next.addEventListener("click", () => { page += 1; draw(); });
  search.addEventListener("input", refresh);
  document.getElementById("runs-reset").addEventListener("click", () => {
    search.value = "";
    for (const select of filters.values()) select.value = "";
    sortBy = null;
    for (const head of heads) head.removeAttribute("aria-sort");
    refresh();
  });
  refresh();
})();
