import pandas as pd
import pytest

from analyses.settled_longer import kept, went_on


def run(seed, ended, step, accuracy, n_train=1000, n=300):
    """Rows of a sweep's table: perfect on training problems, `accuracy` on held-out ones of two lengths."""
    labels = {"slug": f"run-{seed}-{step}", "task": "s3", "n_layers": 1, "n_train": n_train, "run_seed": seed}
    labels |= {"ended": ended, "step": step, "reading": "answer", "n": n}
    sides = [("train", k, 1.0) for k in (4, 5)] + [
        ("heldout", k, value) for k, value in zip((4, 5), accuracy, strict=True)
    ]
    return [labels | {"split": side, "k": k, "accuracy": value} for side, k, value in sides]


def table(*runs):
    return pd.DataFrame([row for rows in runs for row in rows])


def test_a_run_that_went_on_has_moved_where_a_length_changed_by_more_than_noise():
    settled = [run(seed, "settled", 20_000, (0.2, 0.2)) for seed in range(4)]
    later = [
        run(0, "budget", 80_000, (0.2, 0.24)),
        run(1, "budget", 80_000, (0.2, 0.4)),
        run(2, "budget", 60_000, (0.2, 0.9)),
        run(3, "solved", 100_000, (0.05, 0.2)),
    ]
    others = [run(0, "budget", 60_000, (0.4, 0.4), n_train=5000), run(0, "budget", 240_000, (0.9, 0.9), n_train=5000)]
    gone_on = went_on(table(*settled, *later, *others)).sort_values("run_seed")
    assert gone_on["run_seed"].tolist() == [0, 1, 3]
    assert gone_on["k"].tolist() == [5, 5, 4]
    assert gone_on["change"].tolist() == pytest.approx([0.04, 0.2, -0.15])
    assert gone_on["moved"].tolist() == [False, True, True]
    lines = list(kept(gone_on))
    assert "after 20,000 updates" in lines[1]
    assert "most at K = 5, +20.0 points (moved)" in lines[1]
    assert lines[-1] == "of 3 runs that had settled and went on, 2 moved"


def test_few_held_out_problems_must_change_by_more():
    found = [
        went_on(table(run(0, "settled", 100, (0.2, 0.2), n=n), run(0, "budget", 400, (0.2, 0.3), n=n)))
        for n in (30, 300)
    ]
    assert [bool(one["moved"].iloc[0]) for one in found] == [False, True]
    assert list(kept(went_on(table(run(0, "settled", 100, (0.2, 0.2)))))) == [
        "of 0 runs that had settled and went on, 0 moved"
    ]
