"""The four families on models whose mechanism is known."""

import numpy as np
import pytest

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.patching.run_predictions import family_predictions
from cotinterp.models.handmade import reader, recomputer
from cotinterp.tasks import get_task
from cotinterp.transcripts.pair_families import pair_families
from cotinterp.transcripts.problems import sample_problems

Z6 = get_task("z6")


@pytest.fixture(scope="module")
def families():
    problems = sample_problems(Z6, 4, 30, split="heldout", rng=np.random.default_rng(0))
    made = pair_families(Z6, problems, "totals", step=2, rng=np.random.default_rng(0))
    return {family: Contrast.from_pairs(pairs) for family, pairs in made.items()}


@pytest.mark.parametrize(
    ("build", "source", "followed"),
    [(reader, "trace", {"written_total", "both"}), (recomputer, "prompt", {"prompt_operand", "both"})],
)
def test_each_follows_what_it_is_made_to_read(families, build, source, followed):
    result = family_predictions(build(Z6, "totals", (2, 4)), families, labels={"task": "z6"})
    frame = result.frame()
    assert result.source == source
    assert set(frame["source"]) == {source}
    assert set(frame["readout"]) == {"total 2"}
    shares = frame.pivot(index="family", columns="prediction", values="share")
    assert set(shares.index[shares["foil"] == 1]) == followed
    assert set(shares.index[shares["answer"] == 1]) == set(families) - followed
    assert (shares.sum(axis=1) == 1).all()
    assert (frame["n"] == len(families["both"])).all()
    assert len(result.figure().data) == 3


def test_a_missing_family_is_named(families):
    some = {family: contrast for family, contrast in families.items() if family != "unrelated"}
    with pytest.raises(KeyError, match="unrelated"):
        family_predictions(reader(Z6, "totals", (2, 4)), some)
