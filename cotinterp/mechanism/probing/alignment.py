"""Are two models the same up to a rotation? One residual stream seen in the basis of another.

Models that differ in their seed alone have unrelated bases, so that no direction of one means anything in the other,
whatever both compute. If a rotation (with one change of scale) of one stream explains the other on problems that it was
not fitted on, the two hold the same things in the same proportions; then probes and written activations carry over
(2026, "Polymorphism is Rotation", arXiv 2605.24577). The rotation is that of orthogonal Procrustes (Schönemann 1966).

Streams are compared place by place, less their mean over training problems there: what all problems share at a place is
no part of the comparison. Three controls stand beside each pair: the streams as they are (`identity`), a rotation
fitted on problems that were dealt out anew (`shuffled`), and a model that was not trained.

What it does not establish: that both compute it alike. Two streams that hold the same classes, about as far from one
another, are one up to a rotation whatever put them there, and behind the last block any two models that are right do.
An untrained stream holds the input symbols too, and explains a part of a trained one by them: the difference from it is
what training made alike. Writing the other's activations (`follows`) is the causal test.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.figures import heatmap
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.interventions import Edit, run_with
from cotinterp.mechanism.model import HookedModel, require_causal, require_model
from cotinterp.mechanism.probing.controls import distinct_rows, hold_out
from cotinterp.mechanism.probing.linear_probe import LinearProbe, ProbedAt, fit_probe
from cotinterp.mechanism.probing.solver import FitOptions
from cotinterp.mechanism.probing.totals import running_total
from cotinterp.mechanism.sites import Site, residual_sites, site_columns
from cotinterp.results import Result, with_labels
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.roles import Role, place_words

AlignmentMap = Literal["rotation", "identity", "shuffled"]
"""How the other stream is seen: turned, as it is, or turned by what was fitted on unrelated problems."""
MAPS: tuple[AlignmentMap, ...] = get_args(AlignmentMap)

UNTRAINED = "untrained"
"""Name of the model that was not trained."""

Streams = Float[Tensor, "problem place d_model"]


@dataclass(frozen=True, eq=False)
class Alignment:
    """A map from one stream to another: `(x - mean) @ rotation * scale + target_mean`, place by place.

    The scale is the one that fits best; two models that are rotations of one another have 1.
    """

    rotation: Float[Tensor, "d_model d_model"]
    scale: float
    mean: Float[Tensor, "place d_model"]
    target_mean: Float[Tensor, "place d_model"]

    def apply(self, stream: Streams) -> Streams:
        """The stream in the basis of the target."""
        turned = (stream.double() - self.mean) @ self.rotation
        return self.scale * turned + self.target_mean


def fit_alignment(stream: Streams, target: Streams) -> Alignment:
    """The rotation and scale that bring `stream` nearest to `target`; row i of both is the same problem.

    Raises:
        ValueError: Streams of different shapes, a single problem, or a stream that is the same for all problems.
    """
    return _fit([stream], [target])[0]


def explained(mapped: Streams, target: Streams, mean: Float[Tensor, "place d_model"]) -> float:
    """R^2: one less the squared error of `mapped` over that of the training mean; 1 is exact, 0 or less no use."""
    error, spread = (target - mapped).square().sum(), (target - mean).square().sum()
    return float(1 - error / spread)


def _fit(streams: Sequence[Streams], targets: Sequence[Streams]) -> list[Alignment]:
    """One rotation and scale for several sites, each with means of its own."""
    for stream, target in zip(streams, targets, strict=True):
        if stream.shape != target.shape or len(stream) < 2:
            raise ValueError(
                f"streams of shapes {tuple(stream.shape)} and {tuple(target.shape)}: wanted are the same problems and "
                "places, two problems at least, and models of one width"
            )
    means = [
        (stream.double().mean(0), target.double().mean(0)) for stream, target in zip(streams, targets, strict=True)
    ]
    product, size = torch.zeros(streams[0].shape[-1], targets[0].shape[-1], dtype=torch.float64), 0.0
    for stream, target, (mean, target_mean) in zip(streams, targets, means, strict=True):
        centered, wanted = stream.double() - mean, target.double() - target_mean
        product = product + einsum(centered, wanted, "problem place i, problem place j -> i j")
        size += float(centered.square().sum())
    if not size > 0:
        raise ValueError("the stream is the same for all problems at each place: there is nothing to align")
    left, singular, right = torch.linalg.svd(product)
    return [Alignment(left @ right, float(singular.sum()) / size, *mean) for mean in means]


@dataclass(frozen=True, eq=False)
class AlignedCell:
    """One stream seen in the basis of another, on problems that nothing was fitted on.

    Attributes:
        model, other: Whose stream is explained, and whose is turned.
        error, spread: Squared distance of the stream from what the other says, and from its own training mean, summed
            over places, by test problem.
        correct: Whether `model`'s probe reads the total off the other's stream, seen through the map.
        home_correct: Whether it does off its own.
        follows: Whether the model, given the other's state of another problem through the map, writes what that problem
            has next; NaN where both problems have the same there.
        home_follows: The same with the model's own state of that problem.
    """

    model: str
    other: str
    site: Site
    map: AlignmentMap
    error: Float[np.ndarray, " problem"]
    spread: Float[np.ndarray, " problem"]
    correct: Float[np.ndarray, "problem place"]
    home_correct: Float[np.ndarray, "problem place"]
    follows: Float[np.ndarray, "problem place"]
    home_follows: Float[np.ndarray, "problem place"]
    chance: float
    scale: float
    n_train: int

    @property
    def r_squared(self) -> float:
        """Share of the variance over test problems that the other stream explains."""
        return float(1 - self.error.sum() / self.spread.sum())

    def interval(self, *, seed: int = 0, n_resamples: int = 2000) -> tuple[float, float]:
        """95% bootstrap interval of `r_squared` over problems."""
        n = len(self.error)
        counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples)
        low, high = np.quantile(1 - (counts @ self.error) / (counts @ self.spread), [0.025, 0.975])
        return float(low), float(high)


@dataclass(frozen=True, eq=False)
class AlignmentResult(Result):
    """Every model in the basis of every other, by site and map, beside an untrained one.

    High `r_squared`, `accuracy` and `follows` under `rotation` with low ones under the three controls: the models are
    one up to a rotation there. It says nothing of places and sites that were not asked about.
    """

    cells: tuple[AlignedCell, ...]
    places: tuple[str, ...]
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def of(self, model: str, other: str, site: Site, how: AlignmentMap = "rotation") -> AlignedCell:
        """One cell. KeyError that names the pairs and sites there are."""
        for cell in self.cells:
            if (cell.model, cell.other, cell.site, cell.map) == (model, other, site, how):
                return cell
        pairs = dict.fromkeys((cell.model, cell.other) for cell in self.cells)
        sites = dict.fromkeys(str(cell.site) for cell in self.cells)
        raise KeyError(f"no {model!r}, {other!r} at {site} by {how}; there are pairs {list(pairs)} at {list(sites)}")

    def frame(self) -> pd.DataFrame:
        """One row per ordered pair of models, site and map.

        `accuracy`: of the model's probe on the other's stream; `home_accuracy`: on its own; `chance`: always the most
        frequent total. `follows`: how often the model writes what the other's state says; `home_follows`: its own.
        """
        rows = []
        for cell in self.cells:
            low, high = cell.interval()
            rows.append(
                {
                    "model": cell.model,
                    "other": cell.other,
                    **site_columns(cell.site),
                    "map": cell.map,
                    "r_squared": cell.r_squared,
                    "ci_low": low,
                    "ci_high": high,
                    "accuracy": float(cell.correct.mean()),
                    "home_accuracy": float(cell.home_correct.mean()),
                    "chance": cell.chance,
                    "follows": _mean(cell.follows),
                    "home_follows": _mean(cell.home_follows),
                    "scale": cell.scale,
                    "n_train": cell.n_train,
                    "n_test": len(cell.error),
                }
            )
        return with_labels(pd.DataFrame(rows), self.labels)

    def figure(self, measure: Literal["r_squared", "accuracy", "follows"] = "r_squared") -> go.Figure:
        """Pairs (rows) by site (columns), a panel for each map; below 0 is drawn as 0."""
        table = self.frame()
        shown = table.assign(pair=table["other"] + " in " + table["model"], shown=table[measure].clip(lower=0))
        return heatmap(
            shown,
            x="site",
            y="pair",
            value="shown",
            facet="map",
            bounds=(0.0, 1.0),
            title=f"One model in the basis of another: {measure.replace('_', ' ')} on held-out problems",
            x_title="site",
            y_title="whose stream, in whose basis",
            value_title=measure.replace("_", " "),
            hover=["r_squared", "ci_low", "ci_high", "accuracy", "home_accuracy", "follows", "home_follows"],
        )


def _mean(values: Float[np.ndarray, "..."]) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def align_streams(
    models: Mapping[str, HookedModel],
    batch: Batch,
    places: Sequence[tuple[Role | str, int, int]],
    *,
    untrained: HookedModel | None = None,
    sites: Sequence[Site] | None = None,
    one_map: bool = False,
    test: float = 0.25,
    seed: int = 0,
    fit: FitOptions = FitOptions(),
    labels: Mapping[str, str | int] | None = None,
) -> AlignmentResult:
    """Residual streams of two or more models on the same transcripts, each seen in the basis of each other.

    Args:
        models: By name, such as the seed; all of one width.
        batch: Transcripts that all of them can write, such as those of one length.
        places: Role, step (-1 where it has none) and the j of the total `s_j` that probes read there, as in
            `transfer_totals`. Of a value of several characters the last.
        untrained: The control: its stream is turned into the basis of each model.
        sites: By default what enters the second and later layers, and what leaves the last.
        one_map: One rotation for all sites instead of one for each: the basis of a model is one.
        test: Share of the problems that nothing is fitted on.
        seed: Of the split, of what is dealt out anew, and of whose state is written into whose run.
        fit: How probes are fitted.

    Raises:
        KeyError: Some transcript lacks a place.
        ValueError: Fewer than two models (the untrained one counts), models of different widths, or that look ahead.
        ProbeNotConverged: Names the place.
    """
    named = dict(models) if untrained is None else {**models, UNTRAINED: untrained}
    if len(named) < 2 or (untrained is not None and UNTRAINED in models):
        raise ValueError(f"models: {list(models)} were given. Wanted are two at least, none of them called {UNTRAINED}")
    widths = {name: int(model.cfg.d_model) for name, model in named.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"models of different widths, {widths}: a rotation maps between streams of one width")
    first = next(iter(models.values()))
    last = min(int(model.cfg.n_layers) for model in named.values()) - 1
    chosen = (*residual_sites(first)[1 : last + 1], Site("resid_post", last)) if sites is None else tuple(sites)
    asked = [(Role(role), step, target) for role, step, target in places]
    positions = torch.stack([batch.where(role, None if step < 0 else step, part=-1) for role, step, _ in asked], dim=1)
    streams: dict[str, dict[Site, Streams]] = {}
    for name, model in named.items():
        require_model(model)
        require_causal(model, "what a place holds would depend on what comes after it, padding too")
        found = activations(model, batch.tokens, chosen, positions=positions, batch_size=fit.batch_size)
        streams[name] = {site: stream.cpu() for site, stream in found.items()}
    problems = distinct_rows(batch.operands.cpu().numpy())
    split = _Split.of(hold_out(problems, fraction=test, seed=seed), problems, seed)
    truth = np.stack([running_total(batch, target) for *_, target in asked], axis=1)
    words = tuple(place_words(role, step) for role, step, _ in asked)
    cells: list[AlignedCell] = []
    for name, model in models.items():
        reading = _Reader.of(model, batch, positions, split, streams[name], truth, words, fit)
        for one, other in permutations(named, 2):
            if one == name:
                cells += reading.cells(name, other, streams[other], one_map=one_map)
    return AlignmentResult(tuple(cells), words, dict(labels or {}))


@dataclass(frozen=True, eq=False)
class _Split:
    """Rows to fit on and to test on, the former dealt out anew, and for each test row another one."""

    train: Int[Tensor, " train"]
    test: Int[Tensor, " test"]
    dealt: Int[Tensor, " train"]
    donor: Int[Tensor, " test"]

    @classmethod
    def of(cls, train: Bool[np.ndarray, " n"], problems: Int[np.ndarray, " n"], seed: int) -> "_Split":
        rng, rows = np.random.default_rng(seed), np.flatnonzero(train)
        others = np.flatnonzero(~train)
        if len(np.unique(problems[others])) < 2:
            raise ValueError("a single problem is held out, so that no other one lends it a state; give more problems")
        donor = np.array([rng.choice(others[problems[others] != problems[row]]) for row in others])
        return cls(*(torch.from_numpy(one) for one in (rows, others, rng.permutation(rows), donor)))


@dataclass(frozen=True, eq=False)
class _Reader:
    """One model with its streams and probes: what the streams of others are held against."""

    model: HookedModel
    batch: Batch
    positions: Int[Tensor, "batch place"]
    split: _Split
    streams: Mapping[Site, Streams]
    truth: Int[np.ndarray, "batch place"]
    probes: Mapping[Site, list[LinearProbe]]

    @classmethod
    def of(
        cls,
        model: HookedModel,
        batch: Batch,
        positions: Int[Tensor, "batch place"],
        split: _Split,
        streams: Mapping[Site, Streams],
        truth: Int[np.ndarray, "batch place"],
        words: Sequence[str],
        fit: FitOptions,
    ) -> "_Reader":
        rows = split.train
        probes = {
            site: [
                fit_probe(
                    stream[rows, place],
                    truth[rows.numpy(), place],
                    at=ProbedAt(site=site, words=word),
                    penalty=fit.penalty,
                    tolerance=fit.tolerance,
                    max_iterations=fit.max_iterations,
                )
                for place, word in enumerate(words)
            ]
            for site, stream in streams.items()
        }
        return cls(model, batch, positions, split, streams, truth, probes)

    def cells(self, name: str, other: str, others: Mapping[Site, Streams], *, one_map: bool) -> Iterator[AlignedCell]:
        """Every site and map of one pair."""
        train, test, sites = self.split.train, self.split.test, list(self.streams)
        for how in MAPS:
            rows = self.split.dealt if how == "shuffled" else train
            together: list[list[Site]] = [sites] if one_map else [[site] for site in sites]
            fitted: dict[Site, Alignment] = {}
            for group in together:
                found = _fit([others[site][rows] for site in group], [self.streams[site][train] for site in group])
                fitted |= dict(zip(group, found, strict=True))
            for site in sites:
                alignment = fitted[site]
                if how == "identity":
                    eye = torch.eye(len(alignment.rotation), dtype=torch.float64)
                    alignment = Alignment(eye, 1.0, alignment.mean, alignment.target_mean)
                own, mapped = self.streams[site].double(), alignment.apply(others[site])
                mean = alignment.target_mean
                majority = [np.bincount(self.truth[train, place]).argmax() for place in range(self.truth.shape[1])]
                yield AlignedCell(
                    model=name,
                    other=other,
                    site=site,
                    map=how,
                    error=(own - mapped)[test].square().sum(dim=(1, 2)).numpy(),
                    spread=(own - mean)[test].square().sum(dim=(1, 2)).numpy(),
                    correct=self._read(site, mapped),
                    home_correct=self._read(site, own),
                    follows=self._follows(site, mapped),
                    home_follows=self._follows(site, own),
                    chance=float((self.truth[test] == np.array(majority)).mean()),
                    scale=alignment.scale,
                    n_train=len(train),
                )

    def _read(self, site: Site, stream: Streams) -> Float[np.ndarray, "test place"]:
        rows = self.split.test
        answers = [probe.predict(stream[rows, place].float()) for place, probe in enumerate(self.probes[site])]
        return np.asarray(np.stack(answers, axis=1) == self.truth[rows.numpy()], dtype=np.float64)

    def _follows(self, site: Site, stream: Streams) -> Float[np.ndarray, "test place"]:
        """Given the state of the donor at one place, whether the next symbol is the donor's."""
        test, donor = self.split.test, self.split.donor
        tokens, found = self.batch.tokens[test], []
        rows = torch.arange(len(test))
        for place in range(self.positions.shape[1]):
            at, given = self.positions[test, place], self.positions[donor, place]
            own, wanted = tokens[rows, at + 1].cpu(), self.batch.tokens[donor, given + 1].cpu()
            value = stream[donor, place].float().to(tokens.device)
            edit = Edit(site, value, at, expect_change=False)
            written = run_with(self.model, tokens, [edit])[rows, at].argmax(dim=-1).cpu()
            found.append(torch.where(own != wanted, (written == wanted).double(), torch.nan))
        return rearrange(torch.stack(found), "place test -> test place").numpy()
