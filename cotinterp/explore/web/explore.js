// The explorer: what a model writes, what is changed, and what follows. One module, for the page of the server and for a
// notebook (anywidget). It asks a Python session (explore/session.py) and computes no number itself.

const SITES = ["resid_post", "resid_pre", "attn_out", "mlp_out"];
const MOST_RUNS = 8;
const PAUSE = 400;
const METHODS = ["mcts", "beam", "vote", "best-of-n", "sample", "greedy", "force"];
const SCORED = ["mcts", "beam", "best-of-n"];

export default { render };

function render({ model, el }) {
  const ask = asker(model);
  const view = { models: [], runs: [], at: null, from: null, site: 0, source: 0, target: 0, byRole: 0, note: "", search: { run: 0, method: "mcts", scorer: "oracle", budget: 200, temperature: 1 } };
  el.classList.add("cotinterp-explorer");
  const parts = Object.fromEntries(["problem", "runs", "detail", "grids", "search"].map((name) => [name, make("section", { class: name })]));
  const note = make("p", { class: "note", role: "status" });
  el.replaceChildren(make("h1", {}, "What does it write, and what does it read?"), parts.problem, note, parts.runs, parts.detail, parts.grids, parts.search);

  // State: numbers alone, so that a link opens the same state elsewhere.
  const changeNumbers = (c) =>
    c.kind === "head" ? [0, c.layer, c.head]
    : c.kind === "edge" ? [1, c.layer, c.head, c.dest, c.src]
    : [2, SITES.indexOf(c.site), c.layer, c.head, c.dest, c.src, shownNumbers(c.source)];
  const shownNumbers = (s) => [s.model, s.operands, s.total ?? null];
  const save = () => {
    const runs = view.runs.map((run) => [...shownNumbers(run), run.changes.map(changeNumbers)]);
    model.set("state", JSON.stringify([runs, view.at, view.from, view.site, view.source, view.target, view.byRole]));
    model.save_changes();
  };
  const shownOf = ([m, operands, total]) => ({ model: m, operands, ...(total ? { total } : {}) });
  const changeOf = (n) =>
    n[0] === 0 ? { kind: "head", layer: n[1], head: n[2] }
    : n[0] === 1 ? { kind: "edge", layer: n[1], head: n[2], dest: n[3], src: n[4] }
    : { kind: "patch", site: SITES[n[1]], layer: n[2], head: n[3], dest: n[4], src: n[5], source: shownOf(n[6]) };
  const restore = (text) => {
    try {
      const [runs, at, from, site, source, target, byRole = 0] = JSON.parse(text);
      view.runs = runs.slice(0, MOST_RUNS).map((run) => ({ ...shownOf(run), changes: run[3].map(changeOf) }));
      Object.assign(view, { at, from, site, source, target, byRole });
      return view.runs.length > 0;
    } catch {
      return false;
    }
  };

  // A request that failed says why in one line; what is shown stays.
  const answerOf = async (request) => {
    const answer = await ask(request);
    if (answer.error) view.note = answer.error;
    return answer.error ? null : answer;
  };
  const shownFields = ({ model: m, operands, total }) => ({ model: m, operands, ...(total ? { total } : {}) });
  const scene = (run) => ({ ...shownFields(run), changes: run.changes });
  const written = (run) => answerOf({ ask: "write", ...scene(run) });

  let turn = 0;
  const draw = async (said = "") => {
    const mine = ++turn, began = performance.now();
    view.note = said;
    const answers = await Promise.all(view.runs.map(written));
    if (mine !== turn) return;
    view.runs = view.runs.filter((_, index) => answers[index]);
    view.answers = answers.filter(Boolean);
    if (!view.runs.length) return begin(view.note);
    view.source = within(view.source, view.runs.length);
    view.target = within(view.target, view.runs.length);
    if (view.at && (view.at[0] >= view.runs.length || view.at[1] >= view.answers[view.at[0]].tokens.length)) view.at = null;
    save();
    drawProblem();
    drawRuns();
    drawSearch();
    await Promise.all([drawDetail(mine), drawGrids(mine)]);
    if (mine !== turn) return;
    note.textContent = view.note;
    performance.measure("interaction", { start: began });
    el.dataset.turn = String(turn);
  };
  const add = (run) => {
    if (view.runs.length >= MOST_RUNS) {
      note.textContent = `${MOST_RUNS} runs are shown; remove one first`;
      return false;
    }
    view.runs.push(run);
    return true;
  };
  // What is changed is a run of its own below the one it was changed from; a changed one is changed further in place.
  const change = (index, fields, keepSource = false) => {
    const from = plainOf(index), run = view.runs[index], plain = !run.total && run.changes.length === 0;
    const changed = { ...run, ...fields };
    if (!plain) view.runs[index] = changed;
    else if (add(changed)) index = view.runs.length - 1;
    else return;
    if (!keepSource) view.source = from;
    view.target = index;
    if (view.at) view.at = [index, view.at[1]];
    draw();
  };

  // The run to compare a changed one with, and to patch from: one of its model that has no changes inside.
  const plainOf = (index) => (view.runs[index].changes.length ? Math.max(0, view.runs.findIndex((run) => run.model === view.runs[index].model && !run.changes.length)) : index);

  function drawProblem() {
    const first = view.runs[0] ?? { model: 0, operands: [] };
    const of = view.models[first.model];
    const text = make("input", { type: "text", id: "operands", value: first.operands.map((o) => of.operands[o]).join(of.operator), size: 24, spellcheck: "false", autocomplete: "off" });
    const form = make("form", {}, make("label", { for: "operands" }, "Problem "), text, button("ask", () => {}, "submit"), button("draw one", drawOne));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const symbols = [...text.value].filter((symbol) => symbol !== of.operator && symbol.trim());
      const operands = symbols.map((symbol) => of.operands.indexOf(symbol));
      const wrong = symbols.find((_, i) => operands[i] < 0);
      if (wrong !== undefined) note.textContent = `${wrong} is no operand of ${of.task}; there are ${of.operands.join(" ")}`;
      else pose(of.task, operands);
    });
    const models = make("select", { "aria-label": "model of the new run" }, ...view.models.map((m) => make("option", { value: m.id }, `${m.id}: ${m.slug}`)));
    const more = make("span", { class: "more" }, models, button("add run", () => {
      const chosen = view.models[models.value], like = view.runs.find((run) => view.models[run.model].task === chosen.task);
      if (like) add({ model: chosen.id, operands: like.operands, changes: [] }) && draw();
      else drawn(chosen.id, chosen.k_trained[1] - 1).then((operands) => operands && add({ model: chosen.id, operands, changes: [] }) && draw());
    }));
    form.append(more);
    parts.problem.replaceChildren(form);
  }
  const drawn = async (m, k) => (await answerOf({ ask: "draw", model: m, k, seed: Math.floor(Math.random() * 2 ** 31) }))?.operands;
  async function drawOne() {
    const first = view.runs[0], operands = await drawn(first.model, Math.max(2, first.operands.length));
    if (operands) pose(view.models[first.model].task, operands);
  }
  // A new problem is posed to every model of the task, without changes.
  function pose(task, operands) {
    const kept = [], rest = [];
    for (const run of view.runs) {
      if (view.models[run.model].task !== task) rest.push(run);
      else if (!kept.some((other) => other.model === run.model)) kept.push({ model: run.model, operands, changes: [] });
    }
    view.runs = [...kept, ...rest];
    Object.assign(view, { at: null, from: null, source: 0, target: 0 });
    draw();
  }

  function drawRuns() {
    parts.runs.replaceChildren(...view.runs.map((run, index) => {
      const answer = view.answers[index], of = view.models[run.model];
      const tokens = answer.tokens.map((token, place) => tokenButton(token, place, index));
      const verdict = { right: "right", wrong: `wrong: ${answer.right} is right`, follows: "follows the change", ignores: "ignores the change", other: "neither follows nor ignores", source: `what the source of the patch answers; ${answer.right} is right here` }[answer.outcome];
      const told = ["right", "wrong", "source"].includes(answer.outcome) ? "" : `; a reader of this trace would say ${answer.expected}, the prompt asks for ${answer.right}`;
      const said = make("span", { class: `verdict ${answer.outcome}` }, `${answer.answer ?? "no answer"}: ${verdict}${told}`);
      const python = make("details", {}, make("summary", {}, "Python"), button("copy", (event) => copy(event.target, answer.python)), make("pre", {}, answer.python));
      const changes = run.changes.map((c, i) => make("li", {}, changeWords(c, of), " ", button("undo", () => { view.runs[index] = { ...run, changes: run.changes.filter((_, j) => j !== i) }; draw(); })));
      const undoTotal = run.total ? [make("li", {}, `total ${run.total[0]} written as ${of.states[run.total[1]]} `, button("undo", () => { const { total, ...rest } = run; view.runs[index] = rest; draw(); }))] : [];
      return make("article", { class: "run" },
        make("h2", {}, `Run ${index + 1}: ${of.regime} on ${of.task}`, make("small", {}, ` ${of.slug}, ${answer.split === "train" ? "a problem of the training side" : answer.split === "heldout" ? "a held-out problem" : "a problem of the validation side"} `), view.runs.length > 1 ? button("remove", () => { view.runs.splice(index, 1); view.at = null; draw(); }) : ""),
        make("div", { class: "tokens" }, ...tokens), make("div", {}, said, python),
        make("ul", { class: "changes" }, ...undoTotal, ...changes));
    }));
  }
  function tokenButton(token, place, index) {
    const chosen = view.at && view.at[0] === index && view.at[1] === place;
    const p = token.p === undefined ? 1 : token.p;
    const words = `${token.symbol}: ${roleWords(token)}, ${{ prompt: "in the prompt", given: "given", model: "written by the model" }[token.by]}${token.p === undefined ? "" : `, probability ${token.p.toFixed(3)}`}`;
    const box = make("button", { type: "button", class: `token ${token.by} role-${group(token.role)}`, "aria-pressed": String(!!chosen), title: words, "aria-label": words }, token.symbol);
    const bar = make("i", {});
    bar.style.height = `${Math.round(100 * (token.by === "model" ? p : 0))}%`;
    box.append(bar);
    box.addEventListener("click", () => { view.at = [index, place]; draw(); });
    return box;
  }

  async function drawDetail(mine) {
    if (!view.at) return parts.detail.replaceChildren(make("p", { class: "hint" }, "Choose a symbol to see what the model looks at, what can be read off it there, and to change it."));
    const [index, place] = view.at, run = view.runs[index], answer = view.answers[index], of = view.models[run.model], token = answer.tokens[place];
    const found = await answerOf({ ask: "look", scene: scene(run), position: place });
    if (!found || mine !== turn) return;
    const title = `Run ${index + 1}, position ${place}: ${token.symbol}, ${roleWords(token)}`;
    const guesses = token.likeliest ? make("span", {}, `Likeliest here: ${token.likeliest.map(([s, p]) => `${s} ${p.toFixed(3)}`).join(", ")}`) : "";
    const probes = make("div", { class: "probes" }, make("h3", {}, "Running totals that a probe reads"), make("p", { class: "hint" }, "fitting"));
    const python = make("details", {}, make("summary", {}, "Python"), button("copy", (event) => copy(event.target, found.python)), make("pre", {}, found.python));
    const other = comparedTo(index), edges = make("div", { class: "edges" });
    parts.detail.replaceChildren(make("h2", {}, title), editor(run, index, token, answer, of), make("div", {}, guesses, python),
      make("div", { class: "columns" }, attentionTable(found, answer, index, place), make("div", {}, lensTable(found), directTable(found), edges, probes)));
    // Fitting takes longer than all else: for a place at which the reader stays.
    setTimeout(async () => {
      if (mine === turn && other >= 0) ask({ ask: "edges", shown: shownFields(run), other: shownFields(view.runs[other]), position: place }).then((told) => {
        if (mine === turn) edges.replaceChildren(make("h3", {}, `Edges that tell it from run ${other + 1}`), told.error ? make("p", { class: "hint" }, told.error) : edgeTable(told));
      });
      const read = mine === turn && (await answerOf({ ask: "probes", scene: scene(run), position: place }));
      if (mine === turn) probes.replaceChildren(make("h3", {}, "Running totals that a probe reads"), read ? scroller("probes", probeTable(read, answer)) : make("p", { class: "hint" }, view.note));
    }, PAUSE);
  }
  function editor(run, index, token, answer, of) {
    const states = answer.states[token.step];
    if (token.role === "total" && states) {
      const list = make("select", { id: "state" }, ...states.map((state) => make("option", { value: state }, of.states[state])));
      list.value = String(token.value);
      return make("p", { class: "edit" }, make("label", { for: "state" }, `Write total ${token.step} as `), list, button("and let it go on", () => change(index, { total: [token.step, Number(list.value)] })));
    }
    if (token.role === "operand") {
      const list = make("select", { id: "state" }, ...of.operands.map((symbol, operand) => make("option", { value: operand }, symbol)));
      const which = answer.tokens.slice(0, view.at[1]).filter((other) => other.role === "operand").length;
      list.value = String(run.operands[which]);
      return make("p", { class: "edit" }, make("label", { for: "state" }, "Ask with this operand as "), list, button("in another run", () => {
        const operands = run.operands.with(which, Number(list.value));
        if (add({ ...run, operands })) { view.at = [view.runs.length - 1, view.at[1]]; draw(); }
      }));
    }
    return "";
  }
  function attentionTable(found, answer, index, place) {
    const changes = view.runs[index].changes;
    const to = make("select", { id: "attention-to" }, make("option", { value: 0 }, "each symbol"), make("option", { value: 1 }, "each role"));
    to.value = String(view.byRole);
    to.addEventListener("change", () => { view.byRole = Number(to.value); draw(); });
    const columns = view.byRole
      ? found.by_role.map(({ role, n }) => ({ name: `${role.replaceAll("_", " ") || "no role"} \u00d7${n}`, words: `the ${n} symbols of role ${role.replaceAll("_", " ") || "none"}`, group: group(role) }))
      : answer.tokens.slice(0, place + 1).map((token, i) => ({ name: token.symbol, words: `${token.symbol} (${roleWords(token)})`, group: group(token.role), src: i }));
    const head = make("tr", {}, make("th", { scope: "col" }, "head"), ...columns.map((c) => make("th", { scope: "col", title: c.words, class: `role-${c.group}` }, c.name)));
    const weightsOf = (layer, h) => (view.byRole ? found.by_role.map((row) => row.attention[layer][h]) : found.attention[layer][h]);
    const cells = (name, layer, h, weights) => weights.map((weight, i) => {
      const { src, words } = columns[i], said = `${name} at ${words}: ${weight.toFixed(3)}`;
      if (src === undefined) {
        const shown = make("td", { class: "share", title: said }, weight.toFixed(2));
        shade(shown, weight);
        return shown;
      }
      const cut = `${said}. Cut ${h < 0 ? "this read" : "this edge"}`;
      const cell = make("button", { type: "button", class: "cell", title: cut, "aria-label": cut, tabindex: "-1" });
      shade(cell, weight);
      cell.addEventListener("click", () => change(index, { changes: [...changes, { kind: "edge", layer, head: h, dest: place, src }] }));
      return make("td", {}, cell);
    });
    const heads = found.attention.flatMap((rows, layer) => rows.map((_, h) => [layer, h, weightsOf(layer, h)]));
    const mean = columns.map((_, i) => heads.reduce((sum, [, , weights]) => sum + weights[i], 0) / heads.length);
    const rows = heads.map(([layer, h, weights]) => make("tr", {},
      make("th", { scope: "row" }, button(`L${layer}H${h}`, () => change(index, { changes: [...changes, { kind: "head", layer, head: h }] }), "button", `knock out head ${h} of layer ${layer}`)),
      ...cells(`L${layer}H${h} looks`, layer, h, weights)));
    rows.unshift(make("tr", {}, make("th", { scope: "row" }, "mean"), ...cells("all heads look, on average,", -1, -1, mean)));
    const hint = view.byRole ? "The share of a head's attention that goes to all symbols of a role together; \u00d7, how many there are." : "A head's name knocks it out (zeros); a cell cuts that edge; a cell of the first row, the read by all heads of all layers.";
    return make("div", {}, make("h3", {}, make("label", { for: "attention-to" }, "Attention from here to "), to), make("p", { class: "hint" }, hint), scroller("attention", make("table", { class: "heat" }, make("thead", {}, head), make("tbody", {}, ...rows))));
  }
  // A run to be told apart from: of the same model and without changes inside, the source of patches before others.
  function comparedTo(index) {
    const run = view.runs[index], fits = (other) => other !== index && view.runs[other].model === run.model && !view.runs[other].changes.length;
    if (run.changes.length) return -1;
    return fits(view.source) ? view.source : view.runs.findIndex((_, other) => fits(other));
  }
  function edgeTable(told) {
    return make("div", {}, make("p", { class: "hint" }, `Share of what parts ${told.answer} from ${told.foil} (${told.gap.toFixed(2)} logits) that is lost when one edge alone carries what it does in that run; the largest of ${told.n}. Edges that stand in for one another show little.`),
      table(["edge", "share"], told.edges.map(([name, share]) => [name, share.toFixed(3)])),
      make("details", {}, make("summary", {}, "Python"), button("copy", (event) => copy(event.target, told.python)), make("pre", {}, told.python)));
  }
  function lensTable(found) {
    return make("div", {}, make("h3", {}, "Logit lens"), table(["layer", "likeliest next symbols"], found.lens.map((row, layer) => [`L${layer}`, row.map(([s, p]) => `${s} ${p.toFixed(2)}`).join("  ")])));
  }
  function directTable(found) {
    const most = found.direct.slice(0, 6), rest = found.direct.slice(6).reduce((sum, [, value]) => sum + value, 0);
    return make("div", {}, make("h3", {}, `Written directly for ${found.answer} over ${found.foil}`), make("p", { class: "hint" }, `Logits; together ${found.difference.toFixed(2)}. Without the changes of this run, and no indirect effects.`), table(["component", "logits"], [...most, [`${found.direct.length - most.length} others`, rest]].map(([name, value]) => [name, value.toFixed(2)])));
  }
  function probeTable(read, answer) {
    if (!read.probes.length) return make("p", { class: "hint" }, "every total stands written before this place");
    return make("div", {}, make("p", { class: "hint" }, "Accuracy and selectivity on held-out problems say how far to believe a reading. Beside a reading stand the total that the prompt makes, and the one that the shown trace does. Decodable is not used."),
      table(["site", "total", "reads", "prompt", "trace", "accuracy", "selectivity"], read.probes.map((row) => [row.site, `s_${row.total}`, row.reads, answer.totals[row.total - 1], answer.shown_totals[row.total - 1], row.accuracy.toFixed(2), row.selectivity.toFixed(2)])),
      make("details", {}, make("summary", {}, "Python"), button("copy", (event) => copy(event.target, read.python)), make("pre", {}, read.python)));
  }

  // Tokens are spent when that is asked for: a search takes longer than all else.
  function drawSearch() {
    const chosen = view.search;
    chosen.run = within(chosen.run, view.runs.length);
    const pick = (name, label, options) => {
      const list = make("select", { "aria-label": label, "data-search": name }, ...options.map(([value, words]) => make("option", { value }, words)));
      list.value = String(chosen[name]);
      list.addEventListener("change", () => { chosen[name] = name === "run" ? Number(list.value) : list.value; scorer.disabled = !SCORED.includes(chosen.method); });
      return list;
    };
    const amount = (name, words, limits) => {
      const field = make("input", { type: "number", id: `search-${name}`, value: chosen[name], ...limits });
      field.addEventListener("input", () => { chosen[name] = Number(field.value); });
      return [make("label", { for: `search-${name}` }, words), field];
    };
    const scorer = pick("scorer", "scorer", [["oracle", "by the oracle"], ["likelihood", "by its own likelihood"]]);
    scorer.disabled = !SCORED.includes(chosen.method);
    const form = make("form", {}, pick("run", "run whose problem and model are taken", view.runs.map((_, index) => [index, `run ${index + 1}`])),
      pick("method", "method", METHODS.map((name) => [name, name])), scorer,
      ...amount("budget", "tokens", { min: 1, max: 2000, step: 1 }), ...amount("temperature", "temperature", { min: 0, max: 100, step: "any" }), button("spend", () => {}, "submit"));
    const out = make("div", { class: "found" });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const { run, method, scorer: by, budget, temperature } = chosen, { model: m, operands } = view.runs[run];
      view.note = "";
      const found = await answerOf({ ask: "spend", model: m, operands, method, scorer: by, budget, temperature });
      note.textContent = view.note;
      out.replaceChildren(...(found ? searchParts(found) : [view.note]));
    });
    parts.search.replaceChildren(make("h2", {}, "Spend tokens: sample, vote, search"),
      make("p", { class: "hint" }, "The chosen run's model on its problem, without the changes. The budget is what it may write in all; what was spent is counted, not timed."), form, out);
  }
  function searchParts(found) {
    const { written, read, passes, flops } = found.spent;
    const score = found.score === null ? "" : found.scorer ? `, ${found.scorer} ${found.score.toPrecision(3)}` : `, ${Math.round(100 * found.score)}% of the votes`;
    const rows = found.tree.map((node) => make("tr", { class: node.chosen ? "chosen" : "" },
      make("td", {}, `${"\u00a0".repeat(3 * node.step)}${node.right ? "\u2713" : "\u2717"} ${node.text || "prompt"}`),
      make("td", {}, node.right ? "right" : "wrong"), make("td", {}, node.score === null ? "" : node.score.toPrecision(3)), make("td", {}, String(node.visits)), make("td", {}, node.chosen ? "\u2190 answer" : "")));
    return [make("div", {}, make("span", { class: `verdict ${found.correct ? "right" : "wrong"}` }, `${found.text}: ${found.correct ? "right" : `wrong, ${found.right} is right`}`),
      make("details", {}, make("summary", {}, "Python"), button("copy", (event) => copy(event.target, found.python)), make("pre", {}, found.python))),
      make("p", {}, `${found.drawn ? `One of ${found.drawn} complete responses${score}` : "No response came to an end"}. Spent: ${written} tokens written, ${read} read, ${passes} passes one after another${flops === null ? "" : `, ${flops.toPrecision(3)} operations`}.`),
      found.votes.length ? table(["answer", "votes", ""], found.votes.map(([state, n]) => [state, n, state === found.right ? "\u2713 right" : "\u2717 wrong"])) : "",
      rows.length ? scroller("search tree", make("table", { class: "tree" }, make("thead", {}, make("tr", {}, ...["step", "so far", "score", "visits", "way to the answer"].map((name) => make("th", { scope: "col" }, name)))), make("tbody", {}, ...rows))) : ""];
  }

  async function drawGrids(mine) {
    const choices = (chosen, label, act) => {
      const list = make("select", { "aria-label": label }, ...view.runs.map((_, index) => make("option", { value: index }, `run ${index + 1}`)));
      list.value = String(chosen);
      list.addEventListener("change", () => { act(Number(list.value)); draw(); });
      return list;
    };
    const sites = make("select", { "aria-label": "site" }, ...SITES.map((site, index) => make("option", { value: index }, site)));
    sites.value = String(view.site);
    sites.addEventListener("change", () => { view.site = Number(sites.value); save(); });
    const [from, to] = await Promise.all([view.source, view.target].map((index) => answerOf({ ask: "grid", ...scene(view.runs[index]) })));
    if (!from || !to || mine !== turn) return;
    parts.grids.replaceChildren(make("h2", {}, "Patch: write what one run holds into another"),
      make("p", { class: "hint" }, "Choose a cell of the source, then one of the target (or drag it there). Cells show the logit lens, the likeliest next symbol if the model ended there; their shade, how far the target's changes moved the residual stream. Nothing above or to the left of a patch moves."),
      make("p", {}, "Source ", choices(view.source, "source run", (index) => { view.source = index; view.from = null; }), " target ", choices(view.target, "target run", (index) => { view.target = index; }), " activation ", sites),
      gridTable(from, view.source, true), gridTable(to, view.target, false));
  }
  function gridTable(grid, index, isSource) {
    const answer = view.answers[index], name = isSource ? "Source" : "Target";
    const head = make("tr", {}, make("td", {}), ...answer.tokens.map((token, i) => make("th", { title: `${i}: ${roleWords(token)}` }, token.symbol)));
    const cellOf = (symbol, layer, place) => {
      const token = answer.tokens[place], p = grid.p[layer][place], moved = grid.moved[layer][place];
      const words = `${name} L${layer}, position ${place} (${token.symbol}, ${roleWords(token)}): ${symbol} ${p.toFixed(2)}, moved by ${moved.toFixed(3)}`;
      const chosen = isSource && view.from && view.from[0] === layer && view.from[1] === place;
      const cell = make("button", { type: "button", class: p > 0.5 ? "cell lens sure" : "cell lens", title: words, "aria-label": words, "aria-pressed": String(!!chosen), tabindex: "-1", draggable: String(isSource) }, symbol);
      shade(cell, moved);
      if (isSource) {
        cell.addEventListener("click", () => { view.from = [layer, place]; draw(); });
        cell.addEventListener("dragstart", () => { view.from = [layer, place]; });
      } else {
        cell.addEventListener("click", () => patchTo(layer, place));
        cell.addEventListener("dragover", (event) => event.preventDefault());
        cell.addEventListener("drop", (event) => { event.preventDefault(); patchTo(layer, place); });
      }
      return make("td", {}, cell);
    };
    const rows = grid.symbol.map((symbols, layer) => make("tr", {}, make("th", {}, `L${layer}`), ...symbols.map((symbol, place) => cellOf(symbol, layer, place))));
    return make("div", {}, make("h3", {}, `${name}: run ${index + 1}`), scroller(`${name} grid`, make("table", { class: "heat", "data-grid": isSource ? "source" : "target" }, make("thead", {}, head), make("tbody", {}, ...rows))));
  }
  function patchTo(layer, place) {
    if (!view.from) return void (note.textContent = "choose a cell of the source first");
    const source = view.runs[view.source], target = view.runs[view.target];
    if (source.model !== target.model) return void (note.textContent = "what another model holds means nothing in this one: choose two runs of one model");
    if (source.changes.length) return void (note.textContent = "a source has no changes inside the model; choose another run");
    const { changes, ...shown } = source;
    change(view.target, { changes: [...target.changes, { kind: "patch", site: SITES[view.site], layer, head: -1, dest: place, src: view.from[1], source: shown }] }, true);
  }

  // A problem that all models of the first one's task are asked.
  async function begin(said) {
    const first = view.models[0], operands = (await drawn(0, Math.min(4, first.k[1]))) ?? first.operands.slice(0, 2).map((_, i) => i);
    view.runs = view.models.filter((m) => m.task === first.task).map((m) => ({ model: m.id, operands, changes: [] }));
    Object.assign(view, { at: null, from: null, source: 0, target: 0 });
    draw(said);
  }
  ask({ ask: "about" }).then((about) => {
    if (about.error) return void (note.textContent = about.error);
    view.models = about.models;
    if (restore(model.get("state"))) draw();
    else begin();
  });
}

