"""How much does an answer hang on one written step? On-policy, by edits, and as a mediator of the problem.

A model writes its trace; every step of it is asked about. **Importance** is how much less probable the model's own
answer becomes when something about the step is otherwise, P(answer | as it was) - P(answer | otherwise): 1 where the
answer always goes with the step, 0 where it never does, below 0 where the answer gains. The measures:

- `resampled`: the model is let write from before the step on, and the draws in which it says another total are kept
  (counterfactual importance; Bogdan et al. 2025, arXiv 2506.19143). On-policy: the other step is one that the model
  itself would say. A model that is sure says the same step again and again; where fewer than `least` draws differ there
  is no number, and the problem is counted as refused. A temperature makes it say others, which are then less its own.
- `edited`: the step's total is replaced by a valid wrong one of the same length, as `edits` does (off-policy).
- `control`: as many symbols are replaced, in the same way, in the total of an earlier step, and everything from there
  to the end of this step is as it was. A model that goes by the last total alone has 0 there; step 1 has none.
- `indirect`, `direct`, `total`: the step as a mediator of the problem in the answer (arXiv 2602.03994). The operand
  that the step takes up is another one in the prompt. `total`: in everything that follows, the step too. `indirect`:
  the prompt stays and the step is the one that the model writes under the other prompt (natural indirect effect).
  `direct`: the prompt changes and the step stays (natural direct effect). A reader has 1, 0, 1, a recomputer 0, 1, 1.
  They need not add up: the rest is interaction.

Edited and mediated texts contradict themselves or their prompt, as no training text does: the effects say what the
answer depends on under such a text. `kl`, in nats, is how far the answers after differing steps are from those after
the step itself, all answers counted with half a count more. It is estimated from few draws and finite where the two
have no answer in common; `kl_by_chance` is the same after dealing all of the answers out anew.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch

from cotinterp.behavior.accuracy import labels_of
from cotinterp.behavior.answer_given_trace import OPEN, Opening
from cotinterp.figures.edits import step_importance_figure
from cotinterp.models.decoding import (
    LanguageModel,
    Prefixes,
    require_vocabulary,
    text_of,
    verified,
    verified_greedy,
    writing_limit,
)
from cotinterp.models.sampling import continuation_log_prob, sample_around_greedy, sample_continuations
from cotinterp.results.intervals import bootstrap
from cotinterp.results.result import Result, with_labels
from cotinterp.tasks.task import Task, whole_number
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.pairs import other_operands
from cotinterp.transcripts.parsing import final_answer, parse_step
from cotinterp.transcripts.problems import Problem, informative_totals, require_solved
from cotinterp.transcripts.regimes import Regime, require_totals
from cotinterp.transcripts.render import longest_transcript, render
from cotinterp.transcripts.vocabulary import Vocabulary

Measure = Literal["resampled", "edited", "control", "indirect", "direct", "total"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
STEP_ENDS = (";", "}", "#")
_STEP = re.compile(r"[^;}]*[;}]")
RELABELINGS = 20


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How steps are drawn, and what follows them.

    Attributes:
        draws: Steps drawn at each place.
        temperature: Of the steps that are drawn: what logits are divided by. At 1 they are the model's own.
        least: Draws that must say another total for a number.
        rest: Temperature of what follows a step, whether drawn, edited or kept; 0 takes the likeliest symbols.
        continuations: Continuations of a text that is given, where `rest` is above 0.
        batch_size: Most sequences in one pass.

    Raises:
        ValueError: Counts below 1, a temperature that is not above 0, a negative `rest`.
    """

    draws: int = 32
    temperature: float = 1.0
    least: int = 3
    rest: float = 0.0
    continuations: int = 8
    batch_size: int = 256

    def __post_init__(self) -> None:
        for name in ("draws", "least", "continuations", "batch_size"):
            whole_number(getattr(self, name), name, "a number of texts", least=1)
        if not 0 < self.temperature < float("inf") or not 0 <= self.rest < float("inf"):
            raise ValueError(
                f"temperature={self.temperature} must be above 0, or every draw is the same step, and rest={self.rest} "
                "not negative"
            )


@dataclass(frozen=True)
class StepEffects:
    """What one step of one problem's trace is to the answer.

    Attributes:
        text: The step as the model wrote it.
        log_prob: Natural log of the model's own probability of it, given what stands before it.
        differing: The other steps that were drawn, each as often as it was.
        unformed: Draws that are no step at all.
        effects: Importance by measure; NaN where there is none.
        kl, kl_by_chance: Of `resampled`, in nats; NaN with it.
    """

    problem: Problem
    step: int
    text: str
    log_prob: float
    n_draws: int
    differing: tuple[str, ...]
    unformed: int
    effects: Mapping[Measure, float]
    kl: float = float("nan")
    kl_by_chance: float = float("nan")


