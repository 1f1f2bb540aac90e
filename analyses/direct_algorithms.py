"""By which algorithm does a direct model combine its operands?

What attention brings to the end of the prompt, and what stands at operands, is rebuilt from variables of the task
(`mechanism.variables.rebuilding`); what keeps the answer is all that is needed there. To add in one average the first
attention brings operands one by one; to compose the second brings more, such as products of neighbors, or operands with
the sign of those before, by which a solvable group is folded in few layers (Krohn & Rhodes 1965; Liu et al. 2022, arXiv
2210.10749). Held-out problems, first symbol of the answer; two layers; means over seeds, 95% intervals by Student's t.

    python -m analyses.direct_algorithms [--quick] [--table FILE]
    cotinterp sweep analyses/grids/direct_algorithms.toml --root ROOT; python -m analyses.direct_algorithms --root ROOT
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from analyses.publishing import of_each_run, over_seeds, publish
from cotinterp import Site, Subject, sample_problems
from cotinterp.behavior.quotients import quotients
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.mechanism.variables.rebuilding import Account, rebuilt
from cotinterp.tasks.groups import S3
from cotinterp.training.checkpoints import Run

NAME, K, FITTED, ASKED = "direct_algorithms", 4, 3000, 250
"""Operands; problems of the training side to fit on, all there are where fewer exist; held-out ones."""
FIRST, SECOND, STREAM, END = Site("attn_out", 0), Site("attn_out", 1), Site("resid_pre", 1), ("prompt_end", -1)
ONE_BY_ONE, TOTALS = tuple(f"x_{i}" for i in range(K)), ("x_0", *(f"s_{i}" for i in range(1, K)))
NEIGHBORS = tuple(f"x_{i},x_{i + 1}" for i in range(K - 1))
PRODUCTS = (*ONE_BY_ONE, *(f"x_{i}..x_{j}" for i in range(K) for j in range(i + 1, K)))
SIGNS_FIRST = ("x_0", *(f"class({TOTALS[i - 1]}),x_{i}" for i in range(1, K)))
SIGNS_AFTER = (*(f"class(x_{i}{f'..x_{K - 1}' * (i < K - 1)}),x_{i - 1}" for i in range(1, K)), ONE_BY_ONE[-1])
SIGNED, KEPT, AHEAD = "s3", 0.9, 0.1
COLUMNS = ["task", "account", "seeds", "kept", "low", "high", "least", "most", "shuffled", "explained"]


def main(
    quick: bool = False, root: Path | None = None, table: Path | None = None, out: Path = Path(f"out/{NAME}")
) -> list[str]:
    """Measure the runs under `root`, or read `table`, publish, return the answer in words; `quick`: tiny runs."""
    found = of_each_run(NAME, measured, quick, root, table, ASKED)
    rows: list[tuple[object, ...]] = []
    for key, part in found.groupby(["task", "account"], sort=False):
        kept = part["kept"].to_numpy()
        rows.append((*key, len(part), *over_seeds(kept), kept.min(), kept.max(), *part[COLUMNS[-2:]].mean()))
    means = pd.DataFrame(rows, columns=COLUMNS)
    figure = lines(
        means, x="account", y="kept", low="low", high="high", color="task", bounds=(0, 1), x_title=" ",
        title="Answers that rebuilt activations keep: mean and interval over seeds", y_title="share of problems right",
    )  # fmt: skip
    return publish(out, tables={NAME: found}, figures={NAME: figure}, answer=[*said(means), *composed(found)])


def accounts(signs: bool) -> dict[str, Account]:
    """What stands where; `signs`: the states have classes that every step respects."""
    brought = {"nothing": (), "operands": ONE_BY_ONE, "neighbors": NEIGHBORS, "totals": TOTALS, "products": PRODUCTS}
    brought |= {"signs first": SIGNS_FIRST, "signs of those after": SIGNS_AFTER} if signs else {}
    each = [(f"second attention: {what}", (SECOND, of)) for what, of in brought.items()]
    for where, site in (("first attention", FIRST), ("behind the first block", STREAM)):
        each += [(f"{where}: operands", (site, ONE_BY_ONE)), (f"{where}: total", (site, TOTALS[-1:]))]
    found: dict[str, Account] = {name: {(site, END): of} for name, (site, of) in each}
    operators: Account = {(STREAM, ("operator", i)): () for i in range(1, K)}
    up_to = [tuple(x for x in PRODUCTS if int(x[-1]) <= i) for i in range(K)]
    for what, at in (("nothing", [()] * K), ("own", [(x,) for x in ONE_BY_ONE]), ("products up to it", up_to)):
        found[f"at the operands: {what}"] = {**operators, **{(STREAM, ("operand", i)): at[i] for i in range(K)}}
    return found


def measured(run: Run, n: int) -> pd.DataFrame:
    """A row for each account of a run, with how its training ended."""
    fitted = sample_problems(run.task, K, FITTED, split="train", rng=np.random.default_rng(0))
    asked = Subject.of_run(run).heldout(n, k=K)
    given = (run.model, run.task, "direct", fitted, asked, accounts(run.spec.task == SIGNED))
    result = rebuilt(*given, readout=("answer", K - 1), classes=quotients(S3())[0].of, labels=run.labels)
    return result.frame().round(4).assign(ended=run.metadata.get("ended", ""))


def said(means: pd.DataFrame) -> Iterator[str]:
    """A line for each account."""
    for one in means.itertuples():
        of = f"{one.kept:.2f} [{one.low:.2f}, {one.high:.2f}] (seeds {one.least:.2f} to {one.most:.2f})"
        yield f"{one.task}, {one.account}: {of}; dealt out anew {one.shuffled:.2f}; explains {one.explained:.2f}"


def composed(found: pd.DataFrame) -> Iterator[str]:
    """A line for each seed of the task with signs: which account keeps KEPT of the answers, AHEAD of the other."""
    rows = found[found["task"] == SIGNED].fillna({"ended": "?"})
    kept = rows.pivot(index=["run_seed", "ended"], columns="account", values="kept")
    both = kept[[f"second attention: {what}" for what in ("signs first", "products")]].to_numpy()
    for (seed, ended), (first, products) in zip(kept.index, both, strict=True):
        clear = max(first, products) >= KEPT and abs(first - products) >= AHEAD
        answer = ("signs first" if first > products else "products") if clear else "open"
        yield f"{SIGNED}, seed {seed} ({ended}): {answer}; signs first keep {first:.2f}, products {products:.2f}"


if __name__ == "__main__":
    script(main, __doc__)
