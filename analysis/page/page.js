"use strict";

// Long tables sort by a click on a head. Rows without a value come last in both directions.
for (const table of document.querySelectorAll(".sortable")) {
  const collator = new Intl.Collator("en", { numeric: true });
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    wrap(head).addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const known = [], missing = [];
      for (const row of body.rows) {
        const cell = row.cells[column];
        const shown = cell.textContent.trim();
        (shown === "–" ? missing : known).push({ row, value: cell.dataset.v ?? shown });
      }
      const numbers = known.every(({ value }) => value !== "" && Number.isFinite(Number(value)));
      known.sort((a, b) => sign * (numbers ? a.value - b.value
        : collator.compare(a.value, b.value)));
      const sorted = document.createDocumentFragment();
      for (const { row } of [...known, ...missing]) sorted.append(row);
      body.append(sorted);
    });
  });
}

// They filter by the values of some columns.
for (const form of document.querySelectorAll(".filter")) {
  const rows = [...form.parentElement.querySelector("tbody").rows];
  const selects = [...form.querySelectorAll("select")];
  const filter = () => {
    let n = 0;
    for (const row of rows) {
      row.hidden = !selects.every((one) => one.value === ""
        || row.cells[one.dataset.column].textContent.trim() === one.value);
      n += !row.hidden;
    }
    form.querySelector("output").value = n < rows.length ? `${n} of ${rows.length}` : "";
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", filter);
  filter(); // a browser may remember what was chosen
}

// Figures can be read at a point, and their legends hide what they name.
for (const figure of document.querySelectorAll("figure")) {
  const plot = figure.querySelector(".plot");
  if (!plot) continue;
  const off = new Set();
  figure.querySelectorAll(".legend li").forEach((item, series) => {
    const button = wrap(item);
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      off.has(series) ? off.delete(series) : off.add(series);
      button.setAttribute("aria-pressed", String(!off.has(series)));
      for (const node of plot.querySelectorAll(`[data-series="${series}"]`))
        node.classList.toggle("off", off.has(series));
    });
  });
  const data = figure.querySelector("script");
  if (data) read(plot, JSON.parse(data.textContent), off, figure);
}

function read(plot, { by, span, rows }, off, figure) {
  const svg = plot.querySelector("svg");
  const box = svg.viewBox.baseVal;
  const names = [...figure.querySelectorAll(".legend li")].map((item) => item.textContent.trim());
  const cursor = svg.appendChild(document.createElementNS(svg.namespaceURI, "path"));
  cursor.setAttribute("class", "cursor");
  const tip = plot.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.setAttribute("role", "status");
  plot.tabIndex = 0;
  plot.setAttribute("role", "group");
  plot.setAttribute("aria-label", "Values of the figure: arrow keys go through them");
  hide();

  function hide() {
    tip.hidden = true;
    cursor.setAttribute("d", "");
  }

  function shown() {
    return rows.filter((row) => !off.has(row.series));
  }

  // What there is to show, in the order of the arrow keys.
  function stops() {
    if (by === "x")
      return [...new Set(shown().flatMap((row) => row.x))].sort((a, b) => a - b).map((x) => ({ x }));
    return shown().flatMap((row) => row.x.map((x, i) => ({ x, y: row.y[i], text: row.text[i] })))
      .sort((a, b) => a.x - b.x || a.y - b.y);
  }

  // Shows a stop; y tells which trial is the nearest.
  function show(stop, y) {
    const lines = [];
    if (by === "x") {
      const here = shown().filter((row) => row.x.includes(stop.x))
        .map((row) => ({ ...row, i: row.x.indexOf(stop.x) }));
      lines.push(`Epoch ${here[0].at[here[0].i]}`);
      for (const row of here.filter((row) => !row.name))
        lines.push(`${names[row.series]}: ${row.text[row.i]}`);
      const trials = here.filter((row) => row.name);
      if (y !== undefined && trials.length) {
        const near = trials.reduce((a, b) =>
          Math.abs(a.y[a.i] - y) <= Math.abs(b.y[b.i] - y) ? a : b);
        lines.push(`${near.name}: ${near.text[near.i]}`);
      }
      cursor.setAttribute("d", `M${stop.x} ${span[0]}V${span[1]}`);
    } else {
      lines.push(stop.text);
      cursor.setAttribute("d", `M${stop.x - 6} ${stop.y}a6 6 0 1 0 12 0a6 6 0 1 0-12 0`);
    }
    tip.replaceChildren(...lines.map((line) => {
      const element = document.createElement("div");
      element.textContent = line;
      return element;
    }));
    tip.hidden = false;
    const scale = svg.clientWidth / box.width;
    const left = stop.x * scale;
    const room = plot.clientWidth - tip.offsetWidth;
    const beside = left + 12 <= room ? left + 12 : left - 12 - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(room, beside))}px`;
    tip.style.top = `${Math.max(0, (stop.y ?? y ?? span[0]) * scale - tip.offsetHeight - 10)}px`;
  }

  function point(event) {
    const frame = svg.getBoundingClientRect();
    const x = (event.clientX - frame.left) * box.width / frame.width;
    const y = (event.clientY - frame.top) * box.height / frame.height;
    const far = (stop) => by === "x" ? Math.abs(stop.x - x) : Math.hypot(stop.x - x, stop.y - y);
    const found = stops();
    if (!found.length) return hide();
    const near = found.reduce((a, b) => far(a) <= far(b) ? a : b);
    if (by === "point" && far(near) > 30) return hide();
    show(near, y);
  }

  let place = -1;
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    const found = stops();
    if (!found.length) return;
    place = Math.max(0, Math.min(found.length - 1, place + step));
    show(found[place]);
  });
}

// Paper cannot be unfolded.
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
});

// Puts what an element holds into a button.
function wrap(element) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...element.childNodes);
  element.append(button);
  return button;
}
