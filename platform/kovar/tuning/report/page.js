"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const options = { responsive: true, displaylogo: false,
    modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };

  const layoutOf = (layout) => {
    const axis = { gridcolor: color("--line"), zerolinecolor: color("--line"),
      linecolor: color("--soft"), automargin: true };
    const label = { bgcolor: color("--tint"), bordercolor: color("--line"),
      font: { color: color("--ink"), size: 12.5 }, align: "left" };
    return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 13, color: color("--ink") },
      margin: { l: 64, r: 24, t: 28, b: 52 }, hoverlabel: label,
      modebar: { bgcolor: "rgba(0,0,0,0)", color: color("--soft"), activecolor: color("--ink") },
      ...layout,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", ...layout.legend },
      annotations: layout.annotations?.map((note) => ({ bgcolor: color("--paper"), ...note })),
      xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis } };
  };
  const draw = (section) => {
    const choice = section.querySelector("h2 select");
    const { data, layout } = figures[section.id][choice ? choice.selectedIndex : 0];
    const copy = JSON.parse(JSON.stringify(data));
    return Plotly.react(section.querySelector(".drawn"), copy, layoutOf(layout), options);
  };
  const sections = [...document.querySelectorAll("section.plot")];
  for (const section of sections) {
    section.querySelector("h2 select")?.addEventListener("change", () => draw(section));
  }
  dark.addEventListener("change", () => sections.forEach(draw));

  const keyOf = (cell) => {
    const text = cell.dataset.key ?? cell.textContent.trim();
    const number = text === "" ? NaN : Number(text.split(" ")[0].replaceAll(",", ""));
    return { text, number };
  };
  const compare = (a, b, sign) => {
    // Cells without a value stay at the end, whichever way the rest is sorted.
    if (a.text === "" || b.text === "") return (a.text === "") - (b.text === "");
    if (!Number.isNaN(a.number) && !Number.isNaN(b.number)) return sign * (a.number - b.number);
    return sign * a.text.localeCompare(b.text);
  };
  for (const head of document.querySelectorAll("th[aria-sort]")) {
    head.addEventListener("click", () => {
      const row = head.parentElement, body = head.closest("table").tBodies[0];
      const place = [...row.children].indexOf(head);
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of row.children) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const rows = [...body.rows].map((one) => [keyOf(one.cells[place]), one]);
      rows.sort((a, b) => compare(a[0], b[0], sign));
      body.append(...rows.map((one) => one[1]));
    });
  }

  for (const form of document.querySelectorAll("form.filters")) {
    const table = document.getElementById(form.dataset.for);
    const heads = [...table.tHead.rows[0].cells].map((head) => head.textContent);
    const filter = () => {
      const wanted = [...form.querySelectorAll("select")]
        .filter((one) => one.value)
        .map((one) => [heads.indexOf(one.dataset.column), one.value]);
      const any = form.querySelector("[data-any]").value.trim().toLowerCase();
      let count = 0;
      for (const row of table.tBodies[0].rows) {
        const fits = wanted.every(([place, value]) => row.cells[place].textContent === value)
          && row.textContent.toLowerCase().includes(any);
        row.hidden = !fits;
        count += fits;
      }
      form.querySelector("output").value = `${count} of ${table.tBodies[0].rows.length}`;
    };
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    filter();
  }

  Promise.all(sections.map(draw)).then(() => { document.body.dataset.drawn = sections.length; });
})();
