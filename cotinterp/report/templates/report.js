"use strict";
(() => {
  const value = (row, column) => row.children[column].dataset.value;

  function sort(table, column, descending) {
    const body = table.tBodies[0];
    const rows = [...body.rows].sort((a, b) => {
      const [left, right] = [value(a, column), value(b, column)];
      const numeric = Number(left) - Number(right);
      const order = Number.isNaN(numeric) ? left.localeCompare(right) : numeric;
      return descending ? -order : order;
    });
    body.append(...rows);
    [...table.tHead.rows[0].cells].forEach((cell, index) => {
      cell.setAttribute("aria-sort", index !== column ? "none" : descending ? "descending" : "ascending");
    });
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      cell.querySelector("button").addEventListener("click", () => {
        // Numbers start with the largest, names with the first.
        const first = table.tBodies[0].rows[0].children[column].classList.contains("number") ? "descending" : "ascending";
        const now = cell.getAttribute("aria-sort");
        sort(table, column, now === "none" ? first === "descending" : now === "ascending");
      });
    });
  }

  // Megabytes of script run when the first picture needs them, so that the page is there before.
  function needed(id) {
    const stored = document.getElementById(id);
    if (!stored) return;
    const script = document.createElement("script");
    script.textContent = stored.textContent;
    stored.replaceWith(script);
  }
  const draw = (view) => {
    needed("circuitsvis-script");
    drawAttention(view, JSON.parse(view.querySelector("script").textContent));
  };

  // Figures and attention views are drawn when they come near the window, or when what folds them away is opened.
  const views = [];
  const next = () => {
    if (views.length === 0) return;
    draw(views.shift());
    requestIdleCallback(next, { timeout: 2000 });
  };
  const show = (element) => {
    seen.unobserve(element);
    if (element.classList.contains("attention")) {
      if (views.push(element) === 1) requestIdleCallback(next, { timeout: 2000 });
    } else {
      const { data, layout } = JSON.parse(element.nextElementSibling.textContent);
      needed("plotly-script");
      const toImageButtonOptions = { ...FIGURES.toImageButtonOptions, filename: element.id };
      Plotly.newPlot(element, data, layout, { ...FIGURES, toImageButtonOptions });
    }
  };
  const seen = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => show(entry.target)),
    { rootMargin: "600px" },
  );
  const waiting = [...document.querySelectorAll(".plotly-graph-div, .attention")];
  for (const element of waiting) seen.observe(element);
  for (const button of document.querySelectorAll("figcaption button")) {
    button.addEventListener("click", () => {
      const figure = button.closest("figure").querySelector(".plotly-graph-div");
      const size = { width: 1200, height: figure.offsetHeight, scale: button.textContent === "png" ? 2 : 1 };
      Plotly.downloadImage(figure, { format: button.textContent, filename: figure.id, ...size });
    });
  }

  // Whoever has no mouse scrolls with the arrow keys what has the focus.
  const scrolling = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const scrolls = target.scrollWidth > target.clientWidth || target.scrollHeight > target.clientHeight;
      scrolls ? (target.tabIndex = 0) : target.removeAttribute("tabindex");
    }
  });
  for (const element of document.querySelectorAll(".scroll, .wide, .attention, .transcript, figure")) scrolling.observe(element);

  // All of it is printed.
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details.more")) details.open = true;
    views.length = 0;
    for (const element of waiting.filter((one) => !one.matches(".js-plotly-plot, .attention"))) show(element);
    for (const view of document.querySelectorAll(".attention")) if (!view.querySelector("canvas")) { seen.unobserve(view); draw(view); }
  });
})();
