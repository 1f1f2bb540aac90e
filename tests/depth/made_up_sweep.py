"""A sweep's tidy table that nobody measured: direct solves a length more with each layer, cot solves all of them."""

from collections.abc import Iterable, Sequence

import pandas as pd

from cotinterp.models.spec import ModelSpec
from cotinterp.results.intervals import wilson
from cotinterp.tasks import get_task
from cotinterp.transcripts.vocabulary import Vocabulary


def made_up_sweep(
    tasks: Sequence[str] = ("s3",),
    *,
    direct: Sequence[int] = (1, 2, 3, 4),
    cot: Sequence[int] = (1, 2),
    seeds: Sequence[int] = (0, 1),
    steps: Sequence[int] = (1000,),
    k_max: int = 8,
    n: int = 300,
) -> pd.DataFrame:
    """SWEEP_COLUMNS, both splits. More updates solve one length more; every second seed is a little worse."""
    rows: list[dict[str, object]] = []
    for task in tasks:
        for regime, depths in (("direct", direct), ("cot", cot)):
            for n_layers in depths:
                for seed in seeds:
                    for number, budget in enumerate(steps):
                        solved = k_max if regime == "cot" else n_layers + 1 + number
                        rows += _run(task, regime, n_layers, seed, budget, solved, k_max, n)
    return pd.DataFrame(rows)


def _run(
    task: str, regime: str, n_layers: int, seed: int, steps: int, solved: int, k_max: int, n: int
) -> Iterable[dict[str, object]]:
    model = ModelSpec(n_layers=n_layers, d_model=64, n_heads=4, d_mlp=256, n_ctx=128)
    run = {
        "slug": f"{task}-{regime}-L{n_layers}-s{seed}-{steps:08d}",
        **{"task": task, "regime": regime, "run_seed": seed, "n_layers": n_layers, "d_model": 64, "n_heads": 4},
        **{"d_mlp": 256, "n_ctx": 128, "n_parameters": model.n_parameters(len(Vocabulary.of(get_task(task))))},
        **{"steps": steps, "batch_size": 64, "lr": 1e-3, "n_train": 100_000, "k_min": 2, "k_max": k_max},
        **{"start_from": "", "schedule": "", "architecture": "", "ended": "", "status": "finished", "error": ""},
        "step": steps,
        **{"loss_mid": 0.5, "loss_end": 0.49},
    }
    for split in ("heldout", "train"):
        for k in range(2, k_max + 1):
            share = 0.99 - 0.02 * (seed % 2) if k <= solved else max(0.2, 0.8 - 0.15 * (k - solved))
            correct = round(n * share)
            low, high = wilson(correct, n)
            measured = {"n": n, "correct": correct, "accuracy": correct / n, "ci_low": low, "ci_high": high}
            yield {**run, "split": split, "reading": "answer", "k": k, **measured}
