"""How ours and the peer grow with K, layers, d_model and batch: the same comparisons, one size changed at a time.

The models are untrained. That matters for decoding alone, where no guess is right: `verified_greedy` then shows its
worst case.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from benchmarks.comparison import Comparison, Rates
from benchmarks.greedy import greedy_decoding
from benchmarks.measurement import Measurement, measured
from benchmarks.patching import RESID_PRE, patched, sweep_comparison
from benchmarks.probes import probe_comparison
from benchmarks.subjects import Subject, probed_batches, untrained_subject
from benchmarks.training_step import PEERS, training_step
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

    def subject(self, device: torch.device) -> Subject:
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
        return untrained_subject(spec, device)


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
    return training_step(size.subject(device).spec, device, next(iter(PEERS)), "fp32")


def _greedy(size: Size, device: torch.device) -> Comparison:
    subject = size.subject(device)
    batch = subject.batch(subject.heldout(size.batch, k=size.k))
    return greedy_decoding(subject, batch, f"greedy decoding of {len(batch)} problems, untrained model")


def _resid_pre(size: Size, device: torch.device) -> Comparison:
    subject = size.subject(device)
    return sweep_comparison(subject, RESID_PRE, patched(subject, max(1, size.batch // 4), size.k), peer_sequences=640)


def _probes(size: Size, device: torch.device) -> Comparison:
    subject = size.subject(device)
    return probe_comparison(subject, *probed_batches(subject, size.rows, size.k), peer_probes=8)


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
