"use strict";
// Draws the figures held in the page. Their colours are CSS variables, resolved here, so the same
// figure is drawn again in other colours when the system turns dark or the page is printed.
(() => {
  const PHONE_PX = 640;
  const PRINT_PX = 680;
  const root = document.documentElement;
  const plots = [...document.querySelectorAll(".plot[data-figure]")].map((element) => ({
    element,
    figure: JSON.parse(document.getElementById(element.dataset.figure).textContent),
  }));

  function resolve(value, style) {
    if (typeof value === "string") {
      const match = /^var\((--[a-z-]+)\)$/.exec(value);
      return match ? style.getPropertyValue(match[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => resolve(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolve(v, style)]));
  }

  function draw(plot, widthPx) {
    const { element, figure } = plot;
    const style = getComputedStyle(root);
    const { data, layout } = resolve(figure, style);
    const width = widthPx || element.clientWidth;
    plot.width = width;
    if (width < PHONE_PX) {
      layout.font.size = 11;
      layout.margin = { ...layout.margin, l: 40, r: 8 };
    }
    // The legend stands below the axes and its height depends on the width: give it room.
    const names = data.filter((trace) => trace.showlegend !== false).map((trace) => trace.name);
    const lengths = names.map((name) => 46 + 6.6 * name.replace(/&[a-z0-9#]+;/g, "-").length);
    const perRow = Math.max(1, Math.floor(width / Math.max(...lengths, 1)));
    const oneRow = lengths.reduce((sum, length) => sum + length, 0) < 0.9 * width;
    const legendPx = 12 + 20 * (oneRow ? 1 : Math.ceil(names.length / perRow));
    layout.height += legendPx;
    layout.margin = { ...layout.margin, b: layout.margin.b + legendPx };
    layout.width = width;
    return Plotly.react(element, data, layout, {
      displaylogo: false,
      typesetMath: false,
      displayModeBar: !widthPx && matchMedia("(hover: hover)").matches ? "hover" : false,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    });
  }

  let printing = false;
  const drawAll = (widthPx) => plots.forEach((plot) => draw(plot, widthPx));
  drawAll();
  root.dataset.drawn = String(plots.length);

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());
  // The observer, not the window's resize event: it also sees rotation and a hidden part opening.
  const watcher = new ResizeObserver(() => {
    if (printing) return;
    plots.filter((plot) => plot.element.clientWidth !== plot.width).forEach((plot) => draw(plot));
  });
  plots.forEach((plot) => watcher.observe(plot.element));

  let folded = [];
  addEventListener("beforeprint", () => {
    printing = true;
    root.classList.add("print");
    folded = [...document.querySelectorAll("details:not([open]):not(.screen)")];
    folded.forEach((part) => { part.open = true; });
    drawAll(PRINT_PX);
  });
  addEventListener("afterprint", () => {
    printing = false;
    root.classList.remove("print");
    folded.forEach((part) => { part.open = false; });
    drawAll();
  });
})();
