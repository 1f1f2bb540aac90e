"""`python -m benchmarks`: measure, print the table, write benchmark.json and what belongs to it."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from benchmarks.comparison import Comparison, Rates
from benchmarks.decoding import greedy_decodings, sampled_decodings
from benchmarks.edge_patching import edge_patchings
from benchmarks.growth import Point, Size, axes, growth, growth_figure, write_growth
from benchmarks.machine import computing_with, machine_facts, matmul_rates
from benchmarks.measurement import Measurement, measured, put_table, read_measurements, table, write_measurements
from benchmarks.patching import head_sweeps, resid_pre_sweeps
from benchmarks.path_patching import path_sweeps
from benchmarks.probes import probe_sweeps
from benchmarks.reproduction import checked_out, reproductions, updates
from benchmarks.rollouts import rollouts
from benchmarks.start_up import start_ups
from benchmarks.training import PRECISIONS, training_steps, whole_run
from benchmarks.workload import FULL, QUICK, Amounts, Workload, trained_workload
from cotinterp.figures import NamedFigure, write_figures
from cotinterp.models.build import resolve_device
from cotinterp.results import output_folder, write_atomic

WORKS: Mapping[str, Callable[[Workload, Amounts], Iterator[Comparison]]] = {
    "training": training_steps,
    "greedy": greedy_decodings,
    "sampled": sampled_decodings,
    "rollouts": rollouts,
    "resid_pre": resid_pre_sweeps,
    "heads": head_sweeps,
    "paths": path_sweeps,
    "edges": edge_patchings,
    "probes": probe_sweeps,
    "start-up": start_ups,
}


def chosen_works(only: tuple[str, ...]) -> tuple[str, ...]:
    """`only`, or all of them. KeyError for a name that is no work."""
    unknown = [name for name in only if name not in WORKS]
    if unknown:
        raise KeyError(f"no works {unknown}; there are {list(WORKS)}")
    return only or tuple(WORKS)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Ours against each peer, on the same work and in one run.

    Attributes:
        out: benchmark.json, benchmark_machine.json, benchmark_growth.json and the figure go here.
        run: Slug or path of the trained run that is used; by default the reference run that writes its sums out.
        root: Where checkpoints lie.
        quick: Small amounts and few repeats: a look, not a measurement.
        only: These works alone; all by default.
        threads: CPU threads of ours and of the peers; by default one for each core.
        repeats: Pairs of timings; fewer, but three, where they take more than a minute.
        device: cpu, cuda, ...
        growth: Also measure how the works grow with K, layers, d_model and batch; not with --only.
        whole_run: Also train the reference run in both ways (minutes).
        steps: Steps of that run.
        against: Also compare with this git revision: updates of small models in fp32 and, where --only is not given, in
            bf16 and `cotinterp reproduce --from-scratch` (many minutes).
        jobs: Processes of each.
        table: Measure nothing; print the table of this benchmark.json.
        into: Put that table into this page, between its two marks.
    """

    out: Path = Path("out")
    run: str | None = None
    root: Path = Path("checkpoints")
    quick: bool = False
    only: tuple[str, ...] = ()
    threads: int = os.cpu_count() or 1
    repeats: int = 7
    device: str = "cpu"
    growth: bool = True
    whole_run: bool = False
    steps: int = 2000
    against: str | None = None
    jobs: int = 2
    table: Path | None = None
    into: Path | None = None


def main(options: Options) -> list[Measurement]:
    """Measures what was asked for; the rows of benchmark.json. Each is written as soon as it is there."""
    if options.table is not None:
        rows = read_measurements(options.table)
        sys.stdout.write(table(rows) if options.into is None else f"{put_table(options.into, rows)}\n")
        return rows
    works, out = chosen_works(options.only), output_folder(options.out)
    device = resolve_device(options.device)
    workload = trained_workload(options.run, options.root, device)
    with computing_with(options.threads):
        rates = matmul_rates(device, size=512 if options.quick else 2048)
        facts = machine_facts(device, rates)
        write_atomic(out / "benchmark_machine.json", json.dumps(facts, indent=1) + "\n")
        rows = []
        for comparison in _comparisons(options, workload, works):
            rows.append(measured(comparison, rates, repeats=3 if options.quick else options.repeats))
            write_measurements(out / "benchmark.json", rows)
            sys.stderr.write(f"{rows[-1].work}: {rows[-1].ratio:.1f} x {rows[-1].peer}\n")
        if options.growth and not options.only:
            _grow(out, rates, device, quick=options.quick)
    sys.stdout.write(table(rows))
    return rows


def _comparisons(options: Options, workload: Workload, works: Sequence[str]) -> Iterator[Comparison]:
    amounts: Amounts = QUICK if options.quick else FULL
    for work in works:
        yield from WORKS[work](workload, amounts)
    if options.whole_run:
        yield whole_run(workload, amounts, options.steps)
    if options.against is not None:
        with checked_out(options.against) as earlier:
            yield from updates(earlier, PRECISIONS[:1] if options.only else PRECISIONS)
    if options.against is not None and not options.only:
        with reproductions(options.against, jobs=options.jobs, quick=options.quick) as comparison:
            yield comparison


def _grow(out: Path, rates: Rates, device: torch.device, *, quick: bool) -> list[Point]:
    sizes = axes(Size(k=3, layers=2, d_model=32, batch=8, rows=200), (1, 2), (3, 4)) if quick else axes(Size())
    points = list(growth(sizes, rates, device))
    write_growth(out / "benchmark_growth.json", points)
    write_figures([NamedFigure("benchmark_growth", growth_figure(points))], out)
    return points


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
