import numpy as np
import pytest
import torch

from cotinterp.mechanism.probing.controls import Controls, hold_out
from cotinterp.mechanism.probing.fit import fit_probes
from cotinterp.mechanism.probing.linear_probe import ProbedAt
from cotinterp.mechanism.probing.transfer import ReadAt, step_inputs, transfer_matrix, transfer_totals
from cotinterp.mechanism.sites import Site
from cotinterp.models.handmade import reader, recomputer
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems, solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

N, CLASSES, D = 400, 4, 16
Z6 = get_task("z6")


def coded(truth, *, seed, directions, shift=0.0, noise=0.3):
    """One direction for each class, with noise, at a mean of its own."""
    generator = torch.Generator().manual_seed(seed)
    one_hot = torch.eye(CLASSES)[torch.from_numpy(truth)]
    return 2 * one_hot @ directions + noise * torch.randn(N, D, generator=generator) + shift


@pytest.fixture
def truth():
    return np.random.default_rng(0).integers(CLASSES, size=N)


@pytest.fixture
def codes():
    """Two sets of directions that are orthogonal to one another."""
    q, _ = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(1)))
    return q[:CLASSES], q[CLASSES : 2 * CLASSES]


def place(name, features, truth, types=None):
    return ReadAt(at=ProbedAt(site=name), target="s", features=features, truth=truth, types=types)


def matrix(result, measure="accuracy"):
    return result.frame().pivot(index="fitted_site", columns="tested_site", values=measure)


def test_the_same_directions_transfer_and_others_do_not(truth, codes):
    places = [
        place("here", coded(truth, seed=1, directions=codes[0]), truth),
        place("same", coded(truth, seed=2, directions=codes[0]), truth),
        place("other", coded(truth, seed=3, directions=codes[1]), truth),
        place("empty", coded(truth, seed=4, directions=0 * codes[0]), truth),
    ]
    result = transfer_matrix(places, hold_out(np.arange(N)), controls=Controls(n_controls=3))
    accuracy, control = matrix(result), matrix(result, "control_accuracy")
    assert accuracy.loc["here", "same"] > 0.97
    assert accuracy.loc["same", "here"] > 0.97
    assert np.diag(accuracy.loc[["here", "same", "other"], ["here", "same", "other"]]).min() > 0.97
    for pair in (("here", "other"), ("other", "here"), ("here", "empty"), ("empty", "empty"), ("empty", "here")):
        assert abs(accuracy.loc[pair] - 1 / CLASSES) < 0.15, pair
    assert abs(control.to_numpy() - 1 / CLASSES).max() < 0.15
    home = matrix(result, "home_accuracy")
    assert (home["same"] == accuracy.loc["same", "same"]).all()


def test_at_home_it_is_an_ordinary_probe(truth, codes):
    features, train = coded(truth, seed=1, directions=codes[0], noise=1.5), hold_out(np.arange(N))
    (cell,) = transfer_matrix([place("here", features, truth)], train).cells
    (expected,) = fit_probes({"here": features}, {"s": truth}, train).cells
    assert (cell.predicted == expected.predicted).all()
    assert (cell.truth == expected.truth).all()
    assert cell.interval == expected.interval
    assert 0.3 < cell.correct.mean() < 0.95


def test_places_with_means_of_their_own(truth, codes):
    """A shift along what the probe reads makes it name one class always, until each place is centered."""
    shift = -4 * codes[0][0] + 4 * codes[0][1]
    places = [
        place("here", coded(truth, seed=1, directions=codes[0]), truth),
        place("moved", coded(truth, seed=2, directions=codes[0], shift=shift), truth),
    ]
    train = hold_out(np.arange(N))
    assert matrix(transfer_matrix(places, train)).loc["here", "moved"] < 0.5
    centered = transfer_matrix(places, train, center="tested")
    assert matrix(centered).loc["here", "moved"] > 0.97
    assert matrix(centered).loc["here", "here"] == matrix(transfer_matrix(places, train)).loc["here", "here"]


def test_a_stored_table_transfers_and_has_no_selectivity():
    """Both places show which of 12 inputs it is, and nothing about the class: the control finds as much."""
    rng = np.random.default_rng(0)
    types = rng.integers(12, size=N)
    truth = rng.permutation(np.arange(12) % CLASSES)[types]
    shown = torch.eye(12)[torch.from_numpy(types)]
    result = transfer_matrix(
        [place(name, shown, truth, types) for name in ("here", "there")],
        hold_out(np.arange(N)),
        controls=Controls(n_controls=4),
    )
    assert matrix(result).loc["here", "there"] == 1.0
    assert matrix(result, "selectivity").loc["here", "there"] == 0.0
    # With every problem its own type the control would have looked like proof.
    with pytest.raises(ValueError, match="hold the features of a training row too.*no groups were given"):
        transfer_matrix([place("here", shown, truth)], hold_out(np.arange(N)))
    naive = transfer_matrix(
        [place(name, shown, truth) for name in ("here", "there")], hold_out(np.arange(N)), groups=np.arange(N)
    )
    assert matrix(naive, "selectivity").loc["here", "there"] > 0.5


