"""Which part of the circuit of a task is the same in every seed?

Heads have no names that two seeds share, so edges are taken together by the layer and kind of their ends: all edges
from heads of the first layer into its MLP are `L0 heads->L0.mlp`. Each such group is corrupted at once, all others
carry what they do in the clean run: 0 where nothing goes that way, 1 where all of the difference does (noising; another
group may stand in for it). Pairs are those of `cotinterp.studies.protocol.standard_pairs` at four operands. Beside it
what the groups keep together that matter at every seed. Means over seeds with 95% intervals by Student's t.

    python -m analyses.circuit_seeds [--quick] [--table FILE]
    cotinterp sweep analyses/grids/circuit_seeds.toml --root ROOT; python -m analyses.circuit_seeds --root ROOT
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pandas as pd

from analyses.publishing import of_each_run, over_seeds, publish
from cotinterp import Contrast, Subject
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.mechanism.circuits import Edge, Graph, kept_metrics
from cotinterp.mechanism.metrics import normalized_effects
from cotinterp.studies.protocol import standard_pairs
from cotinterp.training.checkpoints import Run

NAME, K, LEAST = "circuit_seeds", 4, 0.1
"""Of the script and its grid; operands; the share of the difference from which a group matters."""
KEYS = ["task", "regime", "pair"]


def main(
    quick: bool = False,
    root: Path | None = None,
    table: Path | None = None,
    problems: int = 64,
    out: Path = Path("out/circuit_seeds"),
) -> list[str]:
    """Measure the runs under `root`, or read `table`, publish, and return the answer in words; `quick`: tiny runs."""
    found = of_each_run(NAME, measured, quick, root, table, problems)
    groups = found.groupby([*KEYS, "edges"], sort=False)["effect"]
    rows = [(*key, *over_seeds(of.to_numpy()), of.min(), of.max(), len(of)) for key, of in groups]
    means = pd.DataFrame(rows, columns=[*KEYS, "edges", "mean", "low", "high", "least", "most", "seeds"])
    groups_of = means.groupby(["task", "regime", "edges"])["most"].transform("max")
    shown = means[(groups_of >= LEAST) & (means["edges"] != "all of these")]
    drawn = partial(lines, x="edges", y="mean", low="low", high="high", color="pair", x_title="edges from -> to")
    told = "of the difference that is lost without these edges: mean and interval over seeds"
    figures = {
        f"circuit_seeds-{task}-{regime}": drawn(part, y_title="share", title=f"{task}, {regime}: share {told}")
        for (task, regime), part in shown.groupby(["task", "regime"], sort=False)
    }
    answer = [line for _, part in means.groupby(KEYS, sort=False) for line in in_words(part)]
    return publish(out, tables={"circuit_seeds": found, "means": means}, figures=figures, answer=answer)


def measured(run: Run, n: int) -> pd.DataFrame:
    """A row for each pair family and group of edges of one run; and what remains with the groups that matter alone."""
    subject, rows = Subject.of_run(run), list[tuple[object, ...]]()
    groups = grouped(Graph.of(run.model))
    every = frozenset(edge for group in groups.values() for edge in group)
    for name, pairs in standard_pairs(subject, n, k=K).items():
        contrast = Contrast.from_pairs(pairs)

        def lost(circuits: list[frozenset[Edge]], contrast: Contrast = contrast) -> list[float]:
            clean, corrupted, *kept = kept_metrics(run.model, contrast, [every, (), *circuits])
            return list(normalized_effects(clean - pd.DataFrame(kept).to_numpy(), clean - corrupted).effect)

        effects = dict(zip(groups, lost([every - group for group in groups.values()]), strict=True))
        kept = frozenset(edge for group, effect in effects.items() if effect >= LEAST for edge in groups[group])
        effects["all of these"] = 1 - lost([kept])[0]
        labels = subject.labels
        rows += [(*labels.values(), name, len(contrast), group, effect) for group, effect in effects.items()]
    return pd.DataFrame(rows, columns=[*subject.labels, "pair", "n", "edges", "effect"]).round(4)


def grouped(graph: Graph) -> Mapping[str, frozenset[Edge]]:
    """The edges by layer and kind of their ends."""
    found: dict[str, set[Edge]] = {}
    for edge in graph.edges:
        src, dest = (f"L{node.layer} heads" if node.kind == "head" else node.label for node in (edge.src, edge.dest))
        found.setdefault(f"{src}->{dest}{'.' + edge.input if edge.dest.kind == 'head' else ''}", set()).add(edge)
    return {name: frozenset(edges) for name, edges in found.items()}


def in_words(means: pd.DataFrame) -> Iterator[str]:
    """What matters at every seed, at some, and what all that matters keeps."""
    groups, rest = means[means["edges"] != "all of these"], means[means["edges"] == "all of these"].iloc[0]
    of = ", ".join(means[KEYS].iloc[0])
    told = {"at every seed": groups["least"] >= LEAST, "at some": (groups["least"] < LEAST) & (groups["most"] >= LEAST)}
    for word, chosen in told.items():
        part = groups[chosen].sort_values("mean", ascending=False)
        cells = [f"{one.edges} {one.mean:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in part.itertuples()]
        yield f"{of}, {word} of {rest['seeds']}: {'; '.join(cells) or 'none'}"
    yield f"{of}: those that matter in a model keep {rest['mean']:.2f} [{rest['low']:.2f}, {rest['high']:.2f}]"


if __name__ == "__main__":
    script(main, __doc__)
