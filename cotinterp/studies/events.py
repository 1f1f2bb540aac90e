"""In which order measures rise over training: the update at which each passes halfway, over several runs.

The trained run is the unit: an order is the share of runs that have it, and intervals redraw runs. An event before
another is no cause of it, and its moment is that of the halfway mark: of two curves that rise together, the steeper one
may pass it first and the flatter one have begun before. Moments lie between two snapshots and are interpolated in log
updates, so that an order closer than their distance says nothing of itself; several seeds do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from scipy import stats

from cotinterp.figures.dynamics import events_figure
from cotinterp.results import Result
from cotinterp.studies.dynamics import PRIMARY

RUN = ["task", "regime", "run_seed"]
LEAST_CHANGE = 0.1
"""Least distance of first and final value of a measure that is said to rise at all."""
DURABLE = 3
"""Moments, that of the event among them, at which a measure must stand beyond its mark."""
PUBLISHED = ("step_table", "attention", "accuracy")
"""Forner et al. 2026, arXiv 2606.18164: a one-block tracker learns its MLP, then locks attention, then is right."""
AGREES, DIFFERS, CANNOT_TELL = "agrees", "differs", "cannot tell"
RESAMPLES = 2000


def durable_crossing(
    updates: Sequence[int | float],
    values: Sequence[int | float],
    mark: float,
    *,
    rising: bool = True,
    durable: int = DURABLE,
) -> float:
    """The first update at which a curve passes `mark` and stays beyond it for `durable` moments; infinity for never.

    Linear between two moments in log(1 + update), which has a place for update 0. 0 for a curve that begins beyond. A
    crossing with fewer moments behind it than `durable` is none: it cannot be told from noise.
    """
    at, sign = np.log1p(np.asarray(updates, dtype=float)), 1.0 if rising else -1.0
    above = sign * (np.asarray(values, dtype=float) - mark)
    beyond = above >= 0
    for first in range(len(at) - durable + 1):
        if beyond[first : first + durable].all():
            if first == 0:
                return 0.0
            share = above[first - 1] / (above[first - 1] - above[first])
            return float(np.expm1(at[first - 1] + share * (at[first] - at[first - 1])))
    return inf


def events(
    table: pd.DataFrame, *, conditions: Mapping[str, str] = PRIMARY, least: float = LEAST_CHANGE, durable: int = DURABLE
) -> pd.DataFrame:
    """When each measure of each run passes halfway between its first and its final value, durably.

    `table`: rows of `Dynamics.frame`, of any number of runs. One row for each run and measure: task, regime, run_seed,
    measure, initial, final, event (the update), state: `passed`; `late`, where it is not durably there by the end, the
    event then being infinite; `unchanged`, where first and final value lie closer than `least` and there is no event
    (NaN).

    Raises:
        ValueError: A run with fewer moments than `durable`.
    """
    rows = []
    chosen = table[table["condition"] == table["measure"].map(dict(conditions))].sort_values("update")
    for (*run, measure), curve in chosen.groupby([*RUN, "measure"], sort=False):
        if len(curve) < durable:
            raise ValueError(f"{measure} of {run} has {len(curve)} moments; an event asks for {durable} at least")
        initial, final = float(curve["value"].iloc[0]), float(curve["value"].iloc[-1])
        if abs(final - initial) < least:
            rows.append((*run, measure, initial, final, np.nan, "unchanged"))
            continue
        mark, rising = (initial + final) / 2, final > initial
        found = durable_crossing(
            curve["update"].tolist(), curve["value"].tolist(), mark, rising=rising, durable=durable
        )
        rows.append((*run, measure, initial, final, found, "passed" if found < inf else "late"))
    return pd.DataFrame(rows, columns=[*RUN, "measure", "initial", "final", "event", "state"])


@dataclass(frozen=True, eq=False)
class EventOrder(Result):
    """Events of several runs of one task and regime, and their order by pairs (`event_order`).

    Attributes:
        events: What `events` found.
        level: Of all intervals.
    """

    events: pd.DataFrame
    level: float = 0.95

    def moments(self) -> pd.DataFrame:
        """When: task, regime, measure, n, late, event, ci_low, ci_high, in the order of the events.

        The median over the n runs in which the measure changes, `late` ones counting as later than any, with a
        percentile bootstrap over runs; infinite where it lies among those. An interval of fewer than two runs is NaN.
        """
        rows = []
        for key, runs in self._changed.groupby(["task", "regime", "measure"], sort=False):
            values = runs["event"].to_numpy(dtype=float)
            low, high = _median_interval(values, self.level)
            rows.append((*key, len(values), int(np.isinf(values).sum()), float(np.median(values)), low, high))
        columns = ["task", "regime", "measure", "n", "late", "event", "ci_low", "ci_high"]
        return pd.DataFrame(rows, columns=columns).sort_values("event", kind="stable", ignore_index=True)

    def frame(self) -> pd.DataFrame:
        """tables/event_order.csv: one row for each pair of measures, of the runs in which both change.

        Columns: task, regime, first, then, n, ties, share, ci_low, ci_high, p, ratio, ratio_low, ratio_high. `share` of
        the n runs without a tie have `first` before `then`; its interval is Clopper and Pearson's, p the two-sided sign
        test against one half. Of two late events neither is before the other: a tie. `ratio`: update of `then` over
        that of `first`, geometric mean over the runs in which both pass, with a bootstrap over runs.
        """
        rows = []
        for (task, regime), runs in self._changed.groupby(["task", "regime"], sort=False):
            wide = runs.pivot(index="run_seed", columns="measure", values="event")
            measures = wide.median().sort_values(kind="stable").index
            for first, then in combinations(measures, 2):
                rows.append((task, regime, first, then, *self._pair(wide[[first, then]].dropna().to_numpy())))
        columns = ["first", "then", "n", "ties", "share", "ci_low", "ci_high", "p", "ratio", "ratio_low", "ratio_high"]
        return pd.DataFrame(rows, columns=["task", "regime", *columns])

    def judged(self, sequence: Sequence[str] = PUBLISHED) -> str:
        """`agrees` where each step of the sequence is so in more than half of runs, by the interval of its share.

        `differs` where one is so in less than half, by its interval; else `cannot tell`, also where a measure never
        changes. Agreeing asks for all steps at once and needs no correction for their number. One step is enough to
        differ: of measures that rise at chance, a sequence of three differs in up to 2 (1 - level) / 2 of cases.

        Raises:
            ValueError: The events are of several tasks or regimes.
        """
        if len(self.events[["task", "regime"]].drop_duplicates()) != 1:
            raise ValueError("an order is judged of one task and regime: give the events of one")
        wide = self._changed.pivot(index="run_seed", columns="measure", values="event")
        steps = list(zip(sequence, sequence[1:], strict=False))
        if any(measure not in wide for measure in sequence):
            return CANNOT_TELL
        pairs = [wide[list(step)].dropna().to_numpy() for step in steps]
        if all(_share(pair, self.level)[2] > 1 / 2 for pair in pairs):
            return AGREES
        return DIFFERS if any(_share(pair, self.level)[3] < 1 / 2 for pair in pairs) else CANNOT_TELL

    def figure(self) -> go.Figure:
        """A dot for each run, a row for each measure."""
        return events_figure(self.events, title="When each measure has come halfway, run by run")

    @property
    def _changed(self) -> pd.DataFrame:
        return self.events[self.events["state"] != "unchanged"]

    def _pair(self, both: Float[np.ndarray, "runs 2"]) -> tuple[int | float, ...]:
        n, share, low, high = _share(both, self.level)
        p = float(stats.binomtest(round(share * n), n).pvalue) if n else np.nan
        passed = both[np.isfinite(both).all(1)]
        logs = np.log1p(passed[:, 1]) - np.log1p(passed[:, 0])
        ratio = float(np.exp(logs.mean())) if len(logs) else np.nan
        ends = np.exp(_mean_interval(logs, self.level))
        return n, len(both) - n, share, low, high, p, ratio, *map(float, ends)


def event_order(table: pd.DataFrame, *, level: float = 0.95, conditions: Mapping[str, str] = PRIMARY) -> EventOrder:
    """`EventOrder` of rows of `Dynamics.frame`, of several runs below one another. ValueError as of `events`."""
    return EventOrder(events(table, conditions=conditions), level)


def _share(both: Float[np.ndarray, "runs 2"], level: float) -> tuple[int, float, float, float]:
    """Runs without a tie, the share of them in which the first event is before the second, and its interval."""
    told = both[both[:, 0] != both[:, 1]]
    n = len(told)
    if not n:
        return 0, np.nan, np.nan, np.nan
    before = int((told[:, 0] < told[:, 1]).sum())
    interval = stats.binomtest(before, n).proportion_ci(confidence_level=level, method="exact")
    return n, before / n, float(interval.low), float(interval.high)


def _redrawn(values: Float[np.ndarray, " runs"]) -> Float[np.ndarray, "resamples runs"]:
    rows = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    found: np.ndarray = values[rows]
    return found


def _median_interval(values: Float[np.ndarray, " runs"], level: float) -> tuple[float, float]:
    if len(values) < 2:
        return np.nan, np.nan
    # Order statistics, not interpolated: halfway between a number and infinity lies nothing.
    medians = np.sort(np.quantile(_redrawn(values), 0.5, axis=1, method="higher"))
    tail = (1 - level) / 2
    return float(medians[int(tail * (RESAMPLES - 1))]), float(medians[int((1 - tail) * (RESAMPLES - 1))])


def _mean_interval(values: Float[np.ndarray, " runs"], level: float) -> Float[np.ndarray, " 2"]:
    if len(values) < 2:
        return np.full(2, np.nan)
    tail = (1 - level) / 2
    ends: np.ndarray = np.quantile(_redrawn(values).mean(1), [tail, 1 - tail])
    return ends