def test_no_problem_is_fitted_on_anywhere_and_tested_anywhere(truth, codes):
    places = [place(name, coded(truth, seed=1, directions=codes[0]), truth) for name in ("here", "there")]
    with pytest.raises(ValueError, match="have rows in both training and test"):
        transfer_matrix(places, np.arange(N) % 2 == 0, groups=np.arange(N) // 2)
    with pytest.raises(ValueError, match="a probe transfers between places of one width"):
        transfer_matrix([places[0], place("wide", torch.zeros(N, D + 1), truth)], hold_out(np.arange(N)))
    with pytest.raises(ValueError, match="bool of shape .100,. was given.*for 400 rows"):
        transfer_matrix(places, hold_out(np.arange(100)))
    with pytest.raises(ValueError, match="n_controls=0"):
        transfer_matrix(places, hold_out(np.arange(N)), controls=Controls(n_controls=0))
    with pytest.raises(ValueError, match="places: none"):
        transfer_matrix([], hold_out(np.arange(N)))


def written_out(problems):
    return collate([render(Z6, problem, "totals") for problem in problems], Vocabulary.of(Z6))


@pytest.fixture(scope="module")
def batch():
    return written_out(sample_problems(Z6, 4, 300, split="train", rng=np.random.default_rng(0)))


@pytest.fixture(scope="module")
def handmade(batch, make_tiny):
    """The reader, the recomputer that holds the same totals unread, and a random model of the reader's size."""
    models = {name: make(Z6, "totals", (4, 4), decoy=True) for name, make in (("a", reader), ("b", recomputer))}
    cfg = models["a"].cfg
    sizes = {"n_ctx": cfg.n_ctx, "d_vocab": cfg.d_vocab, "d_model": cfg.d_model, "d_head": 4, "d_mlp": 32}
    return {**models, "random": make_tiny(**sizes, normalization_type=None)}


def test_the_reader_holds_every_steps_total_alike(handmade, batch):
    places = [("step_end", 1, 1), ("step_end", 2, 2), ("trace_start", -1, 0)]
    models = {name: (handmade[name], batch) for name in ("a", "random")}
    result = transfer_totals(models, places, sites=[Site("attn_out", 1)], controls=Controls(n_controls=3))
    table = result.frame()
    assert len(table) == 36
    own = table.query("fitted_model == 'a' and tested_model == 'a' and tested_role == 'step_end'")
    away = own.query("fitted_step != tested_step and fitted_step > 0")
    assert len(away) == 2
    assert (away["accuracy"] > 0.98).all()
    assert (away["selectivity"] > 0.5).all()
    assert (away["ci_low"] > 0.9).all()
    between = table.query("fitted_model != tested_model")
    assert (between["accuracy"] < 0.45).all(), "residual streams of two models have unrelated bases"
    figure = result.figure("selectivity")
    assert figure.layout.coloraxis.cmin == 0.0
    assert "a s_2: L1.attn_out at step end 2" in figure.data[0].x


def test_models_must_read_the_same_problems(handmade, batch):
    places = [("step_end", 1, 1)]
    with pytest.raises(ValueError, match=r"the models \['one', 'two'\] read different problems"):
        transfer_totals(
            {"one": (handmade["a"], batch), "two": (handmade["a"], batch[list(range(299, -1, -1))])}, places
        )
    with pytest.raises(ValueError, match=r"none of \['one'\] has any of the places"):
        transfer_totals({"one": (handmade["a"], batch)}, [("equals", 1, 1)])
    with pytest.raises(ValueError, match="no s_4 in problems of 4 operands"):
        transfer_totals({"one": (handmade["a"], batch)}, [("step_end", 1, 4)])
    with pytest.raises(ValueError, match="places of one width"):
        transfer_totals({name: (handmade[name], batch) for name in ("a", "b")}, places)


def test_a_step_starts_from_a_total_and_an_operand():
    """One number for each of the 36 pairs, whichever step they are met at."""
    problems = sample_problems(Z6, 4, 200, split="train", rng=np.random.default_rng(0))
    batch = written_out(problems)
    numbers = {}
    for step in (1, 2, 3):
        for problem, number in zip(problems, step_inputs(batch, step).tolist(), strict=True):
            before = sum(problem.operands[:step]) % 6
            numbers.setdefault((before, problem.operands[step]), set()).add(number)
    assert all(len(found) == 1 for found in numbers.values())
    assert len(set.union(*numbers.values())) == len(numbers) == 36
    assert set(step_inputs(batch, 0).tolist()) == {-1, -2, -3, -4, -5, -6}


def test_the_input_of_an_operation_is_its_two_values_and_its_operator():
    """1 + 2, 1 * 2 and 2 + 1, and 1 + 2 again."""
    task = get_task("expressions-mod11")
    problems = solve(task, np.array([[1, 2], [1, 2 + 22], [2, 1], [1, 2]]))
    batch = collate([render(task, problem, "cot") for problem in problems], Vocabulary.of(task))
    first, other, turned, again = step_inputs(batch, 1).tolist()
    assert len({first, other, turned}) == 3
    assert first == again
