"""Does a model act on what a verifier's probe reads? It is exchanged at a step's end, and the next step looked at.

A probe may tell wrong steps from right ones without the model ever reading what it reads. Here the component along the
probe's direction is taken from a step of the other kind, at the symbol that ends the step, and the model writes on: a
model that knew and used it would go on from a wrong step as from a right one, or set itself right. Random directions
that move every state as far are the yardstick, the whole state the ceiling. Published: mostly no effect (arXiv
2605.09502). It is what the exchange changes at this site and place; what is read elsewhere plays no part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.behavior.search.labeled_steps import LabeledSteps, written_steps
from cotinterp.behavior.search.verification import redrawn
from cotinterp.figures.search import verifier_use_figure
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.interventions import run_with
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.probing.subspaces import Subspace, interchange
from cotinterp.mechanism.sites import Site, refuse_write, site_columns
from cotinterp.models.decoding import Prefixes, prefixes, verified
from cotinterp.results import Result, with_labels
from cotinterp.studies.verifiers import ProbeScorer
from cotinterp.tasks.task import Task
from cotinterp.transcripts.parsing import parse_step
from cotinterp.transcripts.problems import Problem

Arm = tuple[Subspace, Subspace | None]
"""What is exchanged, and the subspace whose exchange it moves as far as."""


@dataclass(frozen=True, eq=False)
class VerifierUse(Result):
    """What exchanges did to the next step of each prefix. Rows of arms: the probe, the whole state, random directions.

    Attributes:
        wrong: Whether the prefix was wrong, and was given what a right one holds; else the other way around.
        problem: Problem of each prefix.
        changed: Whether the next step that the model writes (greedily) is another.
        right: Whether its total is the task's true one.
        log_prob: How much more probable the step that it would have written became, in nats; mostly negative.
        right_before: The same as `right` without any exchange.
    """

    site: Site
    wrong: Bool[np.ndarray, " prefix"]
    problem: Int[np.ndarray, " prefix"]
    changed: Bool[np.ndarray, "arm prefix"]
    right: Bool[np.ndarray, "arm prefix"]
    log_prob: Float[np.ndarray, "arm prefix"]
    right_before: Bool[np.ndarray, " prefix"]
    facts: Mapping[str, str | int] = field(default_factory=dict)
    seed: int = 0

    def frame(self) -> pd.DataFrame:
        """Three rows for wrong prefixes and three for right ones: `probe`, `random` (mean of them), `whole`.

        `changed` with its 95% interval over problems; `random_max`: the most that any random direction changed; `p`:
        the share of random directions, the probe's own counted among them, that change as much or more; `p_log_prob`:
        the same for how far the next step's log-probability falls, which moves before any symbol does.
        """
        rows = []
        for kind in (True, False):
            chosen = self.wrong == kind
            if not chosen.any():
                continue
            changed, fall = self.changed[:, chosen].mean(1), -self.log_prob[:, chosen].mean(1)
            for name, arms in (("probe", slice(0, 1)), ("random", slice(2, None)), ("whole", slice(1, 2))):
                low, high = self._interval(self.changed[arms][:, chosen].mean(0), self.problem[chosen])
                probe = name == "probe"
                rows.append(
                    {
                        **site_columns(self.site),
                        "prefix": "wrong" if kind else "right",
                        "subspace": name,
                        "changed": changed[arms].mean(),
                        "ci_low": low,
                        "ci_high": high,
                        "random_max": changed[2:].max(),
                        "p": _share_as_large(changed[0], changed[2:]) if probe else np.nan,
                        "right": self.right[arms][:, chosen].mean(),
                        "right_before": self.right_before[chosen].mean(),
                        "log_prob_change": self.log_prob[arms][:, chosen].mean(),
                        "p_log_prob": _share_as_large(fall[0], fall[2:]) if probe else np.nan,
                        "n": int(chosen.sum()),
                    }
                )
        return with_labels(pd.DataFrame(rows), self.facts)

    def figure(self) -> go.Figure:
        """Share of next steps changed, by what was exchanged."""
        return verifier_use_figure(self.frame())

    def _interval(
        self, values: Float[np.ndarray, " prefix"], problem: Int[np.ndarray, " prefix"]
    ) -> tuple[float, float]:
        """95% of a mean over prefixes, whole problems redrawn; NaN for fewer than two problems."""
        means = [(weight @ values) / weight.sum(1) for weight in redrawn(problem, seed=self.seed)]
        return tuple(np.quantile(np.concatenate(means), [0.025, 0.975]).tolist()) if means else (np.nan, np.nan)


def _share_as_large(own: float, others: Float[np.ndarray, " draw"]) -> float:
    return float((1 + (others >= own - 1e-12).sum()) / (1 + len(others)))


def verifier_use(
    model: HookedModel,
    task: Task,
    steps: LabeledSteps,
    scorer: ProbeScorer,
    *,
    n_random: int = 20,
    seed: int = 0,
    batch_size: int = 256,
    facts: Mapping[str, str | int] | None = None,
) -> VerifierUse:
    """Exchanges what `scorer` reads at the end of each step, and looks at the next step that `model` writes.

    Each prefix gets the component of another of the other kind (right for wrong) and the same number of steps, drawn at
    random; prefixes without such a partner, and finished responses, are left out. Only the symbol at the step's end is
    written to. `steps` are of other problems than the probe was fitted on.

    Raises:
        ValueError: Fewer than 19 random directions (no p-value could reach 0.05), a site that cannot be written, no
            prefix with a partner, a model in train mode.
    """
    if n_random < 19:
        raise ValueError(f"n_random={n_random}: the smallest p-value would be 1/{n_random + 1}; draw 19 or more")
    refuse_write(scorer.site.check(model))
    rng = np.random.default_rng(seed)
    own, donor = _partners(steps, rng)
    held = activations(
        model, steps.texts.tokens, [scorer.site], positions=steps.texts.length - 1, batch_size=batch_size
    )[scorer.site]
    probe = Subspace.of_probe(scorer.probe)
    whole = Subspace(torch.eye(probe.d_site))
    arms: list[Arm] = [(probe, None), (whole, None)]
    arms += [(Subspace.random(probe.d_site, probe.rank, rng), probe) for _ in range(n_random)]
    batch = steps.texts.batch
    limit = prefixes(model, batch).limit[steps.texts.row]
    own, donor = (rows[(steps.texts.length < limit).numpy()[own]] for rows in (own, donor))
    if not len(own):
        raise ValueError("no unfinished step has a partner of the other kind and the same number: label more responses")
    chosen = steps.select(np.isin(np.arange(len(steps)), own))
    texts, given = chosen.texts, chosen.texts.length
    start = Prefixes(texts.tokens, given, guessed=given, limit=limit[own])
    symbols = batch.vocabulary.symbols
    plain = [_first_step(row, symbols) for row in verified(model, start, stop=batch.vocabulary.end)]
    exchange = _Exchange(model, scorer.site, start, held[donor], symbols, batch_size)
    changed, log_prob = exchange.forced(plain, arms)
    right = np.zeros_like(changed)
    wanted = [(one, int(n) + 1) for one, n in zip(texts.problems, chosen.step, strict=True)]
    before = np.array([_is_right(task, *one, text) for one, text in zip(wanted, plain, strict=True)])
    for number, arm in enumerate(arms):
        rows = np.flatnonzero(changed[number])
        right[number] = before
        for row, text in zip(rows.tolist(), exchange.written(rows, arm), strict=True):
            right[number, row] = _is_right(task, *wanted[row], text)
    return VerifierUse(
        site=scorer.site,
        wrong=~chosen.right,
        problem=chosen.problem,
        changed=changed,
        right=right,
        log_prob=log_prob,
        right_before=before,
        facts=dict(facts or {}),
        seed=seed,
    )


def _partners(steps: LabeledSteps, rng: np.random.Generator) -> tuple[Int[np.ndarray, " own"], Int[np.ndarray, " own"]]:
    """Unfinished steps in order that have a partner of the other label and the same number, and one of each."""
    unfinished = ~steps.texts.ended.numpy()
    found = []
    for row in np.flatnonzero(unfinished).tolist():
        others = np.flatnonzero(unfinished & (steps.right != steps.right[row]) & (steps.step == steps.step[row]))
        if len(others):
            found.append((row, int(rng.choice(others))))
    pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _first_step(tokens: Sequence[int], symbols: Sequence[str]) -> str:
    """Up to the end of the first step of what was written, or all of it."""
    return (written_steps("".join(symbols[token] for token in tokens)) or [""])[0]


def _is_right(task: Task, problem: Problem, step: int, text: str) -> bool:
    """Whether the total of a step, or of the answer behind the last one, is the task's."""
    if step > len(problem.totals):
        return step == len(problem.totals) + 1 and text.endswith("#") and task.parse_state(text[:-1]) == problem.answer
    return parse_step(task, text.rstrip(";}")).total == problem.totals[step - 1]


