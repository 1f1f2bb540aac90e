"""Which circuit carries a change to the answer, and does it pass its tests, stay, transfer, and stand without rivals?

For each reference model that writes its reasoning out and each pair of `cotinterp.studies.protocol.standard_pairs`, a
circuit is chosen on half of the problems: the fewest first edges, by exact patching, that keep WANTED of the effect,
less those that a greedy search finds idle. On the other half it is held to the tests of Shi et al. 2024 (arXiv
2410.13032) and set beside rivals: random circuits, swaps of one edge, as many first edges of other rankings and of an
untrained model. It is taken to other lengths and pairs. Stability is that of the ranking over draws of the problems.

    python -m analyses.circuit_validity [--quick]
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from analyses.publishing import publish, reference_runs
from cotinterp import Contrast, Subject
from cotinterp.cli.parsing import script
from cotinterp.mechanism.circuits import Edge, edge_scores, faithfulness_curve, greedy_circuit
from cotinterp.mechanism.circuits.rivals import rival_census
from cotinterp.mechanism.circuits.stability import circuit_stability, circuit_transfer
from cotinterp.mechanism.circuits.validity import circuit_validity
from cotinterp.mechanism.model import HookedModel
from cotinterp.results import Result
from cotinterp.studies.protocol import standard_pairs

WANTED, TOLERANCE, SIZES = 0.95, 0.005, (10, 20, 50, 100)


def main(quick: bool = False, root: Path = Path("checkpoints"), out: Path = Path("out/circuit_validity")) -> list[str]:
    """Measure, publish, and return the answer in words."""
    tables: dict[str, list[pd.DataFrame]] = {}
    figures, lines = dict[str, go.Figure](), list[str]()
    for run in reference_runs(root, tasks=("s3",) if quick else ("digit-sum", "s3"), regimes=("cot",)):
        subject = Subject.of_run(run)
        for name, pairs in list(standard_pairs(subject, 12 if quick else 48, k=4).items())[: 1 if quick else None]:
            found = held(subject, Contrast.from_pairs(pairs), others_of(subject, quick=quick), quick=quick)
            lines += answer(f"{run.task.name}, {pairs.family} {pairs.step}, read at {pairs.readout[0]}", found)
            for table, result in found.items():
                tables.setdefault(table, []).append(result.frame().assign(pair=name))
                figures[f"{table}_{run.spec.slug}_{name}"] = result.figure()
    joined = {name: pd.concat(parts) for name, parts in tables.items()}
    return publish(out, tables=joined, figures=figures, answer=lines)


def others_of(subject: Subject, *, quick: bool) -> dict[str, Contrast]:
    """The declared pairs at every length that has them, by name."""
    lengths = (4,) if quick else (3, 4, 5, 6)
    made = {k: standard_pairs(subject, 6 if quick else 24, k=k) for k in lengths if k <= subject.k_asked[1]}
    return {f"{name}, k = {k}": Contrast.from_pairs(pairs) for k, of in made.items() for name, pairs in of.items()}


def held(subject: Subject, contrast: Contrast, others: Mapping[str, Contrast], *, quick: bool) -> dict[str, Result]:
    """The circuit of one contrast, chosen on one half of its examples and tested on the other."""
    model, labels, half = subject.model, subject.labels, len(contrast) // 2
    known, new = contrast.select(slice(half)), contrast.select(slice(half, None))
    scores = edge_scores(model, known)
    curve = faithfulness_curve(model, known, scores).frame()
    first = scores.top(int(curve.loc[curve["faithfulness"] >= WANTED, "size"].iloc[0]))
    order = [edge for edge in scores.ordered()[::-1] if edge in first]
    circuit = greedy_circuit(model, known, order=order, start=first, tolerance=0.1 if quick else TOLERANCE)
    ranked = {"noise": scores, "denoise": edge_scores(model, known, direction="denoise")}
    ranked["eap-ig"] = edge_scores(model, known, method="eap-ig")
    n = 3 if quick else 100

    def first_edges(other: HookedModel, contrast: Contrast) -> frozenset[Edge]:
        return edge_scores(other, contrast, require_gap=False).top(len(circuit))

    rivals = {name: one.top(len(circuit)) for name, one in ranked.items()}
    untrained = [] if subject.untrained is None else [subject.untrained]
    runs = {name: ranked[name].per_example for name in ("noise", "eap-ig")}
    return {
        "validity": circuit_validity(model, new, circuit, n_random=2 if quick else 99, labels=labels),
        "stability": circuit_stability(runs, scores.edges, sizes=SIZES, n_pairs=5 if quick else 50, labels=labels),
        "transfer": circuit_transfer(model, others, circuit, n_random=2 if quick else 19, labels=labels),
        "rivals": rival_census(
            model, new, circuit, rivals, n_random=n, n_swaps=n, untrained=untrained, find=first_edges, labels=labels
        ),
    }


def answer(name: str, found: Mapping[str, Result]) -> Iterator[str]:
    """One line for each of the four questions."""
    tests, stable, moved, rivals = (found[key].frame() for key in ("validity", "stability", "transfer", "rivals"))
    words = (f"{row.test} {'passes' if row.passes else 'FAILS'} (p {row.p_adjusted:.2g})" for row in tests.itertuples())
    yield f"{name}: a circuit of {moved['size'].iloc[0]} edges: {', '.join(words)}"
    draws = stable[(stable["comparison"] == "draws") & (stable["run"] == "noise")]
    yield "    first edges shared by two draws: " + ", ".join(
        f"{row.jaccard:.2f} of {row.size} (chance {row.chance:.2f})" for row in draws.itertuples()
    )
    yield "    share of the gap kept: " + "; ".join(
        f"{row.contrast} {row.faithfulness:.2f}" for row in moved.itertuples()
    )
    yield "    equivalent: " + ", ".join(f"{row.rival} {row.passing} of {row.tried}" for row in rivals.itertuples())


if __name__ == "__main__":
    script(main, __doc__)
