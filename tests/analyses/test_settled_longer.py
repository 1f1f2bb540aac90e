import pandas as pd

from analyses.settled_longer import kept, went_on


def runs(*rows):
    columns = ["task", "n_layers", "n_train", "run_seed", "ended", "step", "slug", "ratio", "train"]
    return pd.DataFrame([("s3", 1, *row[:4], f"run-{i}", row[4], 1.0) for i, row in enumerate(rows)], columns=columns)


def test_a_run_that_went_on_has_moved_unless_it_settled_at_four_times_its_updates():
    settled = runs(
        (1000, 0, "settled", 20_000, 0.0), (1000, 1, "settled", 20_000, 0.1), (1000, 2, "settled", 9000, 0.0)
    )
    others = runs((5000, 0, "budget", 60_000, 0.4), (20_000, 0, "settled", 30_000, 0.2))
    later = runs(
        (1000, 0, "settled", 80_000, 0.0),
        (1000, 1, "settled", 140_000, 0.7),
        (1000, 2, "budget", 36_000, 0.3),
        (5000, 0, "settled", 240_000, 0.9),
    )
    gone_on = went_on(pd.concat([settled, others]), later)
    assert gone_on["run_seed"].tolist() == [0, 1, 2]
    assert gone_on["moved"].tolist() == [False, True, True]
    lines = list(kept(gone_on))
    assert "ratio 0.10 after 20,000 updates, 0.70 after 140,000 (moved)" in lines[1]
    assert lines[-1] == "of 3 runs that had settled and went on, 2 moved"
    assert list(kept(gone_on.head(0))) == ["of 0 runs that had settled and went on, 0 moved"]
