"""How ours and the peer grow with K, layers, d_model and batch: the same comparisons, one size changed at a time.

The models are untrained. That matters for decoding alone, where no guess is right: `verified_greedy` then shows its
worst case.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import plotly.graph_objects as go
import torch

from benchmarks.comparison import Comparison, Rates
from benchmarks.decoding import greedy_decoding
from benchmarks.measurement import Measurement, measured
from benchmarks.patching import RESID_PRE, patched, sweep_comparison
from benchmarks.probes import probe_comparison
from benchmarks.training import PEERS, training_step
from benchmarks.workload import Workload, probed_batches, untrained_workload
from cotinterp.figures.sheet import BLUE, GRAY, VERMILLION, grid
from cotinterp.models.spec import ModelSpec
from cotinterp.results import write_atomic
from cotinterp.tasks import get_task
from cotinterp.training.spec import OptimizerSpec, RunSpec
from cotinterp.transcripts.render import longest_transcript


@dataclass(frozen=True, kw_only=True)
class Size:
    """One size of everything: operands, model, and how many examples a work has.

    Attributes:
        batch: Transcripts of a training step, problems to decode; a quarter of it are the pairs of a sweep.
        rows: Transcripts that are probed.
    """

    k: int = 5
    layers: int = 4
    d_model: int = 128
    batch: int = 64
    rows: int = 800

    def workload(self, device: torch.device) -> Workload:
        """An untrained model of this size that writes sums of k digits out."""
        task = get_task("digit-sum")
        model = ModelSpec(
            n_layers=self.layers,
            d_model=self.d_model,
            d_mlp=4 * self.d_model,
            n_ctx=longest_transcript(task, self.k, "cot") + 8,
        )
        optimizer = OptimizerSpec(batch_size=self.batch)
        spec = RunSpec(
            task=task.name, regime="cot", k_min=self.k, k_max=self.k, n_train=512, model=model, optimizer=optimizer
        )
        return untrained_workload(spec, device)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What is changed, and the sizes; `of` is the number on the axis, by work."""

    name: str
    sizes: tuple[Size, ...]
    of: Callable[[Size, str], int]


def axes(base: Size, factors: Sequence[float] = (0.5, 1, 2), ks: Sequence[int] = (3, 5, 8)) -> tuple[Axis, ...]:
    """Layers, d_model and probed rows by these factors of the base, the batch by their squares; K as given."""
    grown = {
        "K": [replace(base, k=k) for k in ks],
        "layers": [replace(base, layers=round(base.layers * f)) for f in factors],
        "d_model": [replace(base, d_model=round(base.d_model * f)) for f in factors],
        "batch": [replace(base, batch=round(base.batch * f**2), rows=round(base.rows * f)) for f in factors],
    }
    read: Mapping[str, Callable[[Size, str], int]] = {
        "K": lambda size, _: size.k,
        "layers": lambda size, _: size.layers,
        "d_model": lambda size, _: size.d_model,
        "batch": lambda size, work: size.rows if work == "probes" else size.batch,
    }
    return tuple(Axis(name=name, sizes=tuple(sizes), of=read[name]) for name, sizes in grown.items())


@dataclass(frozen=True, kw_only=True)
class Point:
    """One entry of benchmark_growth.json: what was grown and to what, and the measurement there."""

    kind: str
    axis: str
    size: int
    measurement: Measurement


def _training(size: Size, device: torch.device) -> Comparison:
    return training_step(size.workload(device).spec, device, next(iter(PEERS)), "fp32")


def _greedy(size: Size, device: torch.device) -> Comparison:
    workload = size.workload(device)
    batch = workload.batch(workload.heldout(size.batch, k=size.k))
    return greedy_decoding(workload, batch, f"greedy decoding of {len(batch)} problems, untrained model")