@dataclass(frozen=True)
class StepImportance(Result):
    """Importances of every step of every problem; intervals redraw problems. It describes one trained model.

    `wrong`: problems that are left out because the model's own response is not the right one.
    """

    steps: tuple[StepEffects, ...]
    wrong: int
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """One row for each number of operands, step and measure: mean importance with its bootstrap interval.

        `n` problems have a number and `refused` have none: too few draws differ, or there is nothing to change.
        `differing` is the mean share of draws that say another total, `p_step` the mean probability of the own step.
        """
        examples = self.examples()
        rows = []
        for (k, step), group in examples.groupby(["k", "step"]):
            for measure in MEASURES:
                values = group[measure].to_numpy(dtype=float)
                known = values[np.isfinite(values)]
                low, high = bootstrap(known)
                drawn = measure == "resampled"
                rows.append(
                    {
                        "k": k,
                        "step": step,
                        "measure": measure,
                        "importance": known.mean() if len(known) else np.nan,
                        "ci_low": low,
                        "ci_high": high,
                        "n": len(known),
                        "refused": len(values) - len(known),
                        "differing": (group["n_differing"] / group["n_draws"]).mean() if drawn else np.nan,
                        "p_step": group["p_step"].mean() if drawn else np.nan,
                        "kl": _mean(group["kl"]) if drawn else np.nan,
                        "kl_by_chance": _mean(group["kl_by_chance"]) if drawn else np.nan,
                    }
                )
        return with_labels(pd.DataFrame(rows), self.labels)

    def examples(self) -> pd.DataFrame:
        """One row for each problem and step, with all of its numbers."""
        return pd.DataFrame(
            [
                {
                    "operands": one.problem.operands,
                    "k": one.problem.k,
                    "step": one.step,
                    "text": one.text,
                    "p_step": float(np.exp(one.log_prob)),
                    "n_draws": one.n_draws,
                    "n_differing": len(one.differing),
                    "unformed": one.unformed,
                    **{measure: one.effects[measure] for measure in MEASURES},
                    "kl": one.kl,
                    "kl_by_chance": one.kl_by_chance,
                }
                for one in self.steps
            ]
        )

    def figure(self) -> go.Figure:
        """Importance by step and measure, with intervals."""
        return step_importance_figure(self.frame())


def step_importance(
    model: LanguageModel,
    task: Task,
    regime: str | Regime,
    problems: Sequence[Problem],
    *,
    rng: np.random.Generator,
    resampling: Resampling = Resampling(),
    run_seed: int = 0,
) -> StepImportance:
    """Importance of every step that `model` writes, in problems that it answers with the right trace.

    Args:
        problems: Distinct ones are used once.
        rng: Draws steps, edits and operands.
        run_seed: Label of the trained model in the tables.

    Raises:
        ValueError: A regime that writes no totals or no separators, a task whose steps do not follow its operands, no
            problems, none that the model answers with the right trace, a model of another vocabulary.
    """
    regime = require_totals(regime)
    if not regime.separator or not task.in_order:
        what = (
            f"regime {regime.name!r} has no steps apart" if task.in_order else f"steps of {task.name!r} have no order"
        )
        raise ValueError(f"{what}: the importance of a step needs steps with separators that follow the operands")
    if not problems:
        raise ValueError("step importance needs at least one problem, got none")
    require_solved(task, problems)
    require_vocabulary(model, Vocabulary.of(task))
    asked = tuple(dict.fromkeys(problems))
    batch = collate([render(task, problem, regime) for problem in asked], Vocabulary.of(task))
    own = verified_greedy(model, batch, batch_size=resampling.batch_size)
    right = [one for one, text in zip(batch.transcripts, own, strict=True) if text == one.response]
    if not right:
        raise ValueError(f"the model writes the right trace of none of {len(asked)} problems: its steps are not these")
    writer = _Writer(model, task, regime, resampling, rng)
    places = [_Place(one.problem, step, _steps(one.response)) for one in right for step in range(1, one.problem.k)]
    return StepImportance(tuple(_measured(writer, places)), len(asked) - len(right), labels_of(task, regime, run_seed))


@dataclass(frozen=True)
class _Place:
    """A step of a right trace, with the texts of all its steps."""

    problem: Problem
    step: int
    texts: tuple[str, ...]

    @property
    def text(self) -> str:
        return self.texts[self.step - 1]

    @property
    def before(self) -> Opening:
        """The response up to the step."""
        return self.followed_by("")

    def followed_by(self, text: str, problem: Problem | None = None) -> Opening:
        """The steps before this one and then `text`, under this prompt or another."""
        return Opening(problem or self.problem, OPEN + "".join(self.texts[: self.step - 1]) + text)