const within = (index, n) => Math.max(0, Math.min(index, n - 1));
const group = (role) =>
  role === "" ? "none" : role === "operand" || role === "step_operand" ? "operand" : role === "total" || role === "previous_total" ? "total" : role === "answer" ? "answer" : "sign";
const roleWords = (token) => (token.role ? token.role.replaceAll("_", " ") + (token.step < 0 ? "" : ` ${token.step}`) : "no part of a well-formed response");

function changeWords(change) {
  if (change.kind === "head") return `head L${change.layer}H${change.head} knocked out`;
  if (change.kind === "edge") return `${change.head < 0 ? "no head looks" : `L${change.layer}H${change.head} does not look`} from position ${change.dest} to ${change.src}`;
  return `${change.site} of layer ${change.layer} at position ${change.dest}: from position ${change.src} of ${change.source.operands.join(" ")}${change.source.total ? ` with total ${change.source.total[0]} changed` : ""}`;
}

function asker(model) {
  const waiting = new Map(), known = new Map();
  let next = 0;
  model.on("msg:custom", ({ id, answer }) => {
    waiting.get(id)?.(answer);
    waiting.delete(id);
  });
  return (request) => {
    const key = request.ask === "draw" ? null : JSON.stringify(request);
    if (key && known.has(key)) return known.get(key);
    const answer = new Promise((resolve) => {
      waiting.set(++next, resolve);
      model.send({ id: next, request });
    });
    if (key) {
      known.set(key, answer);
      if (known.size > 200) known.delete(known.keys().next().value);
      answer.then((found) => found.error && known.delete(key));
    }
    return answer;
  };
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== ""));
  return element;
}
function button(words, act, type = "button", label = "") {
  const element = make("button", { type, ...(label ? { "aria-label": label, title: label } : {}) }, words);
  element.addEventListener("click", act);
  return element;
}
// What scrolls sideways can be reached and moved by the keyboard.
const scroller = (label, content) => make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, content);
const table = (names, rows) => make("table", {}, make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)))), make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, String(cell)))))));
const shade = (cell, share) => cell.style.setProperty("--share", `${Math.round(100 * Math.max(0, Math.min(1, share)))}%`);
function copy(element, text) {
  navigator.clipboard?.writeText(text).then(() => { element.textContent = "copied"; }, () => { element.textContent = "select and copy below"; });
}
