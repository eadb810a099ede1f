"""How a run's page looks, and its one script: it shows the values under the pointer."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
body { max-width: 78rem; }
:root { --c1: #2563be; --c2: #c2410c; --c3: #0f8a5f; --c4: #8b3fc4; --c5: #a16207; }
@media (prefers-color-scheme: dark) { :root { --c1: #6098e8; --c2: #fb923c; --c3: #34d399;
  --c4: #c084fc; --c5: #facc15; } }
h1 { display: flex; align-items: center; gap: .8rem; flex-wrap: wrap; margin-bottom: .2rem; }
.sub { color: var(--soft); margin: 0 0 1.2rem; }
.pill { font-size: .8rem; font-weight: 600; padding: .15rem .7rem; border-radius: 1rem;
  color: #fff; background: #64748b; }
.pill.finished { background: #15803d; } .pill.failed { background: #b91c1c; }
.pill.interrupted { background: #b45309; } .pill.running { background: #1d4ed8; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr));
  gap: .7rem; margin: 0; }
.tiles div { background: var(--tint); border-radius: 8px; padding: .6rem .9rem; }
.tiles dt { color: var(--soft); font-size: .8rem; }
.tiles dd { margin: 0; font-size: 1.12rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.ending { border-left: 4px solid #b45309; background: var(--tint); margin: 1.4rem 0 0;
  padding: .5rem 1rem; border-radius: 0 8px 8px 0; white-space: pre-line; }
.ending.failed { border-color: #b91c1c; }
.ending p { margin: .2rem 0; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr));
  gap: 1.2rem 2rem; }
figure.chart { display: block; margin: 0; }
figure.chart figcaption { display: flex; justify-content: space-between; gap: 1rem;
  color: var(--ink); font-weight: 600; }
figure.chart svg { width: 100%; touch-action: pan-y; }
.legend { font-weight: 400; color: var(--soft); font-variant-numeric: tabular-nums; }
.legend span { margin-left: .9rem; } .legend b { color: var(--ink); margin-left: .3rem; }
.legend [class^=k]::before { content: ""; display: inline-block; width: .85rem; height: 3px;
  margin: 0 .35rem .22rem 0; border-radius: 2px; background: currentColor; }
.k1::before, .c1 { color: var(--c1); } .k2::before, .c2 { color: var(--c2); }
.k3::before, .c3 { color: var(--c3); } .k4::before, .c4 { color: var(--c4); }
.k5::before, .c5 { color: var(--c5); }
.line { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round; }
circle { fill: currentColor; }
.grid { stroke: var(--line); } .axis { stroke: var(--soft); }
.mark { stroke: var(--soft); stroke-dasharray: 4 4; }
svg .marked { fill: var(--soft); font-size: 11px; }
.hair { stroke: var(--soft); visibility: hidden; }
.strip { width: 100%; height: 34px; border-radius: 6px; overflow: hidden; }
.ends { display: flex; justify-content: space-between; color: var(--soft); font-size: .85rem; }
.times td { vertical-align: middle; } .times .n { text-align: right; white-space: nowrap; }
.times .soft { color: var(--soft); font-size: .9rem; }
.times .bar { width: 26%; min-width: 7rem; } .times .bar svg { width: 100%; height: 8px; }
.times i { display: inline-block; width: .8rem; height: .8rem; border-radius: 3px;
  margin-right: .5rem; vertical-align: -1px; }
th { white-space: nowrap; }
section { overflow-x: auto; }
summary { cursor: pointer; color: var(--soft); }
""" + "".join(
    f".p-{phase} {{ fill: {color}; background: {color}; }}\n"
    for phase, color in {
        "preparing": "#94a3b8",
        "downloading": "#0891b2",
        "tokenizing": "#0d9488",
        "queued": "#cbd5e1",
        "starting": "#a78bfa",
        "placing": "#f59e0b",
        "compiling": "#db2777",
        "stepping": "#2563be",
        "checkpointing": "#65a30d",
        "evaluating": "#16a34a",
        "recovering": "#dc2626",
        "registering": "#6366f1",
        "stopped": "#78716c",
        "other": "#9ca3af",
    }.items()
)

SCRIPT: Final = """
"use strict";
for (const svg of document.querySelectorAll("svg[data-plot]")) {
  const plot = JSON.parse(svg.dataset.plot);
  const figure = svg.closest("figure"), hair = svg.querySelector(".hair");
  const values = figure.querySelectorAll(".legend b"), at = figure.querySelector(".at");
  const plain = (value) => Math.abs(value) >= 1e5
    ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(4));
  const show = (value) => plot.percent ? (100 * value).toFixed(1) + " %" : plain(value);
  const near = (points, x) => points.reduce((best, point) =>
    Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const place = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const width = plot.right - plot.left;
    const step = near(plot.series[0], (place - plot.left) / width * plot.high)[0];
    plot.series.forEach((points, index) => {
      values[index].textContent = show(near(points, step)[1]);
    });
    at.textContent = "step " + step.toLocaleString("en");
    const x = plot.left + step / plot.high * width;
    hair.setAttribute("transform", "translate(" + x + " 0)");
    hair.style.visibility = "visible";
  });
  svg.addEventListener("pointerleave", () => {
    hair.style.visibility = "hidden";
    for (const value of [...values, at]) value.textContent = "";
  });
}
"""
