"""Labels, features, groups and splits of every kind a caller has: taken alike everywhere, or refused by name."""

from functools import partial

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import torch

from cotinterp.mechanism.probing.controls import Controls, hold_out
from cotinterp.mechanism.probing.coordinates import Coordinate
from cotinterp.mechanism.probing.fit import Target, fit_probes
from cotinterp.mechanism.probing.linear_probe import ProbedAt, fit_probe
from cotinterp.mechanism.probing.rows import feature_rows, row_groups, whole_labels
from cotinterp.mechanism.probing.solver import FitOptions
from cotinterp.mechanism.probing.transfer import ReadAt, transfer_matrix

N = 80
TRUTH = np.arange(N) % 3
ROWS = torch.eye(3)[TRUTH] + 0.1 * torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
TRAIN = hold_out(np.arange(N))


@pytest.fixture(autouse=True)
def as_a_user():
    """Without the type checks that only the tests have: they would answer first, in their own words."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def transferred(rows, truth):
    return transfer_matrix([ReadAt(at=ProbedAt(site="here"), target="t", features=rows, truth=truth)], TRAIN)


ENTRANCES = {
    "fit_probe": lambda rows, truth: fit_probe(rows, truth).predict(ROWS),
    "fit_probes": lambda rows, truth: fit_probes({"here": rows}, {"t": truth}, TRAIN).cells[0].predicted,
    "fit_probes, Target": lambda rows, truth: (
        fit_probes({"here": rows}, {"t": Target(truth=truth)}, TRAIN).cells[0].predicted
    ),
    "transfer_matrix": lambda rows, truth: transferred(rows, truth).cells[0].predicted,
}
LABELS = {
    "list": np.ndarray.tolist,
    "torch": torch.from_numpy,
    "int8": lambda truth: truth.astype(np.int8),
    "uint64": lambda truth: truth.astype(np.uint64),
    "whole floats": lambda truth: truth.astype(np.float32),
    "bfloat16": lambda truth: torch.from_numpy(truth).bfloat16(),
    "objects": lambda truth: truth.astype(object),
    "Series with another index": lambda truth: pd.Series(truth, index=np.arange(len(truth))[::-1]),
}
FEATURES = {
    "numpy": torch.Tensor.numpy,
    "list": torch.Tensor.tolist,
    "DataFrame": lambda rows: pd.DataFrame(rows.numpy()),
    "with gradient": lambda rows: rows.clone().requires_grad_(),
    "float64": torch.Tensor.double,
    "half": torch.Tensor.half,
    "bfloat16": torch.Tensor.bfloat16,
}


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_every_kind_of_label_and_of_feature_is_taken_alike(entrance):
    ask = ENTRANCES[entrance]
    expected = ask(ROWS, TRUTH)
    for name, make in LABELS.items():
        assert (ask(ROWS, make(TRUTH)) == expected).all(), name
    for name, make in FEATURES.items():
        assert (ask(make(ROWS), TRUTH) == expected).mean() > 0.98, name
    assert set(np.unique(ask(ROWS, TRUTH == 1))) == {0, 1}
    assert set(np.unique(ask(ROWS, 10 * TRUTH - 7))) == {-7, 3, 13}, "any whole numbers name classes"


def spoiled(rows, where, value):
    changed = rows.clone() if isinstance(rows, torch.Tensor) else rows.astype(float)
    changed[where] = value
    return changed


TESTED = int(np.flatnonzero(~TRAIN)[0])
BAD = {
    "fractions": (ROWS, TRUTH + 0.5, "0.5 was given in row 0, one of 80 that are no whole numbers.*into classes"),
    "NaN label in the test": (ROWS, spoiled(TRUTH, TESTED, np.nan), f"nan was given in row {TESTED}, one of 1"),
    "text": (ROWS, TRUTH.astype(str), "was given, such as '0'.*np.unique"),
    "objects": (ROWS, np.array(["a", 1] * 40, dtype=object), "was given, such as 'a'"),
    "a column": (ROWS, TRUTH[:, None], r"shape \(80, 1\) was given. Wanted is one whole number for each"),
    "too few labels": (ROWS, TRUTH[:-1], r"shape \(79,\) was given"),
    "one class": (ROWS, np.zeros(N), r"1 class\(es\) \[0\]"),
    "NaN in the test": (spoiled(ROWS, TESTED, torch.nan), TRUTH, f"1 of 80 rows hold NaN.*row {TESTED}"),
    "infinite in the test": (spoiled(ROWS, TESTED, torch.inf), TRUTH, "hold NaN or infinite features"),
    "a vector": (ROWS[:, 0], TRUTH, r"features.*: shape \(80,\) was given"),
    "complex": (ROWS.to(torch.complex64), TRUTH, r"features.*: shape"),
    "words": ([["a"] * 3] * N, TRUTH, "features.*: a list was given"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_what_is_no_label_and_no_feature_is_refused_in_every_row(entrance, bad):
    rows, truth, message = BAD[bad]
    with pytest.raises(ValueError, match=message):
        ENTRANCES[entrance](rows, truth)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (np.flatnonzero(TRAIN), "train: int64 of shape .*np.isin"),
        (TRAIN.astype(int), "train: int64.*a mask of True and False for 80 rows"),
        (np.ones(N, dtype=bool), "train: all of 80 rows"),
        (np.zeros(N, dtype=bool), "train: none of 80 rows"),
        (TRAIN[:-1], "train: bool of shape .79,."),
    ],
)
def test_a_split_is_a_mask_with_two_sides(train, message):
    with pytest.raises(ValueError, match=message):
        fit_probes({"here": ROWS}, {"t": TRUTH}, train)


def test_a_test_of_one_class_and_a_probe_of_as_many_classes_as_rows_say_nothing():
    truth = np.where(TRAIN, TRUTH, 1)
    for ask in (partial(fit_probes, {"here": ROWS}, {"t": truth}, TRAIN), partial(transferred, ROWS, truth)):
        with pytest.raises(ValueError, match=r"has one class, \[1\], in 20 test rows"):
            ask()
    with pytest.raises(ValueError, match="5 classes in 5 rows"):
        fit_probe(torch.randn(5, 3), np.arange(5))
    with pytest.raises(ValueError, match="classes from 0 to 2; the circle has the points 0 to 1"):
        fit_probe(ROWS, TRUTH, circle=np.eye(2))


def test_the_same_rows_on_both_sides_are_found_where_no_groups_are_given():
    """Noise, shown twice: without groups a probe names the label of a row that it was shown."""
    noise = torch.randn(N // 2, 64, generator=torch.Generator().manual_seed(1))
    twice, truth = noise.repeat(2, 1), np.random.default_rng(0).integers(3, size=N // 2)
    truth, problem = np.concatenate([truth, truth]), np.tile(np.arange(N // 2), 2)
    twice[N // 2 :] *= 1 + 1e-7
    with pytest.raises(ValueError, match="test rows hold the features of a training row too.*Give groups"):
        fit_probes({"here": twice}, {"t": truth}, TRAIN)
    with pytest.raises(ValueError, match="groups have rows in both"):
        fit_probes({"here": twice}, {"t": truth}, TRAIN, groups=problem)
    apart = hold_out(problem)
    for groups in (None, problem, [f"problem {i}" for i in problem], torch.from_numpy(problem)):
        (cell,) = fit_probes({"here": twice}, {"t": truth}, apart, groups=groups).cells
        assert len(np.unique(cell.groups)) == 10, "twenty test rows of ten problems: ten independent ones"


def test_states_of_a_coordinate_exist():
    parity = Coordinate("parity", np.arange(6) % 2)
    assert parity.of(np.array([[0, 5]])).tolist() == [[0, 1]]
    for states in ([6], [-1]):
        with pytest.raises(ValueError, match="states of parity: .* were given; there are 0 to 5"):
            parity.of(np.array(states))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_bytes": -1}, "max_bytes=-1"),
        ({"max_bytes": 0}, "max_bytes=0: 1 or more is wanted"),
        ({"max_bytes": 1.5}, "max_bytes=1.5: a whole number"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_iterations": 0}, "max_iterations=0"),
        ({"penalty": 0.0}, "penalty=0.0: a finite number that is positive"),
        ({"penalty": float("nan")}, "penalty=nan"),
        ({"tolerance": -1e-4}, "tolerance=-0.0001"),
    ],
)
def test_options_that_cannot_be_followed_are_refused_where_they_are_made(options, message):
    with pytest.raises(ValueError, match=message):
        FitOptions(**options)


@pytest.mark.parametrize("options", [{"n_controls": 1.5}, {"n_shuffles": -1}, {"n_renamings": True}, {"seed": -1}])
def test_controls_are_numbers_of_something(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}=.*a whole number from 0 up"):
        Controls(**options)


def test_gates_hand_on_what_fits():
    assert feature_rows(ROWS, "x").data_ptr() == ROWS.data_ptr()
    assert whole_labels(np.array([True, False]), "y").tolist() == [1, 0]
    assert row_groups(["b", "a", "b"], 3).tolist() == [1, 0, 1]
