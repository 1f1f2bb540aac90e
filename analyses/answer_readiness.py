"""When is the answer known, and what becomes of it once a wrong total is written?

P(true answer) after each written total (after Lanham et al. 2023, arXiv 2307.13702): of the true trace, of one with a
wrong total at its first step from which the later ones follow, and of another problem's. `free`: the model writes the
rest of the trace itself. `forced`: the trace is closed there, which the model was never shown. Then
log P(answer | problem), summed over the model's own traces by importance sampling, against the same given the trace
that it writes, and what its own wrong totals lead to.

    python -m analyses.answer_readiness [--quick]
"""

from pathlib import Path

import numpy as np
import pandas as pd

from analyses.publishing import publish, reference_runs
from cotinterp import Problem, answer_readiness, sample_problems
from cotinterp.behavior.marginal import answer_marginal
from cotinterp.cli.parsing import script
from cotinterp.training.checkpoints import Run


def main(quick: bool = False, root: Path = Path("checkpoints"), out: Path = Path("out/answer_readiness")) -> list[str]:
    """Measure, publish, and return the answer in words."""
    n, n_traces = (8, 2) if quick else (200, 16)
    curves, marginals, figures = [], [], {}
    for run in reference_runs(root, regimes=("cot",)):
        about = (run.model, run.task, run.spec.regime, asked(run, n))
        curve = answer_readiness(*about, rng=np.random.default_rng(0), n_traces=n_traces, run_seed=run.spec.seed)
        carried = answer_marginal(*about, rng=np.random.default_rng(1), n_traces=n_traces, run_seed=run.spec.seed)
        curves.append(curve.frame())
        marginals.append(carried.frame())
        figures[f"answer_readiness_{run.spec.task}"] = curve.figure()
        figures[f"answer_marginal_{run.spec.task}"] = carried.figure()
    tables = {"answer_readiness": pd.concat(curves), "answer_marginal": pd.concat(marginals)}
    return publish(out, tables=tables, figures=figures, answer=[*readiness_lines(tables), *marginal_lines(tables)])


def asked(run: Run, n: int) -> tuple[Problem, ...]:
    """Held-out problems of four operands and of the most that the run was trained on."""
    rng = np.random.default_rng(0)
    lengths = sorted({min(max(4, run.spec.k_min), run.spec.k_max), run.spec.k_max})
    return tuple(problem for k in lengths for problem in sample_problems(run.task, k, n, split="heldout", rng=rng))


def readiness_lines(tables: dict[str, pd.DataFrame]) -> list[str]:
    """One line a run, number of operands and trace: P(true answer) after each total, the rest written by the model."""
    free = tables["answer_readiness"].query("answered == 'free'")
    lines = []
    for (task, k, trace), rows in free.groupby(["task", "k", "trace"], sort=False):
        points = ", ".join(f"{p:.3f}" for p in rows.sort_values("step")["probability"])
        last = rows.sort_values("step")["followed"].iloc[-1]
        followed = "" if pd.isna(last) else f"; at the end P(what follows from the edit) {last:.3f}"
        lines.append(f"{task} cot, K={k}, {trace} trace: P(true answer) after 0.. totals {points}{followed}")
    return lines


def marginal_lines(tables: dict[str, pd.DataFrame]) -> list[str]:
    """One line a run and number of operands: what its own trace adds, and what its own wrong totals lead to."""
    lines = []
    for row in tables["answer_marginal"].to_dict("records"):
        wrong = f"{row['wrong_share']:.1%} of its own traces hold a wrong total"
        if row["n_wrong"]:
            wrong += (
                f"; P(answer is the last total) {row['wrong_followed']:.3f} in {row['n_wrong']} that end on a wrong one"
            )
        lines.append(
            f"{row['task']} cot, K={row['k']}: log P(answer | problem) {row['marginal']:.4f}, given its own trace "
            f"{row['own']:.4f}, carried {row['carried']:.4f} nats "
            f"[{row['carried_low']:.4f}, {row['carried_high']:.4f}]; {wrong}"
        )
    return lines


if __name__ == "__main__":
    script(main, __doc__)
