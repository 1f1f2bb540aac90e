"""Made-up sweep tables and frontiers for tests: what a run solves, written down."""

import pandas as pd

RUN = {
    **{"task": "s3", "regime": "direct", "run_seed": 0, "n_layers": 2, "d_model": 64, "n_heads": 4, "d_mlp": 256},
    **{"n_ctx": 128, "n_parameters": 100_000, "steps": 1000, "batch_size": 64, "lr": 1e-3, "n_train": 1000},
    **{
        "k_min": 2,
        "k_max": 12,
        "start_from": "",
        "schedule": "",
        "architecture": "",
        "ended": "",
        "status": "finished",
        "error": "",
        "step": 1000,
    },
    **{"loss_mid": 1.0, "loss_end": 0.5, "reading": "answer"},
}
ABSENT = {"split": "heldout", "k": -1, "n": 0, "correct": 0, "accuracy": float("nan")}


def run_rows(held, train=(), n=300, **changes):
    """The rows of one run: accuracy by K on held-out problems and on its own. No accuracies: not evaluated."""
    run = RUN | changes
    run.setdefault("slug", "{task}-{regime}-L{n_layers}-d{d_model}-s{run_seed}-{steps}".format(**run))
    rows = [
        run | {"split": split, "k": k, "n": n, "accuracy": accuracy, "correct": round(accuracy * n)}
        for split, by_k in (("heldout", held), ("train", train))
        for k, accuracy in dict(by_k).items()
    ]
    return rows or [run | ABSENT]


def reaching(frontier, ks=range(3, 13), convergence="fitted", **changes):
    """The rows of a run that solves the lengths up to `frontier`; `convergence` holds unless it solves all."""
    held = {k: 0.95 if k <= frontier else 0.4 for k in ks}
    train = {k: 1.0 for k in ks} if convergence == "fitted" else held
    return run_rows(held, train, **({"loss_end": 0.99} if convergence == "stalled" else {}), **changes)


def sweep(reach, *, depths=(1, 2, 3, 4), seeds=3, convergence="fitted", **changes):
    """A table with `seeds` runs at each depth, of which each solves up to `reach(depth, seed)`."""
    rows = []
    for depth in depths:
        for seed in range(seeds):
            rows += reaching(reach(depth, seed), convergence=convergence, n_layers=depth, run_seed=seed, **changes)
    return pd.DataFrame(rows)
