"""The rules of analyses.rewards on tables whose answers are known."""

import pandas as pd
import pytest

from analyses.rewards import broke, rescued


def table(base, rewards, *, seeds=3, traces=1.0):
    """Greedy accuracy of bases and rewarded runs by share; twins are as good as their bases."""
    rows = []
    for seed in range(seeds):
        for phase, right in (("base", base), ("rewards", rewards), ("twin", base)):
            for share, value in right.items():
                of = {"task": "parity", "share": share, "phase": phase, "run_seed": seed, "right": value + seed / 1000}
                rows += [of | {"decoding": "greedy"}, of | {"decoding": "sample", "right_with": traces}]
    return pd.DataFrame(rows)


PUBLISHED = {0.1: 0.5, 0.3: 0.52, 0.4: 0.97, 0.6: 0.99}


@pytest.mark.parametrize(("base", "given", "word"), [
    (PUBLISHED, {}, "agrees"),
    (PUBLISHED | {0.3: 0.95}, {}, "differs"),
    (PUBLISHED | {0.4: 0.55}, {}, "differs"),
    (PUBLISHED | {0.3: 0.75}, {}, "cannot tell"),
    (PUBLISHED, {"seeds": 2}, "cannot tell"),
    (PUBLISHED, {"traces": 0.7}, "cannot tell"),
])  # fmt: skip
def test_where_next_token_training_breaks(base, given, word):
    assert broke(table(base, base, **given)).endswith(f": {word}")


@pytest.mark.parametrize(("rewards", "given", "word"), [
    ({0.1: 0.5, 0.3: 0.98}, {}, "agrees, at 0.3"),
    ({0.1: 0.5, 0.3: 0.52}, {}, "differs"),
    ({0.1: 0.5, 0.3: 0.8}, {}, "cannot tell"),
    ({0.1: 0.5, 0.3: 0.98}, {"seeds": 2}, "cannot tell"),
])  # fmt: skip
def test_whether_reward_rescues(rewards, given, word):
    assert rescued(table(PUBLISHED, PUBLISHED | rewards, **given)).endswith(f": {word}")
