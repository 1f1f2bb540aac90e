"""Pairs of problems in which one variable changes hands, and what the task's oracle says the model should then write.

A causal variable of a problem is a running total or an operand, by the name that probes give it: `s_2`, `x_3`, or
several at once, `s_2,x_3`. Base and source are two problems, written out in full. If a model keeps the variable at some
place, then with the source's value in the base's run it should write what the task computes from it: the base problem
with that total, or that operand, continued to the readout. All else is the base's. Unlike in minimal pairs base and
source differ in everything, so that what else is exchanged along with the variable gives another value at the readout.

Where the task names the value that the base has anyway, nothing can be told apart: a source is drawn again, and base
problems for which none is found are dropped and counted.

Geiger et al. 2021, arXiv 2106.02997; Geiger et al. 2023, arXiv 2303.02536.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from cotinterp.results import rows_html, short_repr
from cotinterp.tasks.task import Task, whole_number
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.pairs import NoPairsError
from cotinterp.transcripts.problems import Problem, by_length, require_solved, solve, substitute_total
from cotinterp.transcripts.regimes import Regime, Token, get_regime
from cotinterp.transcripts.render import Transcript, render
from cotinterp.transcripts.roles import Place, Role, place_words
from cotinterp.transcripts.vocabulary import Vocabulary

TRIES = 20
"""Sources that are drawn for a base problem before it is dropped."""
_PART = re.compile(r"([sx])_(\d+)")


@dataclass(frozen=True)
class InterchangePairs:
    """Base and source, row by row, with the counterfactual written into the base at the readout.

    Attributes:
        variable: What changes hands, `s_2`.
        place: Role and step at which the base's run is given the source's; of several symbols the last.
        readout: Role and step of the value that the oracle names.
        base: The base's transcript up to the readout, there the counterfactual value and the symbol after it, or the
            first symbol of the value alone.
        source: The source's transcript as it is.
        given: Symbols of `base` before the readout.
        own: The base's own transcript, up to the symbol after its own value at the readout.
        dropped: Base problems for which no source gave another value.
    """

    variable: str
    place: Place
    readout: Place
    base: Batch
    source: Batch
    given: Int[Tensor, " batch"]
    own: Batch
    dropped: int = 0

    def __post_init__(self) -> None:
        """ValueError where the place does not stand before the readout."""
        if bool((self.at >= self.given).any()):
            raise ValueError(
                f"{place_words(*self.place)} does not stand before {place_words(*self.readout)}: what is written there "
                "cannot depend on it. Take an earlier place or a later readout."
            )

    def __repr__(self) -> str:
        return short_repr(self)

    def _repr_html_(self) -> str:
        """The first pairs, for a notebook."""
        rows = (
            (own.text, source.text, base.text)
            for own, source, base in zip(*(x.transcripts for x in (self.own, self.source, self.base)), strict=True)
        )
        return rows_html(self, ("base", "source", f"base with the source's {self.variable}"), rows, n=len(self))

    def __len__(self) -> int:
        return len(self.base)

    @property
    def at(self) -> Int[Tensor, " batch"]:
        """Position of the place in the base."""
        return self.base.where(*self.place, part=-1)

    @property
    def source_at(self) -> Int[Tensor, " batch"]:
        """Position of the place in the source."""
        return self.source.where(*self.place, part=-1)

    def select(self, keep: Bool[np.ndarray, " batch"] | Int[np.ndarray, " some"]) -> "InterchangePairs":
        """Some of the pairs, by a mask or by their numbers."""
        rows = torch.from_numpy(np.arange(len(self))[keep]).to(self.given.device)
        return replace(self, base=self.base[rows], source=self.source[rows], own=self.own[rows], given=self.given[rows])

    def to(self, device: torch.device | str) -> "InterchangePairs":
        """The same pairs on another device."""
        base, source, own = (batch.to(device) for batch in (self.base, self.source, self.own))
        return replace(self, base=base, source=source, own=own, given=self.given.to(device))

    def shuffled(self, rng: np.random.Generator) -> "InterchangePairs":
        """The same runs, each with the counterfactual of a random other pair: labels that no exchange explains.

        Some are told to keep their own value: were these left out, that the value changes would still be true.
        """
        texts = [one.tokens[n:] for one, n in zip(self.base.transcripts, self.given.tolist(), strict=True)]
        spliced = [
            Transcript(one.problem, one.regime, (*one.tokens[:n], *texts[other]))
            for one, n, other in zip(
                self.base.transcripts, self.given.tolist(), rng.permutation(len(self)).tolist(), strict=True
            )
        ]
        return replace(self, base=collate(spliced, self.base.vocabulary).to(self.base.tokens.device))


def counterfactual(task: Task, base: Problem, source: Problem, variable: str) -> Problem:
    """`base` with what `variable` names taken from `source`, and everything later continued by the task.

    `x_3` is the prompt's operand 3, `s_2` the total of step 2 (the totals before it stay); `s_2,x_3` both. ValueError
    for other names, operands and steps that one of the problems lacks, and a task whose steps do not follow its
    operands.
    """
    if not task.in_order:
        raise ValueError(
            f"the steps of task {task.name!r} do not follow its operands in order: what a total or an operand is to "
            "later steps depends on the problem. Take a task that does."
        )
    parts = variable_parts(variable)
    for kind, number in parts:
        k = min(base.k, source.k)
        if not (kind == "s") <= number < k:
            least, what = ("s_1", "totals") if kind == "s" else ("x_0", "operands")
            raise ValueError(f"no {kind}_{number}: {what} of these problems are {least} to {kind}_{k - 1}")
    operands = list(base.operands)
    for kind, number in parts:
        if kind == "x":
            operands[number] = source.operands[number]
    found = base if tuple(operands) == base.operands else solve(task, np.array([operands]))[0]
    for number in sorted(number for kind, number in parts if kind == "s"):
        found = substitute_total(task, found, number, source.totals[number - 1])
    return found


def variable_parts(variable: str) -> tuple[tuple[str, int], ...]:
    """`s_2,x_3` as (("s", 2), ("x", 3)). ValueError for other names."""
    matches = [_PART.fullmatch(part.strip()) for part in variable.split(",")]
    found = [(match[1], int(match[2])) for match in matches if match]
    if len(found) < len(matches):
        raise ValueError(
            f"no variable {variable!r}: give a running total, 's_2', an operand, 'x_3', or several, 's_2,x_3'"
        )
    return tuple(found)


def interchange_pairs(
    task: Task,
    problems: Sequence[Problem],
    regime: str | Regime,
    *,
    variable: str,
    place: tuple[Role | str, int],
    readout: tuple[Role | str, int],
    rng: np.random.Generator,
    sources: int = 1,
    first_symbol: bool = False,
) -> InterchangePairs:
    """Every problem as a base, each with `sources` of the others, of as many operands, drawn at random.

    With `first_symbol` only the first symbol of the value is asked for, and must differ (18 -> 23, not 18 -> 13): a
    model that writes 18 as `1`, `8` computes the 8 where it reads the 1, which an exchange before it does not reach.

    Raises:
        KeyError: A place or a readout that some transcript lacks.
        NoPairsError: No source gives another value at the readout: the variable cannot matter there.
        ValueError: Names, problems, a readout before the place, a regime that writes no response.
    """
    regime, role, step = get_regime(regime), Role(readout[0]), readout[1]
    whole_number(sources, "sources", "how many sources each base is given", least=1)
    if regime.reads != "response":
        raise ValueError(f"regime {regime.name!r} writes no response that could be read at {place_words(role, step)}")
    require_solved(task, problems)
    rendered = {problem: render(task, problem, regime) for problem in problems}
    chosen: list[tuple[Transcript, Transcript, Transcript, int]] = []
    dropped = 0
    for group in by_length(problems).values():
        for base in group:
            own, given, value = _cut(rendered[base], role, step, first_symbol)
            found = 0
            for number in rng.permutation(len(group))[: TRIES * sources]:
                source = group[int(number)]
                other = counterfactual(task, base, source, variable)
                _, _, wanted = _cut(render(task, other, regime), role, step, first_symbol)
                if _symbols(wanted) == _symbols(value):
                    continue
                spliced = Transcript(base, regime.name, (*own.tokens[:given], *wanted))
                chosen.append((spliced, rendered[source], own, given))
                found += 1
                if found == sources:
                    break
            dropped += not found
    if not chosen:
        raise NoPairsError(
            f"taking {variable} from another never changes {place_words(role, step)} in {len(problems)} problems",
            tried=len(problems),
            advice="take a later readout, or a variable that comes before it",
        )
    vocabulary = Vocabulary.of(task)
    bases, source_texts, owns = (collate(column, vocabulary) for column in list(zip(*chosen, strict=True))[:3])
    return InterchangePairs(
        variable=variable,
        place=(Role(place[0]), place[1]),
        readout=(role, step),
        base=bases,
        source=source_texts,
        given=torch.tensor([given for *_, given in chosen]),
        own=owns,
        dropped=dropped,
    )


def _cut(
    transcript: Transcript, role: Role, step: int, first_symbol: bool
) -> tuple[Transcript, int, tuple[Token, ...]]:
    """A transcript up to the symbol after its value at the readout, where the value begins, and what is cut there."""
    at = [i for i, token in enumerate(transcript.tokens) if (token.role, token.step) == (role, step)]
    if not at:
        places = dict.fromkeys(place_words(token.role, token.step) for token in transcript.tokens)
        raise KeyError(f"no {place_words(role, step)} in {transcript.text!r}, which has {', '.join(places)}")
    end = at[0] + 1 if first_symbol else min(at[-1] + 2, len(transcript))
    cut = Transcript(transcript.problem, transcript.regime, transcript.tokens[:end])
    return cut, at[0], transcript.tokens[at[0] : end]


def _symbols(tokens: Sequence[Token]) -> str:
    return "".join(token.symbol for token in tokens)