@dataclass(frozen=True, eq=False)
class _Writer:
    """A model that goes on from texts."""

    model: LanguageModel
    task: Task
    regime: Regime
    resampling: Resampling
    rng: np.random.Generator

    def steps(self, openings: Sequence[Opening], n: int, temperature: float) -> list[list[str]]:
        """`n` next steps of each opening, each up to the symbol that ends it; the likeliest one at temperature 0."""
        found = sample_continuations(
            self.model,
            self._start(openings),
            stop=tuple(Vocabulary.of(self.task).encode(STEP_ENDS)),
            rng=self.rng,
            temperature=temperature,
            n_samples=n,
            batch_size=self.resampling.batch_size,
        )
        return self._texts(found.tokens, found.length)

    def answers(self, openings: Sequence[Opening]) -> list[tuple[int | None, ...]]:
        """What the responses that begin so answer, in each of their continuations."""
        if not openings:
            return []
        distinct = list(dict.fromkeys(openings)) if not self.resampling.rest else list(openings)
        start, stop = self._start(distinct), Vocabulary.of(self.task).end
        if self.resampling.rest:
            found = sample_around_greedy(
                self.model,
                start,
                stop=stop,
                rng=self.rng,
                temperature=self.resampling.rest,
                n_samples=self.resampling.continuations,
                batch_size=self.resampling.batch_size,
            )
            texts = self._texts(found.tokens, found.length)
        else:
            written = verified(self.model, start, stop=stop, batch_size=self.resampling.batch_size)
            texts = [[text_of(Vocabulary.of(self.task), tokens)] for tokens in written]
        answered = [
            tuple(final_answer(self.task, one.written + text) for text in several)
            for one, several in zip(distinct, texts, strict=True)
        ]
        if self.resampling.rest:
            return answered
        known = dict(zip(distinct, answered, strict=True))
        return [known[one] for one in openings]

    def log_probs(self, places: Sequence[_Place]) -> list[float]:
        """Natural log of the model's own probability of each step."""
        start = self._start([place.before for place in places])
        whole = self._start([place.followed_by(place.text) for place in places], to_go_on=False)
        return continuation_log_prob(
            self.model, whole.tokens, start.given, whole.given, batch_size=self.resampling.batch_size
        ).tolist()

    def _start(self, openings: Sequence[Opening], *, to_go_on: bool = True) -> Prefixes:
        vocabulary = Vocabulary.of(self.task)
        texts = [one.text(self.task) for one in openings]
        width = max(map(len, texts))
        tokens = torch.tensor([[*vocabulary.encode(text), *[vocabulary.pad] * (width - len(text))] for text in texts])
        given = torch.tensor([len(text) for text in texts])
        if not to_go_on:
            return Prefixes(tokens, given, guessed=given, limit=given)
        longest = {k: longest_transcript(self.task, k, self.regime) for k in {one.problem.k for one in openings}}
        whole = torch.tensor([longest[one.problem.k] for one in openings])
        return Prefixes(tokens, given, guessed=given, limit=writing_limit(self.model, given, whole, None))

    def _texts(self, tokens: torch.Tensor, length: torch.Tensor) -> list[list[str]]:
        vocabulary = Vocabulary.of(self.task)
        return [
            [text_of(vocabulary, tuple(row[:n])) for row, n in zip(rows, lengths, strict=True)]
            for rows, lengths in zip(tokens.tolist(), length.tolist(), strict=True)
        ]


def _measured(writer: _Writer, places: Sequence[_Place]) -> list[StepEffects]:
    """All measures of all places; every kind of text is gone on with in one call."""
    settings, task = writer.resampling, writer.task
    drawn = writer.steps([place.before for place in places], settings.draws, settings.temperature)
    others = [
        tuple(text for text in texts if _says_another_total(task, text, place))
        for place, texts in zip(places, drawn, strict=True)
    ]
    changed = [_other_problem(writer, place) for place in places]
    mediated = [(place, other) for place, other in zip(places, changed, strict=True) if other is not None]
    natural = writer.steps([place.followed_by("", other) for place, other in mediated], 1, 0.0) if mediated else []
    written = {id(place): text for (place, _), (text,) in zip(mediated, natural, strict=True)}
    asked: list[Opening] = []
    index: dict[tuple[int, str], list[int]] = {}

    def ask(place: _Place, name: str, opening: Opening) -> None:
        index.setdefault((id(place), name), []).append(len(asked))
        asked.append(opening)

    for place, texts, other in zip(places, others, changed, strict=True):
        ask(place, "own", place.followed_by(place.text))
        if len(texts) >= settings.least:
            for text in texts:
                ask(place, "resampled", place.followed_by(text))
        edited, control = _edits(writer, place)
        if edited is not None:
            ask(place, "edited", edited)
        if control is not None:
            ask(place, "control", control)
        if other is not None:
            text = written[id(place)]
            ask(place, "indirect", place.followed_by(text))
            ask(place, "direct", place.followed_by(place.text, other))
            ask(place, "total", place.followed_by(text, other))
    answers = writer.answers(asked)
    log_probs = writer.log_probs(places)
    found = []
    for place, texts, draws, log_prob in zip(places, others, drawn, log_probs, strict=True):
        of = {
            name: [answer for row in index.get((id(place), name), ()) for answer in answers[row]]
            for name in ("own", *MEASURES)
        }
        own = _share(of["own"], place.problem.answer)
        effects: dict[Measure, float] = {
            name: own - _share(of[name], place.problem.answer) if of[name] else float("nan") for name in MEASURES
        }
        kl, by_chance = _kl_and_chance(of["resampled"], of["own"], writer.rng)
        found.append(
            StepEffects(
                problem=place.problem,
                step=place.step,
                text=place.text,
                log_prob=log_prob,
                n_draws=settings.draws,
                differing=texts,
                unformed=sum(not _formed(task, text, place) for text in draws),
                effects=effects,
                kl=kl,
                kl_by_chance=by_chance,
            )
        )
    return found


