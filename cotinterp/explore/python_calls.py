"""What the explorer shows, as the Python that gives the same numbers: text to be copied.

`setup` is what `setup_of` gives.
"""

from collections.abc import Sequence

from cotinterp.explore.requests import Change, Spending
from cotinterp.training.checkpoints import Run
from cotinterp.training.spec_file import find_run


def setup_of(run: Run | None) -> str:
    """The lines that define `model`, `task`, `regime` and `vocabulary`: of a trained run, or of a `subject` at hand."""
    if run is None:
        names, first = ("model", "task", "regime", "vocabulary"), "# `subject`: the one that the explorer was given\n"
        found = ", ".join(f"subject.{name}" for name in names)
    else:
        first, found = f"run = load_run({_reference(run)!r})\n", "run.model, run.task, run.spec.regime, run.vocabulary"
    return f"{first}model, task, regime, vocabulary = {found}\n"


def run_call(setup: str, text: str, edits: Sequence[str], given: int) -> str:
    """Probabilities of every next symbol of `text`, of which the model was given so many symbols, under `edits`."""
    return _setting(setup, text, edits, f"  # of which the model was given {text[:given]!r}") + (
        "p = run_with(model, tokens(text), edits)[0].softmax(-1)\n"
        "for before, symbol in enumerate(text[1:]):\n"
        "    print(text[: before + 1], symbol, float(p[before, vocabulary.token(symbol)]))\n"
    )


def look_call(
    setup: str, text: str, edits: Sequence[str], position: int, tokens: tuple[int, int], n_layers: int
) -> str:
    """Attention from `position`, the logit lens there, and what is written directly for the first of two tokens."""
    return (
        "from cotinterp import Contrast, logit_attribution\n"
        "from cotinterp.mechanism.interventions import Edit, watch\n"
        + _setting(setup, text, edits)
        + (
            f"layers, at, seen = range({n_layers}), {position}, {{}}\n"
            'sites = [Site(kind, layer) for kind in ("pattern", "resid_post") for layer in layers]\n'
            "run_with(model, tokens(text), [*edits, *(watch(site, seen) for site in sites)])\n"
            "for layer in layers:\n"
            '    print("attention", layer, seen[Site("pattern", layer)][0, :, at, : at + 1])\n'
            'last = Site("resid_post", layers[-1])\n'
            "for layer in layers:\n"
            '    lens = Edit(last, seen[Site("resid_post", layer)], expect_change=False)\n'
            "    p = run_with(model, tokens(text), [lens])[0, at].softmax(-1)\n"
            '    print("lens", layer, vocabulary.symbols[int(p.argmax())], float(p.max()))\n'
            f"answer, foil = torch.tensor([{tokens[0]}]), torch.tensor([{tokens[1]}])\n"
            "contrast = Contrast.by_position(tokens(text), tokens(text), torch.tensor([at]), answer, foil)\n"
            "for name, logits in logit_attribution(model, contrast).top(6):\n"
            '    print("direct", name, logits)\n'
        )
    )


def edges_call(setup: str, texts: Sequence[str], position: int, tokens: tuple[int, int], most: int) -> str:
    """Effects of the largest edges, for the pair of two texts."""
    return (
        "import torch\n"
        "from cotinterp import Contrast, load_run\n"
        "from cotinterp.mechanism.circuits import edge_scores\n\n"
        f"{setup}"
        f"clean, corrupted = (torch.tensor([vocabulary.encode(text)]) for text in {tuple(texts)!r})\n"
        f"at, answer, foil = torch.tensor([{position}]), torch.tensor([{tokens[0]}]), torch.tensor([{tokens[1]}])\n"
        "scores = edge_scores(model, Contrast.by_position(clean, corrupted, at, answer, foil))\n"
        f"for edge in scores.ordered()[:{most}]:\n"
        "    print(edge, scores.of(edge))\n"
    )