@dataclass(frozen=True, eq=False)
class _Exchange:
    """Prefixes, and at the last symbol of each another one's state to take a component from."""

    model: HookedModel
    site: Site
    start: Prefixes
    donor: Float[Tensor, "prefix *vector"]
    symbols: Sequence[str]
    batch_size: int

    def logits(
        self, tokens: Int[Tensor, "row pos"], rows: Int[Tensor, " row"], arm: Arm
    ) -> Float[Tensor, "row pos d_vocab"]:
        """Where these prefixes are continued by `tokens`."""
        at, (subspace, matched) = self.start.given[rows] - 1, arm
        edit = interchange(self.site, self.donor[rows], subspace, at, matched_to=matched, expect_change=False)
        return run_with(self.model, tokens, [edit]).double().cpu()

    def forced(
        self, texts: Sequence[str], arms: Sequence[Arm]
    ) -> tuple[Bool[np.ndarray, "arm prefix"], Float[np.ndarray, "arm prefix"]]:
        """Whether the model departs from its own next step, and how much more probable that has become in nats."""
        code = {symbol: number for number, symbol in enumerate(self.symbols)}
        nothing: Arm = (Subspace(torch.zeros(arms[0][0].d_site, 0)), None)
        changed, log_prob = (np.zeros((len(arms) + 1, len(texts))) for _ in range(2))
        for rows in torch.arange(len(texts)).split(self.batch_size):
            own = [[code[symbol] for symbol in texts[row]] for row in rows.tolist()]
            given = self.start.given[rows]
            size = torch.tensor([len(text) for text in own])
            tokens = torch.zeros(len(rows), int((given + size).max()), dtype=torch.long)
            for number, text in enumerate(own):
                n = int(given[number])
                tokens[number, :n] = self.start.tokens[rows[number], :n]
                tokens[number, n : n + len(text)] = torch.tensor(text, dtype=torch.long)
            place = torch.arange(tokens.shape[1] - 1) + 1
            asked = (place >= given[:, None]) & (place < (given + size)[:, None])
            for number, arm in enumerate((nothing, *arms)):
                logits = self.logits(tokens, rows, arm)[:, :-1]
                wanted = tokens[:, 1:]
                departs = (logits.argmax(-1) != wanted) & asked
                own_log_prob = logits.log_softmax(-1).gather(2, wanted[..., None])[..., 0]
                changed[number, rows] = departs.any(1).numpy()
                log_prob[number, rows] = torch.where(asked, own_log_prob, 0.0).sum(1).numpy()
        return changed[1:] > 0, log_prob[1:] - log_prob[0]

    def written(self, rows: Int[np.ndarray, " row"], arm: Arm) -> list[str]:
        """The next step that is written greedily under an exchange, symbol by symbol."""
        texts = []
        stops = torch.tensor([number for number, symbol in enumerate(self.symbols) if symbol in ";}#"])
        for part in torch.from_numpy(rows).split(self.batch_size) if len(rows) else ():
            given, limit = self.start.given[part], self.start.limit[part]
            buffer = torch.zeros(len(part), int(limit.max()), dtype=torch.long)
            width = min(buffer.shape[1], self.start.tokens.shape[1])
            buffer[:, :width] = self.start.tokens[part, :width]
            at, running = given.clone(), torch.ones(len(part), dtype=torch.bool)
            while bool(running.any()):
                logits = self.logits(buffer[:, : int(at.max())], part, arm)
                symbol = logits[torch.arange(len(part)), at - 1].argmax(-1)
                new = running.nonzero()[:, 0]
                buffer[new, at[new]] = symbol[new]
                at[new] += 1
                running &= ~torch.isin(symbol, stops) & (at < limit)
            bounds = zip(buffer.tolist(), given.tolist(), at.tolist(), strict=True)
            texts += ["".join(self.symbols[token] for token in row[first:last]) for row, first, last in bounds]
        return texts
