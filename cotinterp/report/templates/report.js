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

  function draw(view) {
    const plot = view.querySelector(".attention-plot");
    const list = view.querySelector("select");
    const heads = () => [...plot.querySelectorAll("h4")];
    CircuitsVis.render(plot.id, CircuitsVis.AttentionHeads, JSON.parse(view.querySelector("script").textContent));
    list.addEventListener("change", () => heads()[list.selectedIndex].click());
    plot.addEventListener("click", (event) => {
      const chosen = heads().findIndex((head) => head.parentElement.contains(event.target));
      if (chosen >= 0) list.selectedIndex = chosen;
    });
  }

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
      Plotly.newPlot(element, data, layout, FIGURES);
    }
  };
  const seen = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => show(entry.target)),
    { rootMargin: "600px" },
  );
  const waiting = [...document.querySelectorAll(".plotly-graph-div, .attention")];
  for (const element of waiting) seen.observe(element);
  // All of it is printed.
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details.more")) details.open = true;
    views.length = 0;
    for (const element of waiting.filter((one) => !one.matches(".js-plotly-plot, .attention"))) show(element);
    for (const view of document.querySelectorAll(".attention")) if (!view.querySelector("canvas")) { seen.unobserve(view); draw(view); }
  });
})();
