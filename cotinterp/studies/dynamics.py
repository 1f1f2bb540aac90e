"""What forms first: measures of behavior and of mechanism, drawn over the updates of one training.

Each measure is 0 or chance before training and high in a model that reads what it wrote, so that they can be set on one
axis. Three of them come apart by moving attention patterns between the weights of an update and the final ones of the
same run: a pattern says where to look and nothing in which directions things lie, so it can be lent to other weights of
one architecture, where activations could not.

- `step_table`: the weights of the update with the patterns of the final ones, in all heads. What is read is what the
  trained model would read; whether the right total follows is up to values, MLPs and the unembedding: the table.
- `routing`: the final weights with the patterns of the update. The table is there; whether it is asked the right thing
  is up to queries and keys, and to whatever they read.
- `next_total`: the weights of the update alone, with the true trace in front of them. At the last update all three are
  one number.

Order parameters over training are those of Forner et al. 2026 (arXiv 2606.18164, of whose one-block tracker the order
is: MLP, attention, accuracy). That one measure rises before another does not show that it was needed for it. Answers of
free writing need every step right, one after the other, and are therefore halfway up later than a single step is
(`next_total`), whatever forms last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from cotinterp.behavior.accuracy import Output, accuracy_by_k
from cotinterp.behavior.edit_kinds import NONE, SUBSTITUTE, SubstituteTotal
from cotinterp.behavior.edits import Outcome, trace_edits
from cotinterp.figures.dynamics import dynamics_figure
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.read_scores import iteration_scores
from cotinterp.mechanism.heads.reads import PREVIOUS_TOTAL_READ
from cotinterp.mechanism.interventions import Edit, run_with
from cotinterp.mechanism.metrics import accuracy
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.probing.controls import FOLDS, Controls
from cotinterp.mechanism.probing.fit import MIN_TEST, MIN_TRAIN
from cotinterp.mechanism.probing.solver import FitOptions
from cotinterp.mechanism.probing.totals import probe_totals
from cotinterp.mechanism.sites import Site, head_sites, residual_sites
from cotinterp.results import Result, bootstrap, wilson, with_labels
from cotinterp.studies.protocol import before_total, head_pairs
from cotinterp.studies.subject import FULL, Effort, Subject
from cotinterp.training.checkpoints import Run, kept_snapshots, load_run
from cotinterp.transcripts.parsing import parse_response
from cotinterp.transcripts.problems import Problem, sample_problems
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role

PRIMARY: Mapping[str, str] = {
    "accuracy": "heldout",
    "trace_right": "heldout",
    "follows": "edited",
    "next_total": "own",
    "step_table": "final patterns",
    "routing": "own patterns",
    "attention": "reader",
    "read_effect": "all heads",
    "selectivity": "last layer",
}
"""Every measure, with the condition of it whose curve is drawn and whose event is looked for."""

LEAST_K = 3
"""Fewest operands with a written total before the last."""

Measured = dict[tuple[str, str], Float[np.ndarray, " examples"]]
"""Values by measure and condition, example by example."""


@dataclass(frozen=True, eq=False)
class Dynamics(Result):
    """Measures of one run over its updates, example by example (`training_dynamics`).

    Attributes:
        k: Operands of the problems.
        reader: The head that carries most of the written total in the end, as `L1H0`; empty where none is written.
        values: By update, measure and condition.
    """

    k: int
    reader: str
    values: Mapping[tuple[int, str, str], Float[np.ndarray, " examples"]]
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """tables/dynamics.csv: one row for each update, measure and condition, means over n examples.

        Columns: task, regime, run_seed, update, measure, condition, reader, k, n, value, ci_low, ci_high. The interval
        is over problems (Wilson's for what is 0 or 1, else a bootstrap), of this one run. Measures, all at k operands:

        - `accuracy`: right answers of free writing, `heldout` and `train`.
        - `trace_right`: share of a problem's steps that are written as they should be, in free writing, held out.
        - `follows`: share of the edits of a problem's totals after which the answer is that of the edited trace
          (`edited`; `edited step j` by step); `true`: of the true trace given as far, the right answer. Chance is one
          over the number of states once answers are written at all.
        - `next_total`, `step_table`, `routing`: the last total put first, see this module.
        - `attention`: to the total before, where the last one is predicted, above even attention as a share of what is
          left (`ReadScores.above_chance`): of the `reader`, and of the `best` head of that update, which is chosen on
          the same problems and therefore never below.
        - `read_effect`: z of heads at that place becomes that of the run in which the total before is another. Value:
          half the fall of P(answer) - P(foil), so 1 turns a sure answer into a sure foil (activation patching,
          noising). In probability, since before anything is learned there is no logit gap to be a share of. `all heads`
          of all layers together, and the `reader` alone, which is little where several share the read.
        - `selectivity`: a linear probe for the last total where it is predicted, in what leaves the last layer, right
          minus right of a probe for random labels, on inputs that were not fitted (`probe_totals`, inputs left out);
          `layer 1` and so on for what enters that layer. Its row at update 0 is the untrained control. No rows where
          too few problems of this length are held out for a probe.
        """
        rows = []
        for (update, measure, condition), values in self.values.items():
            low, high = _interval(values)
            rows.append((update, measure, condition, self.reader, self.k, len(values), values.mean(), low, high))
        columns = ["update", "measure", "condition", "reader", "k", "n", "value", "ci_low", "ci_high"]
        return with_labels(pd.DataFrame(rows, columns=columns), self.labels)

    def figure(self) -> go.Figure:
        """Each measure by update, on a logarithmic axis."""
        table = self.frame()
        shown = table[table["condition"] == table["measure"].map(PRIMARY)]
        return dynamics_figure(shown)


def training_dynamics(
    run: Run, effort: Effort = FULL, *, updates: Sequence[int] | None = None, inside: bool = True
) -> Dynamics:
    """The measures of `Dynamics` at each kept snapshot of a finished run, and at its end.

    Args:
        effort: How much each measurement is given; problems are the same at every update.
        updates: Those of the kept ones to measure; all by default. The end is always measured.
        inside: Measure the mechanism too; else what the model writes alone, which takes a fifth of the time.

    Raises:
        ValueError: The run kept no snapshots before its end, or looks ahead; problems have fewer than three operands
            where a total is to stand before the last.
        FileNotFoundError: Some of `updates` was not kept; those that were are named.
        NoPairsError: No written total of the task can be exchanged.
    """
    kept = tuple(kept_snapshots(run.directory) if updates is None else updates)
    if not kept:
        raise ValueError(
            f"{run.directory} kept no weights on its way: train it with snapshots, as in RunSpec(..., "
            "snapshots=log_spaced(steps, 20))"
        )
    device = str(next(run.model.parameters()).device)
    models = {step: load_run(run.directory, step=step, task=run.task, device=device).model for step in kept}
    models |= {int(run.metadata["step"]): run.model}
    return dynamics_of(Subject.of_run(run), models, effort, inside=inside)


def dynamics_of(
    subject: Subject, models: Mapping[int, HookedModel], effort: Effort = FULL, *, inside: bool = True
) -> Dynamics:
    """The same of models of one architecture by update, of which the last one is that of `subject`."""
    subject.require_causal()
    k = subject.length(effort)
    measured: dict[int, Measured] = {update: _behavior(_at(subject, models[update]), effort, k) for update in models}
    reader = ""
    if inside and _has_reads(subject):
        contrast = Contrast.from_pairs(head_pairs(subject, effort.paired, k=k)).until_readout(subject.model)
        head = _carrier(subject.model, contrast)
        reader = f"L{head.layer}H{head.head}"
        final = activations(subject.model, contrast.clean, residual_sites(subject.model, "pattern"))
        for update, model in models.items():
            measured[update] |= _reads(model, contrast, head) | _exchanged(model, subject.model, contrast, final)
    for update, model in models.items() if inside else ():
        measured[update] |= _selectivity(_at(subject, model), effort, k)
    values = {(update, *key): found for update in sorted(models) for key, found in measured[update].items()}
    return Dynamics(k, reader, values, subject.labels)


def _at(subject: Subject, model: HookedModel) -> Subject:
    return replace(subject, model=model)


def _has_reads(subject: Subject) -> bool:
    """Whether a total is written before the last one. ValueError where it should be and problems are too short."""
    if not subject.writes_totals or not subject.task.in_order:
        return False
    if subject.k_asked[1] < LEAST_K:
        raise ValueError(f"problems of {subject.k_asked[1]} operands have no total before the last: take {LEAST_K}")
    return True


def _behavior(subject: Subject, effort: Effort, k: int) -> Measured:
    """What is written freely, and what becomes of edits."""
    asked = {"heldout": subject.heldout(effort.evaluated, k=k), "train": subject.trained(effort.evaluated, k=k)}
    problems = {side: some for side, some in asked.items() if some}
    result = accuracy_by_k(subject.writer, subject.task, subject.regime, problems)
    found: Measured = {
        ("accuracy", side): np.array([float(one.correct) for one in result.of_split(side)]) for side in problems
    }
    if not subject.writes_totals:
        return found
    heldout = result.of_split("heldout")
    found["trace_right", "heldout"] = np.array([_steps_right(subject, one) for one in heldout])
    edited = trace_edits(
        subject.writer,
        subject.task,
        subject.regime,
        problems["heldout"][: effort.edited],
        edits=(SubstituteTotal(effort.edits_per_step),),
        rng=np.random.default_rng(0),
    ).examples()
    edited["right"] = (edited["outcome"] == Outcome.FOLLOWS.value).astype(float)
    for kind, name in ((SUBSTITUTE, "edited"), (NONE, "true")):
        rows = edited[edited["edit"] == kind]
        found["follows", name] = rows.groupby("problem")["right"].mean().to_numpy()
        if kind == SUBSTITUTE:
            for step, some in rows.groupby("step"):
                found["follows", f"{name} step {step}"] = some.groupby("problem")["right"].mean().to_numpy()
    return found


def _steps_right(subject: Subject, output: Output) -> float:
    """Share of the steps of one problem that stand in their place, symbol for symbol."""
    regime, task = get_regime(subject.regime), subject.task
    expected = render(task, output.problem, regime).response
    wanted, written = (
        [step.text for step in parse_response(task, text, separator=regime.separator).steps]
        for text in (expected, output.text)
    )
    return sum(one == other for one, other in zip(wanted, written, strict=False)) / len(wanted)


def _predicted(model: HookedModel, contrast: Contrast, edits: Sequence[Edit] = ()) -> Float[Tensor, "batch d_vocab"]:
    logits = run_with(model, contrast.clean, edits)
    return logits[torch.arange(len(logits), device=logits.device), contrast.at]


def _margin(logits: Float[Tensor, "batch d_vocab"], contrast: Contrast) -> Float[np.ndarray, " batch"]:
    """P(answer) - P(foil)."""
    p, rows = logits.double().softmax(-1), torch.arange(len(logits), device=logits.device)
    found: np.ndarray = (p[rows, contrast.answer] - p[rows, contrast.foil]).cpu().numpy()
    return found


def _without(
    model: HookedModel, contrast: Contrast, together: Sequence[Sequence[Site]]
) -> list[Float[np.ndarray, " batch"]]:
    """For each group of sites, half the fall of the margin when what they hold at the readout is another."""
    sites = list(dict.fromkeys(site for group in together for site in group))
    states = activations(model, contrast.corrupted, sites, positions=contrast.at)
    edits = {site: Edit(site, states[site], contrast.at, expect_change=False) for site in sites}
    clean = _margin(_predicted(model, contrast), contrast)
    return [
        (clean - _margin(_predicted(model, contrast, [edits[site] for site in group]), contrast)) / 2
        for group in together
    ]


def _carrier(model: HookedModel, contrast: Contrast) -> Site:
    """The head whose exchange moves the output furthest."""
    sites = head_sites(model)
    effects = [values.mean() for values in _without(model, contrast, [[site] for site in sites])]
    return sites[int(np.argmax(effects))]


def _reads(model: HookedModel, contrast: Contrast, reader: Site) -> Measured:
    """Where heads look when the last total is predicted, and what the reader carries."""
    scores = iteration_scores(model, contrast, [PREVIOUS_TOTAL_READ])
    paid = scores.each_above_chance(PREVIOUS_TOTAL_READ.name, str(Role.TOTAL)).double().numpy()
    best = np.unravel_index(int(paid.mean(-1).argmax()), paid.shape[:2])
    every, own = _without(model, contrast, [head_sites(model), [reader]])
    return {
        ("attention", "reader"): paid[reader.layer, reader.head],
        ("attention", "best"): paid[best],
        ("read_effect", "all heads"): every,
        ("read_effect", "reader"): own,
    }


def _exchanged(model: HookedModel, final: HookedModel, contrast: Contrast, patterns: Mapping[Site, Tensor]) -> Measured:
    """The last total put first: by the model, with the final patterns, and by the final weights with its patterns."""
    own = activations(model, contrast.clean, list(patterns))

    def right(weights: HookedModel, lent: Mapping[Site, Tensor]) -> Float[np.ndarray, " batch"]:
        edits = [Edit(site, pattern, expect_change=False) for site, pattern in lent.items()]
        logits = run_with(weights, contrast.clean, edits)
        found: np.ndarray = accuracy(logits, contrast.at, contrast.answer).double().cpu().numpy()
        return found

    return {
        ("next_total", "own"): right(model, {}),
        ("step_table", "final patterns"): right(model, patterns),
        ("routing", "own patterns"): right(final, own),
    }


def _selectivity(subject: Subject, effort: Effort, k: int) -> Measured:
    """A probe of the last total where it is predicted, net of the control; nothing where too few problems are there."""
    train, test = _probed(subject, effort, k)
    if len(train) < MIN_TRAIN * FOLDS or len(test) < MIN_TEST * FOLDS:
        return {}
    fitted, tested = subject.batch(train), subject.batch(test)
    place = next(iter(before_total(fitted.transcripts[0], k - 1).values()), (Role.PROMPT_END, -1))
    last = Site("resid_post", int(subject.model.cfg.n_layers) - 1)
    sites = {**{f"layer {site.layer}": site for site in residual_sites(subject.model)[1:]}, "last layer": last}
    result = probe_totals(
        subject.model,
        fitted,
        test=tested,
        sites=list(sites.values()),
        places=[place],
        targets=[k - 1],
        left_out="inputs",
        controls=Controls(n_shuffles=0),
        fit=FitOptions(max_bytes=effort.max_bytes),
    )
    cells = {cell.at.label: cell for cell in result.cells}
    gained = {name: cells[site.label] for name, site in sites.items()}
    return {("selectivity", name): cell.correct - cell.control_correct for name, cell in gained.items()}


def _probed(subject: Subject, effort: Effort, k: int) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    n_test = effort.probed // 4
    train = sample_problems(subject.task, k, effort.probed - n_test, split="train", rng=np.random.default_rng(0))
    return train, subject.heldout(n_test, k=k)


def _interval(values: Float[np.ndarray, " examples"]) -> tuple[float, float]:
    if np.isin(values, (0, 1)).all():
        return wilson(int(values.sum()), len(values))
    return bootstrap(values)