def _resid_pre(size: Size, device: torch.device) -> Comparison:
    workload = size.workload(device)
    return sweep_comparison(workload, RESID_PRE, patched(workload, max(1, size.batch // 4), size.k), peer_sequences=640)


def _probes(size: Size, device: torch.device) -> Comparison:
    workload = size.workload(device)
    return probe_comparison(workload, *probed_batches(workload, size.rows, size.k), peer_probes=8)


KINDS: Mapping[str, Callable[[Size, torch.device], Comparison]] = {
    "training": _training,
    "greedy": _greedy,
    "resid_pre": _resid_pre,
    "probes": _probes,
}


def growth(
    grown: Sequence[Axis],
    rates: Rates,
    device: torch.device,
    *,
    repeats: int = 3,
    kinds: Sequence[str] = tuple(KINDS),
) -> Iterator[Point]:
    """Each of `kinds` at every size; a size that stands on several axes is measured once."""
    for kind in kinds:
        known: dict[Size, Measurement] = {}
        for axis in grown:
            for size in axis.sizes:
                if size not in known:
                    known[size] = measured(KINDS[kind](size, device), rates, repeats=repeats, fewest=1, limit_s=10)
                yield Point(kind=kind, axis=axis.name, size=axis.of(size, kind), measurement=known[size])


def write_growth(path: Path, points: Sequence[Point]) -> Path:
    """A JSON list: kind, axis and size in front of the fields of the measurement."""
    rows = [{"kind": x.kind, "axis": x.axis, "size": x.size, **asdict(x.measurement)} for x in points]
    return write_atomic(path, json.dumps(rows, indent=1, allow_nan=False) + "\n")


TITLES = {"training": "training step", "greedy": "greedy decoding", "resid_pre": "resid_pre sweep", "probes": "probes"}
AXES = {"K": "operands (K)", "layers": "layers", "d_model": "d_model", "batch": "batch (probes: rows)"}
SIDES = (("ours", BLUE, "circle", "solid"), ("theirs", VERMILLION, "square", "dash"), ("floor", GRAY, "x", "dot"))
NAMES = {"ours": "cotinterp", "theirs": "peer", "floor": "matmul floor"}


def growth_figure(points: Sequence[Point]) -> go.Figure:
    """Both axes are logarithmic: a line of slope 1 grows in proportion. ValueError where there is nothing to draw."""
    if not points:
        raise ValueError("no points of growth to draw")
    kinds, axes = (list(dict.fromkeys(names)) for names in ((x.kind for x in points), (x.axis for x in points)))
    titles = [TITLES.get(kind, kind) for kind in kinds for _ in axes]
    figure = grid(
        titles,
        title="Time against size, both logarithmic: cotinterp, the peer, and the matrix products alone",
        columns=len(axes),
        heights=[180] * len(kinds),
        gap=70,
        below=90,
        between=0.07,
    )
    for row, kind in enumerate(kinds, start=1):
        for column, axis in enumerate(axes, start=1):
            here = sorted((x for x in points if (x.kind, x.axis) == (kind, axis)), key=lambda x: x.size)
            sizes = [x.size for x in here]
            for side, color, symbol, dash in SIDES:
                figure.add_trace(_line(here, side, color, symbol, dash, row == column == 1), row, column)
            figure.update_xaxes(type="log", tickvals=sizes, ticktext=[str(x) for x in sizes], row=row, col=column)
            figure.update_xaxes(title=AXES.get(axis, axis), title_standoff=4, row=row, col=column)
    figure.update_yaxes(type="log", showgrid=True, dtick=1, exponentformat="power")
    figure.update_yaxes(title="ms", col=1)
    legend = {"orientation": "h", "y": 0, "yref": "container", "yanchor": "bottom", "x": 0}
    return figure.update_layout(legend=legend)


def _line(points: Sequence[Point], side: str, color: str, symbol: str, dash: str, legend: bool) -> go.Scatter:
    values = [getattr(x.measurement, side) for x in points]
    return go.Scatter(
        x=[x.size for x in points],
        y=values,
        mode="lines+markers",
        name=NAMES[side],
        legendgroup=side,
        showlegend=legend,
        line={"color": color, "dash": dash, "width": 2},
        marker={"symbol": symbol, "size": 8},
        customdata=[[x.measurement.work, x.measurement.ratio] for x in points],
        hovertemplate=f"%{{customdata[0]}}<br>{NAMES[side]}: %{{y:.3g}} ms<br>ratio %{{customdata[1]:.1f}}",
    )
