"use strict";
(function () {
  const root = document.documentElement;
  const NARROW = 480; // pixels of a chart

  // What went wrong is counted where a reader, or a test, can see it.
  function fault(text) {
    root.dataset.faults = String(Number(root.dataset.faults || 0) + 1);
    root.dataset.lastFault = String(text).slice(0, 300);
  }
  window.addEventListener("error", (event) => fault(event.message));
  window.addEventListener("unhandledrejection", (event) => fault(event.reason));
  document.addEventListener("securitypolicyviolation", (event) => fault(event.violatedDirective));

  // ---- charts ------------------------------------------------------------------------------------------------

  const source = document.getElementById("charts");
  const charts = source ? JSON.parse(source.textContent) : [];
  let printing = false;

  // Colours in a chart are names of custom properties: page.css alone decides what they are.
  function colored(value, styles) {
    if (typeof value === "string") {
      return value.startsWith("--") ? styles.getPropertyValue(value).trim() || value : value;
    }
    return Array.isArray(value) ? value.map((item) => colored(item, styles)) : value;
  }
  function themed(value, styles) {
    if (Array.isArray(value)) return value.map((item) => themed(item, styles));
    if (value === null || typeof value !== "object") return value;
    const out = {};
    for (const key of Object.keys(value)) {
      out[key] = /color$/.test(key) ? colored(value[key], styles) : themed(value[key], styles);
    }
    return out;
  }

  function draw(chart) {
    const box = document.getElementById(chart.id);
    const width = box.clientWidth;
    if (!width) return;
    const narrow = width < NARROW;
    const data = chart.data.map((trace, i) => Object.assign({}, trace, (narrow && chart.narrow[i]) || {}));
    const styles = getComputedStyle(root);
    const layout = Object.assign({}, themed(chart.layout, styles), { width: width, height: chart.height });
    const config = { displayModeBar: false, responsive: false, scrollZoom: false, doubleClick: false };
    try {
      window.Plotly.react(box, themed(data, styles), layout, config).catch((error) => failed(box, error));
    } catch (error) {
      failed(box, error);
    }
  }
  function failed(box, error) {
    fault(error);
    const note = document.createElement("p");
    note.className = "failed";
    note.textContent = "This chart could not be drawn; its numbers are in the table below.";
    box.replaceChildren(note);
  }
  function drawAll() {
    charts.forEach(draw);
  }

  let drawnWidth = root.clientWidth;
  let waiting = 0;
  window.addEventListener("resize", () => {
    if (printing || root.clientWidth === drawnWidth) return;
    window.cancelAnimationFrame(waiting);
    waiting = window.requestAnimationFrame(() => {
      drawnWidth = root.clientWidth;
      drawAll();
    });
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  window.addEventListener("beforeprint", () => {
    printing = true;
    root.classList.add("printing"); // see page.css: its colours and widths are those of paper
    drawAll();
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    root.classList.remove("printing");
    drawAll();
  });

  // ---- tables that sort --------------------------------------------------------------------------------------

  function sortBy(table, column, header) {
    const descending = header.getAttribute("aria-sort") !== "descending" && header.dataset.by === "number";
    const ascending = !descending && header.getAttribute("aria-sort") !== "ascending";
    const sign = descending || !ascending ? -1 : 1;
    table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = Array.from(body.rows).map((row) => [row.cells[column].dataset.sort, row]);
    rows.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === ""); // what is unknown comes last
      return sign * (header.dataset.by === "number" ? Number(a) - Number(b) : a.localeCompare(b));
    });
    rows.forEach(([, row]) => body.append(row));
  }
  document.querySelectorAll("table.sortable").forEach((table) => {
    Array.from(table.tHead.rows[0].cells).forEach((header, column) => {
      const button = header.querySelector("button");
      if (button) button.addEventListener("click", () => sortBy(table, column, header));
    });
  });

  drawAll();
  root.dataset.drawn = String(document.querySelectorAll(".chart .main-svg").length);
})();
