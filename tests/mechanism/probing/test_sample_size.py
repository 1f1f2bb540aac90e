"""Curves over nested samples: what is there comes early, what is stored comes with the control, neither is mixed up."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from transformer_lens.model_bridge import TransformerBridge

from cotinterp.mechanism.probing.controls import Controls
from cotinterp.mechanism.probing.sample_size import SampleSizeCurve, TrainAndTest, sample_size_curve
from cotinterp.mechanism.probing.totals import probe_totals
from cotinterp.mechanism.sites import Site
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

S3 = get_task("s3")
ALL = np.random.default_rng(0).permutation(np.array(list(product(range(6), repeat=3))))
SITE = Site("resid_post", 1)


def written_out(operands: np.ndarray, regime: str) -> Batch:
    problems = solve(S3, operands)
    return collate([render(S3, problem, regime) for problem in problems], Vocabulary.of(S3))


@pytest.fixture(scope="module")
def subjects(make_tiny: Callable[..., TransformerBridge]) -> dict[str, TrainAndTest]:
    model = make_tiny(d_vocab=len(Vocabulary.of(S3)), n_ctx=40, d_model=32, d_head=8)
    return {
        regime: TrainAndTest(model, written_out(ALL[:160], regime), written_out(ALL[160:], regime))
        for regime in ("direct", "cot")
    }


@pytest.fixture(scope="module")
def curve(subjects: dict[str, TrainAndTest]) -> SampleSizeCurve:
    places = {"direct": [(Role.OPERAND, 1), (Role.PROMPT_END, -1)], "cot": [(Role.EQUALS, 2)]}
    return sample_size_curve(
        subjects,
        [160, 50],
        sites=[SITE],
        places=places,
        labels={"task": "s3"},
        targets=[1, 2],
        controls=Controls(n_controls=2, n_shuffles=0),
    )


def test_both_ends_are_the_sweeps_of_those_problems(subjects: dict[str, TrainAndTest], curve: SampleSizeCurve) -> None:
    table = curve.frame()
    assert list(table.columns[:3]) == ["task", "subject", "n_problems"]
    assert (table["n_train"] == table["n_problems"]).all()
    assert table["n_test"].unique().tolist() == [56]
    whole = probe_totals(
        subjects["cot"].model,
        subjects["cot"].train,
        test=subjects["cot"].test,
        sites=[SITE],
        places=[(Role.EQUALS, 2)],
        targets=[1],
        controls=Controls(n_controls=2, n_shuffles=0),
    )
    mine = table[(table["subject"] == "cot") & (table["n_problems"] == 160) & (table["target"] == "s_1")]
    assert (
        mine[["accuracy", "control_accuracy"]].values.tolist()
        == whole.frame()[["accuracy", "control_accuracy"]].values.tolist()
    )


def test_the_curve_tells_a_stored_table_from_a_reading(curve: SampleSizeCurve) -> None:
    table = curve.frame()
    table = table[table["site"] == "L1.resid_post"].set_index(["subject", "role", "target", "n_problems"]).sort_index()
    # s_1 at operand 1 of an untrained model: 36 pairs to store; more of them are known the larger the sample.
    stored = table.loc[("direct", "operand", "s_1")]
    assert stored.loc[160, "accuracy"] > stored.loc[50, "accuracy"] + 0.1
    assert stored.loc[160, "control_accuracy"] > stored.loc[50, "control_accuracy"] + 0.1
    assert (stored["selectivity"] < 0.15).all()
    # s_1 after it was written: decodable at once, and its control as well, for it is a symbol.
    written = table.loc[("cot", "equals", "s_1")]
    assert (written["accuracy"] > 0.8).all()
    assert (written["selectivity"].abs() < 0.05).all()


def test_samples_are_nested_and_the_test_stays(curve: SampleSizeCurve) -> None:
    small, large = (curve.results["direct", size] for size in (50, 160))
    for one, other in zip(small.cells, large.cells, strict=True):
        assert (one.truth == other.truth).all()
        assert one.at == other.at


def test_figure_has_a_line_per_subject_and_place(curve: SampleSizeCurve) -> None:
    figure = curve.figure()
    names = {trace.name for trace in figure.data if trace.name}
    assert any("cot: trained L1.resid_post at equals 2 =" in name for name in names)
    assert any("direct: trained input at prompt end" in name for name in names)
    trace = next(t for t in figure.data if t.name and "direct: trained L1.resid_post at operand 1" in t.name)
    assert list(trace.x) == [50, 160]


def test_other_problems_and_sizes_are_refused(subjects: dict[str, TrainAndTest]) -> None:
    direct, cot = subjects["direct"], subjects["cot"]
    other = {"direct": direct, "cot": TrainAndTest(cot.model, cot.train[:150], cot.test)}
    with pytest.raises(ValueError, match="'cot' has other problems than 'direct'"):
        sample_size_curve(other, [50])
    swapped = {"direct": direct, "cot": TrainAndTest(cot.model, cot.train, cot.test[list(range(55, -1, -1))])}
    with pytest.raises(ValueError, match="another order"):
        sample_size_curve(swapped, [50])
    for sizes in ([50, 161], [], [0]):
        with pytest.raises(ValueError, match=r"1\.\.160"):
            sample_size_curve(subjects, sizes)
