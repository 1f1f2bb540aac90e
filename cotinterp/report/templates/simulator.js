"use strict";
(() => {
  const LAWS = ["linear", "logarithmic", "constant", "none"];
  const REGIMES = ["direct", "cot"];
  const ALMOST = 1e-9;
  const BOX = { left: 56, right: 486, top: 12, bottom: 330, lane: 42 };

  // The numbers. cotinterp/report/simulator_numbers.py says the same.
  function needed(law, k, at) {
    if (law === "linear") return Math.max(1, Math.ceil((k - 1) / at.b - ALMOST));
    if (law === "logarithmic") return Math.max(1, Math.ceil(Math.log2(k) / at.b - ALMOST));
    if (k <= at.floor) return 1;
    return law === "constant" ? at.enough : null;
  }

  function longest(law, layers, at) {
    if (law === "linear") return 1 + at.b * layers;
    if (law === "logarithmic") return 2 ** (at.b * layers);
    return law === "constant" && layers >= at.enough ? Infinity : at.floor;
  }

  function lengths(task, regime, k, at) {
    if (task) {
      const [prompt, response, before, read, pairs] = task.lengths[regime][k];
      return { prompt, response, before, read, pairs };
    }
    const prompt = 2 * k + 1;
    const before = regime === "cot" ? at.step_tokens * (k - 1) + 1 : 0;
    const read = prompt + before + 1;
    return { prompt, response: before + 2, before, read, pairs: (read * (read + 1)) / 2 };
  }

  const slots = (layers, before) => layers * (1 + before);

  function flops(of, layers, model) {
    const token = 8 * model.d_model ** 2 + 4 * model.d_model * model.d_mlp;
    const block = of.read * token + of.pairs * 4 * model.d_model;
    return layers * block + of.response * 2 * model.d_model * model.d_vocab;
  }

  // The words. `words` in cotinterp/report/simulator.py says the same.
  const rounded = (value, digits) => (Math.floor(value * 10 ** digits + 0.5) / 10 ** digits).toFixed(digits);
  const count = (value) => (Number.isInteger(value) ? String(value) : rounded(value, 1));
  function amount(value) {
    const units = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
    const [size, unit] = units.find(([least]) => value >= least) ?? [1, ""];
    return `${rounded(value / size, 2)} ${unit}FLOP`;
  }

  function enough(need, have, at, stepwise) {
    if (need === null) return stepwise && at.floor >= 2 ? "enough, a step at a time" : "never enough";
    return need <= have ? "enough" : `${count(need - have)} short`;
  }

  function words(task, model, at) {
    const of = Object.fromEntries(REGIMES.map((regime) => [regime, lengths(task, regime, at.k, at)]));
    const have = Object.fromEntries(REGIMES.map((regime) => [regime, slots(at.n_layers, of[regime].before)]));
    const say = {
      at: [`K = ${at.k} operands, L = ${at.n_layers} layers`],
      model: [`d_model ${model.d_model}, d_mlp ${model.d_mlp}, ${model.d_vocab} symbols`],
      "have.direct": [`${count(have.direct)} layers`],
      "have.cot": [`${count(have.cot)} layers before its answer`],
    };
    for (const law of LAWS) {
      const need = needed(law, at.k, at);
      say[`needed.${law}`] = [need === null ? "no number is enough" : count(need), need];
      for (const regime of REGIMES) say[`${regime}.${law}`] = [enough(need, have[regime], at, regime === "cot")];
    }
    const rows = {
      prompt: (regime) => of[regime].prompt,
      response: (regime) => of[regime].response,
      operations: (regime) => of[regime].response * at.n_layers,
      slots: (regime) => have[regime],
      flops: (regime) => flops(of[regime], at.n_layers, model),
    };
    for (const [row, value] of Object.entries(rows)) {
      const [direct, cot] = REGIMES.map(value);
      const shown = row === "flops" ? amount : count;
      say[`${row}.direct`] = [shown(direct), direct];
      say[`${row}.cot`] = [shown(cot), cot];
      say[`${row}.ratio`] = [`${rounded(cot / direct, 2)} ×`, cot / direct];
    }
    return say;
  }

  // The charts.
  function draw(parent, name, attributes, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent.append(node);
    return node;
  }

  const line = (points) => "M" + points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
  const between = (low, high, from, to) => (value) => from + ((value - low) / (high - low)) * (to - from);

  function axis(svg, { scale, ticks, across, title }) {
    for (const tick of ticks) {
      const at = scale(tick);
      const ends = across
        ? { x1: at, x2: at, y1: BOX.top, y2: BOX.bottom }
        : { x1: BOX.left, x2: BOX.right, y1: at, y2: at };
      draw(svg, "line", { class: "grid", ...ends });
      const place = across
        ? { x: at, y: BOX.bottom + 18, "text-anchor": "middle" }
        : { x: BOX.left - 6, y: at + 4, "text-anchor": "end" };
      draw(svg, "text", place, tick);
    }
    const middle = (BOX.top + BOX.bottom) / 2;
    const place = across
      ? { x: (BOX.left + BOX.right) / 2, y: BOX.bottom + 40, "text-anchor": "middle" }
      : { transform: `translate(13 ${middle}) rotate(-90)`, "text-anchor": "middle" };
    draw(svg, "text", place, title);
  }

  function frame(svg) {
    svg.replaceChildren();
    draw(svg, "path", { class: "axis", d: `M${BOX.left} ${BOX.top}V${BOX.bottom}H${BOX.right}` });
  }

  function mark(svg, run, x, y, chosen, upward) {
    const group = draw(svg, "g", chosen ? { class: "run" } : { class: "run other" });
    const looks = `point ${run.regime}${run.open ? " open" : ""}`;
    if (run.open || run.next < 0) {
      const d = upward ? `M${x} ${y - 5}v-13m-4 5l4 -5l4 5` : `M${x + 5} ${y}h13m-5 -4l5 4l-5 4`;
      draw(group, "path", { class: "beyond", d });
    }
    if (run.regime === "direct") draw(group, "circle", { class: looks, cx: x, cy: y, r: 4.5 });
    else draw(group, "rect", { class: looks, x: x - 4.5, y: y - 4.5, width: 9, height: 9 });
    draw(group, "title", {}, run.words);
  }

  function byLength(svg, task, at, runs, most) {
    const x = (k) => between(1, Math.log2(most.k), BOX.left + BOX.lane, BOX.right - 8)(Math.log2(k));
    const y = (layers) => between(0, 14, BOX.bottom, BOX.top)(Math.log2(layers));
    frame(svg);
    axis(svg, { scale: x, ticks: [2, 4, 8, 16, 32, 64], across: true, title: "operands K" });
    axis(svg, { scale: y, ticks: [1, 4, 16, 64, 256, 1024, 4096, 16384], across: false, title: "serial layers" });
    const ks = Array.from({ length: most.k - 1 }, (_, index) => index + 2);
    const known = ks.filter((k) => !task || task.lengths.cot[k]);
    const before = (k) => lengths(task, "cot", k, at).before;
    const offers = { direct: [[2, at.n_layers], [most.k, at.n_layers]], cot: known.map((k) => [k, slots(at.n_layers, before(k))]) };
    for (const regime of REGIMES) {
      draw(svg, "path", { class: `offer ${regime}`, d: line(offers[regime].map(([k, have]) => [x(k), y(have)])) });
    }
    for (const law of LAWS) {
      const asked = ks.map((k) => [k, needed(law, k, at)]).filter(([, need]) => need !== null);
      const points = asked.map(([k, need]) => [x(k), y(need)]);
      if (asked.length < ks.length && points.length) points.push([points.at(-1)[0], BOX.top]);
      if (points.length) draw(svg, "path", { class: `law ${law}`, d: line(points) });
    }
    draw(svg, "line", { class: "here", x1: x(at.k), x2: x(at.k), y1: BOX.top, y2: BOX.bottom });
    if (runs.some((run) => run.solved === 0)) {
      draw(svg, "text", { x: BOX.left + BOX.lane / 2, y: BOX.bottom + 18, "text-anchor": "middle" }, "none");
    }
    for (const run of runs) {
      const across = run.solved ? x(run.solved) : BOX.left + BOX.lane / 2;
      const have = run.regime === "cot" ? slots(run.layers, before(run.solved || 2)) : run.layers;
      mark(svg, run, across, y(have) + 4 * run.beside, run.layers === at.n_layers, false);
    }
  }

  function byDepth(svg, at, runs, most) {
    const x = between(0.5, most.n_layers + 0.5, BOX.left, BOX.right);
    const y = (k) => between(1, Math.log2(most.k), BOX.bottom - 30, BOX.top + 22)(Math.log2(k));
    frame(svg);
    const every = Math.ceil(most.n_layers / 16);
    const ticks = Array.from({ length: Math.floor(most.n_layers / every) }, (_, index) => every * (index + 1));
    axis(svg, { scale: x, ticks, across: true, title: "layers L" });
    axis(svg, { scale: y, ticks: [2, 4, 8, 16, 32, 64], across: false, title: "operands K solved" });
    for (const law of [...LAWS].reverse()) {
      const points = [];
      for (let layers = 1; layers <= most.n_layers + 0.5; layers += 0.05) {
        const k = longest(law, layers, at);
        const height = y(Math.min(k, 4 * most.k));
        if (k >= 2) points.push([x(layers), Math.max(BOX.top, height)]);
        if (height <= BOX.top) break;
      }
      if (points.length) draw(svg, "path", { class: `law ${law}`, d: line(points) });
    }
    draw(svg, "line", { class: "here", x1: BOX.left, x2: BOX.right, y1: y(at.k), y2: y(at.k) });
    draw(svg, "line", { class: "here", x1: x(at.n_layers), x2: x(at.n_layers), y1: BOX.top, y2: BOX.bottom });
    if (runs.some((run) => run.solved === 0)) {
      draw(svg, "text", { x: BOX.left - 6, y: BOX.bottom - 4, "text-anchor": "end" }, "none");
    }
    for (const run of runs) {
      const across = x(run.layers) + (run.regime === "cot" ? 9 : -9) + 3 * run.beside;
      mark(svg, run, across, run.solved ? y(run.solved) : BOX.bottom - 8, run.layers === at.n_layers, true);
    }
  }

  // Runs that would hide one another are set side by side.
  function spread(runs) {
    const groups = new Map();
    for (const run of runs) {
      const place = `${run.regime} ${run.layers} ${run.solved}`;
      groups.set(place, [...(groups.get(place) ?? []), run]);
    }
    return [...groups.values()].flatMap((group) =>
      group.map((run, index) => ({ ...run, beside: index - (group.length - 1) / 2 })),
    );
  }

  function simulate(root) {
    const data = JSON.parse(root.querySelector(".sim-data").textContent);
    const control = (name) => root.querySelector(`[name="${name}"]`);
    const sliders = [...root.querySelectorAll("input[type=range]")];
    const [byK, byL] = [root.querySelector(".sim-by-k"), root.querySelector(".sim-by-l")];

    function show() {
      const task = data.tasks[control("task").value] ?? null;
      control("k").max = task ? Math.max(...Object.keys(task.lengths.cot).map(Number)) : data.most.k;
      control("k").min = task ? Math.min(...Object.keys(task.lengths.cot).map(Number)) : 2;
      control("step_tokens").disabled = task !== null;
      control("step_tokens").closest("label").classList.toggle("off", task !== null);
      const at = Object.fromEntries(sliders.map((slider) => [slider.name, Number(slider.value)]));
      for (const slider of sliders) control(`${slider.name}-is`).textContent = slider.value;
      const say = words(task, task ?? data.plain, at);
      for (const cell of root.querySelectorAll("[data-say]")) {
        const [text, value] = say[cell.dataset.say];
        cell.textContent = text;
        if (value !== undefined) cell.dataset.value = JSON.stringify(value);
      }
      const budget = control("steps").value;
      const runs = spread((task?.runs ?? []).filter((run) => !budget || String(run.steps) === budget));
      byLength(byK, task, at, runs, data.most);
      byDepth(byL, at, runs, data.most);
      const need = LAWS.map((law) => `${law} ${say[`needed.${law}`][0]}`).join(", ");
      byK.setAttribute("aria-label", `Serial layers by K. ${say.at[0]}. Needed: ${need}. Available: direct ${say["have.direct"][0]}, cot ${say["have.cot"][0]}.`);
      byL.setAttribute("aria-label", `Longest problem solved by depth, ${runs.length} measured runs. ${say.at[0]}. The table of measured runs below says the same.`);
    }

    for (const part of root.querySelectorAll("[hidden]")) part.hidden = false;
    for (const field of root.querySelectorAll("input, select")) field.addEventListener("input", show);
    show();
  }

  for (const root of document.querySelectorAll(".simulator")) simulate(root);
})();
