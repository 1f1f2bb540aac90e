"""The works by name, in the order of the table."""

from collections.abc import Callable, Iterator, Mapping

from benchmarks.comparison import Comparison
from benchmarks.greedy import greedy_decodings
from benchmarks.patching import head_sweeps, resid_pre_sweeps
from benchmarks.path_patching import path_sweeps
from benchmarks.probes import probe_sweeps
from benchmarks.sampled import sampled_decodings
from benchmarks.start_up import start_ups
from benchmarks.subjects import Amounts, Subject
from benchmarks.training_step import training_steps

WORKS: Mapping[str, Callable[[Subject, Amounts], Iterator[Comparison]]] = {
    "training": training_steps,
    "greedy": greedy_decodings,
    "sampled": sampled_decodings,
    "resid_pre": resid_pre_sweeps,
    "heads": head_sweeps,
    "paths": path_sweeps,
    "probes": probe_sweeps,
    "start-up": start_ups,
}


def chosen_works(only: tuple[str, ...]) -> tuple[str, ...]:
    """`only`, or all of them. KeyError for a name that is no work."""
    unknown = [name for name in only if name not in WORKS]
    if unknown:
        raise KeyError(f"no works {unknown}; there are {list(WORKS)}")
    return only or tuple(WORKS)
