"""What of an activation is needed? Activations rebuilt from variables of the task alone, and what the model then says.

An account names variables for some sites and places, such as `x_0`, `x_1` and `x_2` for what attention brings to the
end of the prompt. At each of these the activation is fitted by least squares as a sum of one vector for each value of
each variable, on some problems, and written into the runs of others. **kept** is the share of these in which the model
still puts the right symbol first. So an account that keeps the answer says that nothing else which stood there is
needed; that operands one by one keep it says that no product of two of them is needed there, not that none is formed.

Variables are a running total, `s_2`, an operand, `x_3`, and `x_1..x_3`, what the task makes of these operands by
themselves; `class(s_2)` is the class of such a state where states are sorted into `classes`, in s3 even and odd
permutations (`behavior.quotients` lists what every step respects); `x_1,x_3` is several as one, a vector for each
combination of values. Those of an account add up.

- `shuffled`: the same fit on values that were dealt out anew to the problems, which must not keep the answer;
- `nothing`: the mean over problems in place of every activation named, what other places still tell;
- `explained`: the share of variance over problems that the fit predicts, of all sites and places together. Much of an
  activation may vary and never be read, so that an account can explain little of it and keep the answer.

Linear regression in place of the activation is the reverse of a probe. What stands at other places and sites is the
run's own: a second copy there keeps what an account leaves out. It is not shown that a variable which keeps the answer
is represented as such: a sum of two numbers keeps whatever its total keeps, and more than one account may be true.
Resampling activations within the classes of a hypothesis is causal scrubbing (Chan et al. 2022, Alignment Forum); the
mean of a class, written here, is its expectation, and takes no donors.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.figures import lines
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.interventions import patch, run_with
from cotinterp.mechanism.model import HookedModel, require_causal, require_model
from cotinterp.mechanism.sites import Site
from cotinterp.results import Result, wilson, with_labels
from cotinterp.tasks.task import Task
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.problems import Problem, solve
from cotinterp.transcripts.regimes import Regime
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Place, Role, place_words
from cotinterp.transcripts.vocabulary import Vocabulary

Account = Mapping[tuple[Site, tuple[Role | str, int]], Sequence[str]]
"""Variables by site and place; none at all: the mean."""

_VARIABLE = re.compile(r"(?P<of>class\()?(s_(?P<total>\d+)|x_(?P<first>\d+)(\.\.x_(?P<last>\d+))?)(?(of)\))")


@dataclass(frozen=True, eq=False)
class Rebuilt(Result):
    """What a model says where activations are rebuilt, by account; `cells` has a row for each."""

    cells: pd.DataFrame
    labels: Mapping[str, str | int]

    def frame(self) -> pd.DataFrame:
        """One row for each account.

        account (its name), where (sites and places), variables, readout, n (problems), explained (1: all of the
        variance), kept with a Wilson interval over problems (`ci_low`, `ci_high`), shuffled, nothing, and own, the
        share that the model, left alone, is right on.
        """
        return with_labels(self.cells, self.labels)

    def figure(self) -> go.Figure:
        """Problems still right by account, beside the same with values dealt out anew, and with the mean."""
        frame, names = self.frame(), {"rebuilt": "kept", "values dealt out anew": "shuffled", "the mean": "nothing"}
        parts = [
            frame.assign(written=name, share=frame[column])[["account", "written", "share"]].assign(
                low=frame["ci_low"] if column == "kept" else frame[column],
                high=frame["ci_high"] if column == "kept" else frame[column],
            )
            for name, column in names.items()
        ]
        return lines(
            pd.concat(parts, ignore_index=True),
            x="account",
            y="share",
            low="low",
            high="high",
            color="written",
            bounds=(0.0, 1.0),
            references={"left alone": float(frame["own"].max())},
            title="Which variables keep the answer? Activations rebuilt from them",
            x_title=" ",
            y_title="share of problems right",
        )


def rebuilt(
    model: HookedModel,
    task: Task,
    regime: str | Regime,
    problems: Sequence[Problem],
    test: Sequence[Problem],
    accounts: Mapping[str, Account],
    *,
    readout: tuple[Role | str, int],
    classes: Int[np.ndarray, " states"] | None = None,
    seed: int = 0,
    labels: Mapping[str, str | int] | None = None,
) -> Rebuilt:
    """Fits each account on `problems`, writes it into the runs of `test`, and asks for the first symbol of a value.

    Args:
        accounts: By name, the variables at each site and place that is written; of a value of several symbols the last.
        readout: Role and step of the value whose first symbol is asked for, such as (`answer`, K - 1).
        classes: The class of each state, where variables are classes: `quotients(task)[0].of`.
        seed: Of the values that are dealt out anew.
        labels: Constant columns of the table.

    Raises:
        KeyError: A place or a readout that some transcript lacks.
        ValueError: No accounts, or one without a place; a variable that the problems do not have; problems of several
            lengths or on both sides; a task whose steps do not follow its operands; a place behind the readout; sites
            that cannot be written; a model in train mode, or one that looks ahead.
    """
    require_model(model)
    require_causal(model, "what a place holds would depend on the answer written after it")
    if not accounts or not all(accounts.values()):
        raise ValueError("nothing to rebuild: give at least one account, each with at least one site and place")
    if shared := set(problems) & set(test):
        raise ValueError(f"{len(shared)} problems are in both sides, such as {next(iter(shared))}")
    if not problems or not test:
        raise ValueError(f"{len(problems)} problems to fit and {len(test)} to test: give some of each")
    if len(lengths := {problem.k for problem in (*problems, *test)}) != 1:
        raise ValueError(f"problems of {sorted(lengths)} operands: give those of one length, some to fit and to test")
    known, asked = (_Side.of(model, task, regime, one, accounts, readout, classes) for one in (problems, test))
    named = {one for account in accounts.values() for of in account.values() for one in of}
    coded = {one: _one_hot(known, asked, one) for one in named}
    dealt, own = np.random.default_rng(seed).permutation(len(problems)), asked.right({})
    rows = []
    for name, account in accounts.items():
        spots = {(site, (Role(role), step)): tuple(of) for (site, (role, step)), of in account.items()}
        fits, anew, mean = (
            {
                spot: _fitted(known, asked, spot, [coded[one] for one in of if variables], order)
                for spot, of in spots.items()
            }
            for variables, order in ((True, None), (True, dealt), (False, None))
        )
        kept = asked.right(fits)
        low, high = wilson(int(kept.sum()), len(kept))
        words = {f"{site} at {place_words(*place)}": " + ".join(of) or "mean" for (site, place), of in spots.items()}
        rows.append(
            {
                "account": name,
                "where": "; ".join(words),
                "variables": "; ".join(words.values()),
                "readout": place_words(Role(readout[0]), readout[1]),
                "n": len(kept),
                "explained": _explained(asked, fits),
                "kept": float(kept.mean()),
                "ci_low": low,
                "ci_high": high,
                "shuffled": float(asked.right(anew).mean()),
                "nothing": float(asked.right(mean).mean()),
                "own": float(own.mean()),
            }
        )
    return Rebuilt(pd.DataFrame(rows), dict(labels or {}))


def values_of(
    task: Task, problems: Sequence[Problem], variable: str, classes: Int[np.ndarray, " states"] | None = None
) -> Int[np.ndarray, " batch"]:
    """The value of a variable in each problem, numbered. ValueError for one that they do not have.

    `classes`: the class of each state of the task, which `class(s_2)` is of.
    """
    task.require_order("what operands make by themselves")
    columns = [_column(task, problems, part.strip(), classes) for part in variable.split(",")]
    return np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def _column(
    task: Task, problems: Sequence[Problem], name: str, classes: Int[np.ndarray, " states"] | None
) -> Int[np.ndarray, " batch"]:
    k, match = problems[0].k, _VARIABLE.fullmatch(name)
    if match is None:
        raise ValueError(
            f"no variable {name!r}: give a running total, 's_2', an operand, 'x_3', what operands make by themselves, "
            "'x_1..x_3', the class of one of these, 'class(s_2)', or several as one, 'x_1,x_3'"
        )
    first, last = (int(match[end] or match["first"] or 0) for end in ("first", "last"))
    if match["total"]:
        last = int(match["total"])
    if not first <= last < k or (match["total"] and not last):
        raise ValueError(
            f"no {name} in problems of {k} operands: totals are s_1 to s_{k - 1}, operands x_0 to x_{k - 1}"
        )
    operands = np.array([problem.operands[first : last + 1] for problem in problems])
    if first == last and not match["of"]:
        return operands[:, 0]
    solved = solve(task, operands if first < last else np.repeat(operands, 2, axis=1))
    state = np.array([one.totals[-1] if first < last else one.previous[0] for one in solved])
    if not match["of"]:
        return state
    if classes is None or len(classes) != task.n_states:
        given = "none are given" if classes is None else f"{len(classes)} are given"
        raise ValueError(f"{name} wants the class of each of {task.n_states} states, and {given}: pass `classes`")
    sorted_into: Int[np.ndarray, " batch"] = classes[state]
    return sorted_into


@dataclass(frozen=True, eq=False)
class _Side:
    """Some problems written out, and what the model holds at every site and place of the accounts."""

    model: HookedModel
    task: Task
    problems: Sequence[Problem]
    batch: Batch
    at: Mapping[Place, Int[Tensor, " batch"]]
    found: Mapping[tuple[Site, Place], Float[Tensor, "batch *d_site"]]
    given: Int[Tensor, " batch"]
    classes: Int[np.ndarray, " states"] | None

    @classmethod
    def of(
        cls,
        model: HookedModel,
        task: Task,
        regime: str | Regime,
        problems: Sequence[Problem],
        accounts: Mapping[str, Account],
        readout: tuple[Role | str, int],
        classes: Int[np.ndarray, " states"] | None,
    ) -> "_Side":
        device = next(model.parameters()).device if isinstance(model, torch.nn.Module) else torch.device("cpu")
        batch = collate([render(task, one, regime) for one in problems], Vocabulary.of(task)).to(device)
        spots = {(site, (Role(role), step)) for account in accounts.values() for site, (role, step) in account}
        at = {place: batch.where(*place, part=-1) for _, place in sorted(spots)}
        given = batch.where(Role(readout[0]), readout[1])
        for place, where in at.items():
            if bool((where >= given).any()):
                raise ValueError(
                    f"{place_words(*place)} does not stand before {place_words(*readout)}: nothing follows"
                )
        found: dict[tuple[Site, Place], Tensor] = {}
        for place, where in at.items():
            sites = sorted({site for site, other in spots if other == place})
            read = activations(model, batch.tokens, sites, positions=where, batch_size=512)
            found |= {(site, place): read[site] for site in sites}
        return cls(model, task, problems, batch, at, found, given, classes)

    def right(self, written: Mapping[tuple[Site, Place], Float[Tensor, "batch *d_site"]]) -> Bool[np.ndarray, " batch"]:
        """Whether the first symbol of the value is the likeliest, with something else written at some places."""
        edits = [patch(site, value, self.at[place], expect_change=False) for (site, place), value in written.items()]
        logits = run_with(self.model, self.batch.tokens, edits)
        rows = torch.arange(len(logits), device=logits.device)
        said = logits[rows, self.given - 1].argmax(dim=-1)
        return (said == self.batch.tokens[rows, self.given]).cpu().numpy()


def _fitted(
    known: _Side,
    asked: _Side,
    spot: tuple[Site, Place],
    designs: Sequence[tuple[Float[Tensor, "known _"], Float[Tensor, "asked _"]]],
    dealt: Int[np.ndarray, " known"] | None = None,
) -> Float[Tensor, "asked *d_site"]:
    """What coded variables predict of the activations of `asked`; `dealt` deals the values of `known` out anew."""
    held = known.found[spot]
    mean = held.double().mean(dim=0)
    predicted = mean.expand(len(asked.problems), *mean.shape)
    if designs:
        fit, use = (torch.cat(parts, dim=1).to(mean) for parts in zip(*designs, strict=True))
        fit, use = fit - (middle := fit.mean(dim=0)), use - middle
        fit = fit if dealt is None else fit[torch.from_numpy(dealt)]
        weights = torch.linalg.pinv(fit.T @ fit, hermitian=True, rtol=1e-9) @ fit.T @ (held.double() - mean).flatten(1)
        predicted = predicted + (use @ weights).reshape(predicted.shape)
    return predicted.to(held)


def _explained(asked: _Side, fits: Mapping[tuple[Site, Place], Tensor]) -> float:
    """Share of the variance over problems that fits predict, all places together; NaN where nothing varies."""
    held = {spot: asked.found[spot].double() for spot in fits}
    off = sum(float((held[spot] - fit.double()).square().sum()) for spot, fit in fits.items())
    varies = sum(float((value - value.mean(dim=0)).square().sum()) for value in held.values())
    return 1 - off / varies if varies > 0 else float("nan")


def _one_hot(
    known: _Side, asked: _Side, variable: str
) -> tuple[Float[Tensor, "known values"], Float[Tensor, "asked values"]]:
    values = values_of(known.task, (*known.problems, *asked.problems), variable, known.classes)
    table = torch.from_numpy(np.eye(values.max() + 1)[values])
    return table[: len(known.problems)], table[len(known.problems) :]