def _formed(task: Task, text: str, place: _Place) -> bool:
    """Whether a text is a step of the kind that stands there: its parts are values, and it ends as that one does."""
    own, read = parse_step(task, place.text[:-1]), parse_step(task, text[:-1])
    values = (read.total,) if own.style == "total" else (read.previous, read.operand, read.total)
    return text[-1:] == place.text[-1:] and read.style == own.style and None not in values


def _says_another_total(task: Task, text: str, place: _Place) -> bool:
    """Whether a drawn step is one, and its total is not that of the step in its place."""
    return _formed(task, text, place) and parse_step(task, text[:-1]).total != place.problem.totals[place.step - 1]


def _other_problem(writer: _Writer, place: _Place) -> Problem | None:
    """The problem with another operand at this step, of which total and answer differ; None where there is none."""
    problem, at = place.problem, place.step - 1
    others = [
        other
        for other in other_operands(writer.task, problem, place.step)
        if other.totals[at] != problem.totals[at] and other.answer != problem.answer
    ]
    return others[int(writer.rng.integers(len(others)))] if others else None


def _edits(writer: _Writer, place: _Place) -> tuple[Opening | None, Opening | None]:
    """The trace up to this step with its total replaced, and with that of an earlier one alone; None where none can."""
    edited = _replaced(writer, place, place.step)
    earlier = int(writer.rng.integers(1, place.step)) if place.step > 1 else None
    return edited, None if earlier is None else _replaced(writer, place, earlier)


def _replaced(writer: _Writer, place: _Place, step: int) -> Opening | None:
    task, problem = writer.task, place.problem
    found = informative_totals(task, [problem], step, at_most=1, rng=writer.rng).chosen
    if not found:
        return None
    own = task.state_text(problem.totals[step - 1])
    text = place.texts[step - 1]
    wrong = text[: -1 - len(own)] + task.state_text(found[0].total) + text[-1]
    texts = (*place.texts[: step - 1], wrong, *place.texts[step : place.step])
    return Opening(problem, OPEN + "".join(texts))


def _kl_and_chance(
    others: Sequence[int | None], own: Sequence[int | None], rng: np.random.Generator
) -> tuple[float, float]:
    """KL(answers after other steps || after the own step) in nats, and its mean after dealing all of them out anew.

    A single own answer stands for as many as there are others: what follows the likeliest symbols is sure.
    """
    if not others:
        return float("nan"), float("nan")
    own = list(own) * max(1, len(others) // len(own))
    pooled = np.array([*others, *own], dtype=object)
    dealt = []
    for _ in range(RELABELINGS):
        order = rng.permutation(len(pooled))
        dealt.append(_kl(pooled[order[: len(others)]].tolist(), pooled[order[len(others) :]].tolist()))
    return _kl(others, own), float(np.mean(dealt))


def _kl(first: Sequence[int | None], second: Sequence[int | None]) -> float:
    """From the first to the second distribution of answers, each answer that occurs counted half a time more."""
    seen = list(dict.fromkeys([*first, *second]))
    p, q = (np.array([Counter(side)[answer] + 0.5 for answer in seen]) for side in (first, second))
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def _share(answers: Sequence[int | None], answer: int) -> float:
    return sum(one == answer for one in answers) / len(answers)


def _steps(response: str) -> tuple[str, ...]:
    """The steps of a closed trace, each with the symbol that ends it."""
    trace = response[len(OPEN) : response.index("}") + 1]
    return tuple(_STEP.findall(trace))


def _mean(values: "pd.Series[float]") -> float:
    known = values.dropna()
    return float(known.mean()) if len(known) else float("nan")