def _setting(setup: str, text: str, edits: Sequence[str], note: str = "") -> str:
    """What `setup` defines, the text and the edits, in the names `text`, `tokens` and `edits`."""
    listed = "".join(f"    {edit},\n" for edit in edits)
    return (
        "import torch\n"
        "from cotinterp import Site, activations, load_run, run_with\n"
        "from cotinterp.mechanism.interventions import ablate_zero, knock_out_pairs, patch\n\n"
        f"{setup}"
        f"text = {text!r}{note}\n\n\n"
        "def tokens(text):\n"
        "    return torch.tensor([vocabulary.encode(text)])\n\n\n"
        "def edge(dest, src):\n"
        "    mask = torch.zeros(1, len(text), len(text), dtype=torch.bool)\n"
        "    mask[:, dest, src] = True\n"
        "    return mask\n\n\n"
        "def held(site, text, src):\n"
        "    return activations(model, tokens(text), [site], positions=torch.tensor([src]))[site]\n\n\n"
        f"edits = [{chr(10) if listed else ''}{listed}]\n"
    )


def calls_of(changes: Sequence[Change], texts: Sequence[str], n_layers: int) -> list[str]:
    """Each change as an expression that makes its edit; `texts` are those of the runs that patches come from."""
    return [call for change, text in zip(changes, texts, strict=True) for call in _edits(change, text, n_layers)]


def _edits(change: Change, text: str, n_layers: int) -> list[str]:
    if change.kind == "head":
        return [f'ablate_zero(Site("z", {change.layer}, {change.head}))']
    if change.kind == "edge":
        layers = range(n_layers) if change.layer < 0 else [change.layer]
        head = "" if change.head < 0 else f", {change.head}"
        dest = "slice(None)" if change.dest < 0 else str(change.dest)
        return [
            f'knock_out_pairs(Site("pattern", {layer}{head}), edge({dest}, {change.src}), expect_change=False)'
            for layer in layers
        ]
    site = f'Site("{change.site}", {change.layer}{"" if change.head < 0 else f", {change.head}"})'
    return [f"patch({site}, held({site}, {text!r}, {change.src}), torch.tensor([{change.dest}]))"]


def probe_call(setup: str, k: int, role: str, step: int, n: tuple[int, int]) -> str:
    """The probes of one place, and how good they are."""
    return (
        "import numpy as np\n"
        "from cotinterp import collate, load_run, probe_totals, render, sample_problems\n"
        "from cotinterp.mechanism.probing.controls import Controls\n\n"
        f"{setup}\n\n"
        "def batch(side, n):\n"
        f"    problems = sample_problems(task, {k}, n, split=side, rng=np.random.default_rng(0))\n"
        "    return collate([render(task, problem, regime) for problem in problems], vocabulary)\n\n\n"
        f'fitted, test = batch("train", {n[0]}), batch("heldout", {n[1]})\n'
        f'place, controls = ("{role}", {step}), Controls(n_shuffles=0)\n'
        "found = probe_totals(model, fitted, test=test, places=[place], controls=controls)\n"
        'print(found.frame()[["site", "target", "accuracy", "selectivity"]].to_string())\n'
    )


def spend_call(setup: str, asked: Spending) -> str:
    """What a method of search answers, and what it spent."""
    return (
        "import numpy as np\n"
        "from cotinterp import collate, load_run, render\n"
        "from cotinterp.behavior.search.methods import METHODS\n"
        "from cotinterp.behavior.search.scoring import SCORERS\n"
        "from cotinterp.behavior.search.writer import Search\n"
        "from cotinterp.transcripts.problems import solve\n\n"
        f"{setup}"
        f"(problem,) = solve(task, np.array([{list(asked.operands)}]))\n"
        "batch = collate([render(task, problem, regime)], vocabulary)\n"
        f'method, scorer = METHODS["{asked.method}"], SCORERS["{asked.scorer}"]\n'
        f"search = Search(temperature={asked.temperature}, trees=True)\n"
        "rng = np.random.default_rng(0)\n"
        f"found = method(model, task, batch, scorer, {asked.budget}, rng=rng, search=search)\n"
        "print(found.examples().to_string())\n"
        + ("print(found.tree().frame().to_string())\n" if asked.method in ("beam", "mcts") else "")
    )


def _reference(run: Run) -> str:
    """What `load_run` finds this run by: its slug where that is enough, else its directory."""
    try:
        found = find_run(run.spec.slug).resolve() == run.directory.resolve()
    except (FileNotFoundError, ValueError):
        found = False
    return run.spec.slug if found else str(run.directory)
