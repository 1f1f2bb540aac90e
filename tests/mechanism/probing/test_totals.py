"""Running totals are found where the tokens put them, not before, and a stored table is not taken for a reading."""

import gc
import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.probing import fit as cells
from cotinterp.mechanism.probing import totals as reading
from cotinterp.mechanism.probing.controls import FOLDS, Controls, hold_out, input_folds, renamings
from cotinterp.mechanism.probing.coordinates import coordinates
from cotinterp.mechanism.probing.fit import Target, fit_probes
from cotinterp.mechanism.probing.solver import FitOptions
from cotinterp.mechanism.probing.totals import (
    TotalTargets,
    beginnings,
    current_token,
    in_order,
    is_written,
    last_written,
    probe_places,
    probe_totals,
    running_total,
    stream_places,
)
from cotinterp.mechanism.sites import Site
from cotinterp.models.handmade import reader
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.problems import sample_problems, solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

pytestmark = pytest.mark.slow

S3 = get_task("s3")
Tiny = Callable[..., TransformerBridge]


def written_out(operands: Sequence[Sequence[int]] | np.ndarray, regime: str = "cot", task: str = "s3") -> Batch:
    solver = get_task(task)
    problems = solve(solver, np.array(operands))
    return collate([render(solver, problem, regime) for problem in problems], Vocabulary.of(solver))


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Five hundred of the 1,296 problems with four operands."""
    operands = np.array(list(product(range(6), repeat=4)))
    return written_out(np.random.default_rng(0).permutation(operands)[:500])


@pytest.fixture(scope="module")
def model(make_tiny: Tiny, batch: Batch) -> TransformerBridge:
    return make_tiny(d_vocab=len(batch.vocabulary), n_ctx=64, d_model=64, d_head=16)


def only(result: Any, **where: Any) -> Any:
    """The one row of the detailed table with these values."""
    table = result.detail()
    for name, value in where.items():
        table = table[table[name] == value]
    assert len(table) == 1, table
    return table.iloc[0]


def test_current_token_is_decodable_before_attention_and_the_previous_one_is_not(make_tiny: Tiny, batch: Batch) -> None:
    model = make_tiny(d_vocab=len(batch.vocabulary), n_ctx=64)
    with torch.no_grad():
        model.W_E.copy_(torch.eye(model.cfg.d_vocab, model.cfg.d_model))
        model.W_pos.zero_()
    site = Site("resid_pre", 0)
    here = batch.where(Role.OPERAND, 2)
    rows = activations(model, batch.tokens, [site], positions=here)[site]
    assert (rows.sum(1) == 1).all()
    targets = {f"x_{i}": batch.value.gather(1, batch.where(Role.OPERAND, i)[:, None])[:, 0].numpy() for i in range(4)}
    cells = {
        c.target: c for c in fit_probes({site: rows}, targets, hold_out(np.arange(500)), groups=np.arange(500)).cells
    }
    assert cells["x_2"].correct.mean() == 1.0
    for other in ("x_0", "x_1", "x_3"):
        assert abs(cells[other].correct.mean() - 1 / 6) < 0.08
    # The same through the totals: in s3 a total says nothing about the total before it.
    result = probe_totals(
        model,
        batch,
        sites=[site],
        places=[(Role.TOTAL, 2)],
        targets=TotalTargets(steps=[1, 2], written=True),
        controls=Controls(n_shuffles=0),
    )
    assert only(result, target="s_2", site="L0.resid_pre").accuracy == 1.0
    assert abs(only(result, target="s_1", site="L0.resid_pre").accuracy - 1 / 6) < 0.08
    assert np.isnan(result.detail()["shuffled_accuracy"]).all()


def test_early_total_in_a_random_model_is_a_stored_table_not_a_reading(model: TransformerBridge, batch: Batch) -> None:
    result = probe_totals(model, batch, sites=[Site("resid_post", 1)], places=[(Role.OPERAND, 1)], targets=[1])
    row = only(result, site="L1.resid_post")
    # 36 pairs of operands, all shown in training: any labels of them can be stored, the right ones too.
    assert row.accuracy > 0.9
    assert row.seen == 1.0
    assert row.shuffled_accuracy < 0.35
    assert row.selectivity < 0.1


def test_inputs_left_out_are_never_fitted_on(model: TransformerBridge, batch: Batch) -> None:
    """The cell is that of four fits, each on the training rows of the other inputs; a stored table reads nothing."""
    site, place = Site("resid_post", 1), (Role.OPERAND, 1)
    train, inputs = np.arange(500) < 375, beginnings(batch, batch.where(*place), 1)
    shown, new = (
        only(
            probe_totals(
                model, batch[:375], test=batch[375:], sites=[site], places=[place], targets=[1], left_out=left_out
            ),
            site="L1.resid_post",
        )
        for left_out in ("problems", "inputs")
    )
    assert (shown.left_out, new.left_out, shown.n_test, new.n_test) == ("problems", "inputs", 125, 125)
    assert (shown.seen, new.seen) == (1.0, 0.0)
    assert shown.accuracy > 0.9
    assert new.accuracy < 0.35
    fold_of = input_folds(train, inputs, rng=np.random.default_rng(0))
    rows = activations(model, batch.tokens, [site], positions=batch.where(*place))[site]
    hits = []
    for fold in range(FOLDS):
        kept = np.flatnonzero(np.where(train, fold_of != fold, fold_of == fold))
        assert not set(inputs[kept][train[kept]]) & set(inputs[kept][~train[kept]])
        target = Target(truth=running_total(batch, 1)[kept], types=inputs[kept])
        (cell,) = fit_probes({site: rows[torch.from_numpy(kept)]}, {"s_1": target}, train[kept]).cells
        hits += cell.correct.tolist()
    assert len(hits) == 125
    assert new.accuracy == pytest.approx(np.mean(hits), abs=0.01)


def test_of_four_inputs_none_can_be_left_out() -> None:
    """A handmade reader of parity holds every total, and a probe that saw three of its four inputs names the other."""
    task = get_task("parity")
    problems = sample_problems(task, 8, 200, split="train", rng=np.random.default_rng(0))
    bits = collate([render(task, one, "cot") for one in problems], Vocabulary.of(task))
    options: dict[str, Any] = {"sites": [Site("resid_post", 1)], "places": [(Role.EQUALS, 3)], "targets": [3]}
    with pytest.raises(ValueError, match="4 inputs make this total.*left_out='problems'"):
        probe_totals(reader(task, "cot", (2, 8)), bits, left_out="inputs", **options)
    assert probe_totals(reader(task, "cot", (2, 8)), bits, **options).cells[0].correct.all()


def test_inputs_are_left_out_of_a_share_of_the_batch_too(model: TransformerBridge, batch: Batch) -> None:
    options: dict[str, Any] = {"sites": [Site("resid_pre", 1)], "places": [(Role.EQUALS, 2)], "targets": [2]}
    cell = probe_totals(model, batch, left_out="inputs", **options).cells[0]
    assert (len(cell.truth), cell.seen) == (125, 0.0)
    # The parts do not follow the split: no probe has lost more than its quarter of the inputs, or thereabouts.
    assert cell.n_train > 0.6 * 375
    assert sorted(cell.groups) == sorted(probe_totals(model, batch, **options).cells[0].groups)
    with pytest.raises(ValueError, match="each cell has four probes"):
        probe_totals(model, batch, left_out="inputs", fit=FitOptions(keep=True), **options)
    with pytest.raises(ValueError, match="left_out='rows'; there are 'problems' and 'inputs'"):
        inspect.unwrap(probe_totals)(model, batch, left_out="rows", **options)


def test_nothing_is_found_before_the_operand_was_read(model: TransformerBridge, batch: Batch) -> None:
    result = probe_totals(
        model, batch, places=[(Role.OPERAND, 1), (Role.OPERAND, 2)], targets=[3], controls=Controls(n_shuffles=0)
    )
    assert (result.frame()["ci_low"] < 1 / 6).all()


def test_written_totals_are_left_out_and_nothing_else(batch: Batch) -> None:
    copies = (Role.TOTAL, Role.PREVIOUS_TOTAL, Role.ANSWER)
    for token, target in product(batch.transcripts[0].tokens, range(4)):
        total = running_total(batch, target)
        here = batch.value.gather(1, batch.where(token.role, token.step, part=-1)[:, None])[:, 0].numpy()
        if token.role in copies:
            assert is_written(token.role, token.step, target) == bool((here == total).all())
        else:
            assert is_written(token.role, token.step, target) == ((token.role, token.step, target) == ("operand", 0, 0))


def test_default_cells(model: TransformerBridge, batch: Batch) -> None:
    places = probe_places(batch)
    assert [f"{role} {step}" for role, step in places] == (
        ["operand 0", "operand 1", "operand 2", "operand 3", "prompt_end -1"]
        + [f"{role} {step}" for step in (1, 2, 3) for role in ("step_operand", "equals")]
    )
    result = probe_totals(
        model, batch[:160], labels={"regime": "cot"}, targets=[1, 3], controls=Controls(untrained=model, n_shuffles=0)
    )
    frame = result.frame()
    # Two blocks: what enters each and what leaves the last, twice, and the input baseline once.
    assert len(frame) == (2 * 3 + 1) * len(places) * 2
    assert frame["target"].unique().tolist() == ["s_1", "s_3"]
    own = frame[frame["site"] != "input"].drop(columns="model")
    halves = [part.reset_index(drop=True) for _, part in own.groupby(frame["model"])]
    assert halves[0].equals(halves[1])
    in_order = frame[["role", "step"]].drop_duplicates().itertuples(index=False, name=None)
    assert list(in_order) == [(str(role), step) for role, step in places]
    # One symbol, one position: the baseline can only give one answer, whatever the problem.
    equals = [cell for cell in result.cells if cell.at.site == "input" and cell.at.role == "equals"]
    assert all(len(np.unique(cell.predicted)) == 1 for cell in equals)
    assert frame["regime"].unique().tolist() == ["cot"]
    assert frame["layer"].unique().tolist() == [0, 1, -1]
    assert only(result, site="input", target="s_3", role="equals", step=2).place == "equals 2 ="


def test_places_of_the_other_regimes() -> None:
    operands = [[0, 1, 2], [3, 4, 5]]
    prompt = ["operand 0", "operand 1", "operand 2", "prompt_end -1"]
    for regime, response in (
        ("direct", []),
        ("filler", ["trace_start -1"]),
        ("totals", ["trace_start -1", "step_end 1"]),
    ):
        found = probe_places(written_out(operands, regime))
        assert [f"{role} {step}" for role, step in found] == prompt + response


def test_test_batch_and_its_overlap(model: TransformerBridge, batch: Batch) -> None:
    options: dict[str, Any] = {
        "places": [(Role.EQUALS, 2)],
        "sites": [Site("resid_pre", 1)],
        "targets": [2],
        "controls": Controls(n_shuffles=0),
    }
    result = probe_totals(model, batch[:400], test=batch[400:], **options)
    assert result.frame()[["n_train", "n_test"]].drop_duplicates().values.tolist() == [[400, 100]]
    assert (result.cells[0].truth == running_total(batch, 2)[400:]).all()
    with pytest.raises(ValueError, match="10 of 490 groups have rows in both"):
        probe_totals(model, batch[:400], test=batch[list(range(390, 490))], **options)


def test_repeated_problems_stay_on_one_side(model: TransformerBridge, batch: Batch) -> None:
    thrice = batch[[row for row in range(120) for _ in range(3)]]
    cell = probe_totals(
        model,
        thrice,
        places=[(Role.EQUALS, 2)],
        sites=[Site("resid_pre", 1)],
        targets=[3],
        controls=Controls(n_shuffles=0),
    ).cells[0]
    problems, counts = np.unique(cell.groups, return_counts=True)
    assert len(problems) == 30
    assert (counts == 3).all()
    assert cell.interval.high - cell.interval.low > 0.15


def test_same_seed_same_table(model: TransformerBridge, batch: Batch) -> None:
    options: dict[str, Any] = {"places": [(Role.EQUALS, 2)], "sites": [Site("resid_pre", 1)], "targets": [2, 3]}
    one, again, other = (
        probe_totals(model, batch, **options, controls=Controls(seed=seed)).detail() for seed in (0, 0, 1)
    )
    assert one.equals(again)
    assert not one.equals(other)


def test_place_of_a_value_is_its_last_character(make_tiny: Tiny) -> None:
    # The last totals are 12 and 22: only their second character is the same in all, and so named on the axis.
    operands = [row for row in product(range(10), repeat=3) if sum(row) in (12, 22)]
    batch = written_out(operands, task="digit-sum")
    model = make_tiny(d_vocab=len(batch.vocabulary), n_ctx=64)
    result = probe_totals(
        model, batch, sites=[Site("resid_pre", 0)], places=[("total", 2)], targets=[1], controls=Controls(n_shuffles=0)
    )
    assert {cell.at.place for cell in result.cells} == {"total 2 2"}


def test_current_token_tells_symbol_and_position() -> None:
    # 9+9=18;18+1=19: the place of a total of two characters is its last, from which the units can be read.
    batch = written_out([[9, 9, 1], [1, 1, 1]] * 40, task="digit-sum")
    here = batch.where(Role.TOTAL, 2, part=-1)
    assert [batch.transcripts[row].tokens[int(here[row])].symbol for row in (0, 1)] == ["9", "3"]
    # Two symbols, two positions: four columns, of which each row has two.
    features = current_token(batch, here)
    assert features.shape == (80, 4)
    assert (features.sum(1) == 2).all()


def test_beginnings_by_hand() -> None:
    batch = written_out([[0, 1, 2], [0, 1, 3], [0, 2, 2], [1, 1, 2]])

    def same(role: Role, step: int, target: int) -> list[list[int]]:
        numbers = beginnings(batch, batch.where(role, step), target).tolist()
        return [[row for row, number in enumerate(numbers) if number == one] for one in dict.fromkeys(numbers)]

    assert same(Role.OPERAND, 0, 2) == [[0, 1, 2], [3]]
    assert same(Role.OPERAND, 1, 2) == [[0, 1], [2], [3]]
    assert same(Role.EQUALS, 1, 2) == [[0], [1], [2], [3]]
    assert same(Role.EQUALS, 1, 1) == [[0, 1], [2], [3]]
    assert same(Role.EQUALS, 1, 0) == [[0, 1, 2], [3]]


def test_running_totals_are_the_tasks() -> None:
    batch = written_out([[3, 4, 5], [9, 9, 9]], task="digit-sum")
    assert [running_total(batch, step).tolist() for step in range(3)] == [[3, 9], [7, 18], [12, 27]]


def test_errors_say_what_exists(model: TransformerBridge, batch: Batch) -> None:
    with pytest.raises(ValueError, match=r"no s_4 in problems of 4 operands; their totals are s_0 to s_3"):
        probe_totals(model, batch, targets=[4])
    with pytest.raises(KeyError, match="equals of step 7"):
        probe_totals(model, batch, places=[(Role.EQUALS, 7)])
    with pytest.raises(ValueError, match=r"unknown role 'equal'. Nearest: \['equals'"):
        probe_totals(model, batch, places=[("equal", 1)])
    with pytest.raises(ValueError, match="no places to probe"):
        probe_totals(model, batch, places=[])
    with pytest.raises(ValueError, match="stand written; name other places"):
        probe_totals(model, batch, places=[(Role.TOTAL, 2)], targets=[2])
    with pytest.raises(ValueError, match="different vocabularies"):
        probe_totals(model, batch, test=written_out([[1, 0, 1]], task="parity"))


def test_written_total_gives_an_untrained_model_no_selectivity(model: TransformerBridge, batch: Batch) -> None:
    # s_1 stands written before step 2, and s_2 is a step from it: an untrained model shows both tokens.
    places = [(Role.EQUALS, 3), (Role.STEP_OPERAND, 2)]
    result = probe_totals(
        model,
        batch,
        sites=[Site("resid_post", 1)],
        places=places,
        targets=[1, 2],
        controls=Controls(n_controls=3, n_shuffles=0),
    )
    for target, role, step in (("s_1", "equals", 3), ("s_2", "equals", 3), ("s_1", "step_operand", 2)):
        row = only(result, site="L1.resid_post", target=target, role=role, step=step)
        assert row.accuracy > 0.5
        assert abs(row.selectivity) < 0.06
        assert row.seen == 1.0
    pair = only(result, site="L1.resid_post", target="s_2", role="step_operand", step=2)
    assert pair.accuracy > 0.4
    assert pair.selectivity < 0.1
    # Had the control given labels to the operands alone, what stands written would have passed for a reading.
    place = (Role.EQUALS, 3)
    rows = activations(model, batch.tokens, [Site("resid_post", 1)], positions=batch.where(*place))
    blind = fit_probes(
        rows,
        {"s_2": Target(truth=running_total(batch, 2), types=beginnings_of_prompt(batch, 2))},
        hold_out(np.arange(500)),
    ).cells[0]
    assert blind.correct.mean() - blind.control_correct.mean() > 0.3


def beginnings_of_prompt(batch: Batch, step: int) -> np.ndarray:
    """Operands 0..step, blind to what stands written."""
    return beginnings(batch, batch.where(Role.PROMPT_END), step)


def test_coordinates_and_kept_probes(model: TransformerBridge, batch: Batch) -> None:
    place = (Role.EQUALS, 2)
    result = probe_totals(
        model,
        batch,
        sites=[Site("resid_mid", 0)],
        places=[place],
        targets=TotalTargets(steps=[2], coordinates=coordinates(S3)),
        fit=FitOptions(keep=True),
    )
    assert [(cell.at.label, cell.target) for cell in result.cells] == [
        ("L0.resid_mid", "s_2"),
        ("L0.resid_mid", "sign of s_2"),
        ("input", "s_2"),
        ("input", "sign of s_2"),
    ]
    sign = coordinates(S3)["sign"]
    assert (result.cells[1].truth == sign.of(result.cells[0].truth)).all()
    rows = activations(model, batch.tokens, [Site("resid_mid", 0)], positions=batch.where(*place))[Site("resid_mid", 0)]
    held_out = ~hold_out(np.unique([x.problem.operands for x in batch.transcripts], axis=0, return_inverse=True)[1])
    probe = result.cells[1].probe
    assert probe is not None
    assert (probe.predict(rows[torch.from_numpy(held_out)]) == result.cells[1].predicted).all()


def test_scan_of_an_untrained_model(model: TransformerBridge, batch: Batch) -> None:
    options: dict[str, Any] = {
        "sites": [Site("resid_post", 1)],
        "places": [(Role.PROMPT_END, -1), (Role.EQUALS, 2)],
        "targets": [1, 2],
    }
    scan = probe_totals(model, batch[:200], **options, controls=Controls(task=S3, n_renamings=19, n_shuffles=0)).scan()
    # s_1 stands written at equals 2: no other truth there. The input baseline is none of the model's.
    table = scan.frame()
    assert table[["role", "target"]].values.tolist() == [
        ["prompt_end", "s_1"],
        ["prompt_end", "s_2"],
        ["equals", "s_2"],
    ]
    assert scan.skipped == 1 + 4
    assert not table["flagged"][:2].any()
    with pytest.raises(ValueError, match="19 renamings need the task"):
        probe_totals(model, batch, **options, controls=Controls(n_renamings=19))


@pytest.mark.parametrize("left_out", ["problems", "inputs"])
def test_a_renamed_text_is_what_a_model_with_its_embeddings_permuted_reads(make_tiny: Tiny, left_out) -> None:
    # So untrained models cannot tell the true text from the renamed ones, whatever the task and wherever one looks:
    # the totals of this task are far from uniform, and it is after written ones that renamed labels were unfair.
    task = get_task("affine-mod10")
    operands = np.random.default_rng(0).integers(10, size=(500, 3))
    batch = written_out(operands, "cot", "affine-mod10")
    model = make_tiny(d_vocab=len(batch.vocabulary), n_ctx=64)
    options: dict[str, Any] = {
        "places": [(Role.PROMPT_END, -1), (Role.EQUALS, 2)],
        "sites": [Site("resid_post", 1)],
        "targets": [1, 2],
        "left_out": left_out,
    }
    found = probe_totals(model, batch, controls=Controls(task=task, n_renamings=2), **options)
    names = renamings(task, batch.operands.numpy(), 2, rng=np.random.default_rng([0, 2]))
    codes = torch.tensor(batch.vocabulary.encode(task.operands))
    own = model.W_E.detach().clone()
    for draw, name in enumerate(names):
        with torch.no_grad():
            model.W_E[codes[torch.from_numpy(name)]] = own[codes]
        permuted = probe_totals(model, batch, **options)
        for cell, other in zip(found.cells, permuted.cells, strict=True):
            assert len(cell.renamed_accuracy) == (2 if cell.at.site != "input" and _hidden(cell) else 0)
            if len(cell.renamed_accuracy):
                assert cell.renamed_accuracy[draw] == pytest.approx(other.correct.mean(), abs=1e-12)


def _hidden(cell: Any) -> bool:
    return (cell.at.role, cell.target) != (Role.EQUALS, "s_1")


@pytest.fixture(scope="module")
def sums() -> Batch:
    """All 216 problems of three operands in z6, written out as totals."""
    return written_out(list(product(range(6), repeat=3)), "totals", "z6")


def test_reader_holds_a_total_where_it_writes_it_once_it_has_stepped_and_nowhere_else(sums: Batch) -> None:
    from cotinterp.models.handmade import reader

    z6 = get_task("z6")
    result = probe_totals(
        reader(z6, "totals", (3, 3)),
        sums,
        sites=[Site(kind, layer) for layer in (0, 1) for kind in ("resid_pre", "resid_mid", "mlp_out", "resid_post")],
        places=[(Role.OPERAND, 2), (Role.PROMPT_END, -1), (Role.STEP_END, 1)],
        targets=[1, 2],
        controls=Controls(task=z6, n_renamings=19, n_controls=3, n_shuffles=0),
    )
    found = result.scan().frame().query("flagged")
    assert found[["site", "role", "step", "target"]].values.tolist() == [
        ["L1.mlp_out", "step_end", 1, "s_2"],
        ["L1.resid_post", "step_end", 1, "s_2"],
    ]
    stepped = only(result, site="L1.mlp_out", role="step_end", target="s_2")
    assert stepped.accuracy == 1.0
    assert stepped.selectivity > 0.5
    # The last written total is there as well, as the symbol that attention has fetched: that is not selective.
    fetched = only(result, site="L1.resid_mid", role="step_end", target="s_1")
    assert (fetched.accuracy, fetched.selectivity) == (1.0, 0.0)
    assert only(result, site="L1.resid_pre", role="step_end", target="s_1").accuracy < 0.3


def test_parallel_model_has_no_running_total_anywhere() -> None:
    from cotinterp.models.handmade import parallel

    z6 = get_task("z6")
    operands = np.random.default_rng(0).permutation(np.array(list(product(range(6), repeat=4))))[:260]
    batch = written_out(operands, "direct", "z6")
    result = probe_totals(
        parallel(z6, (4, 4)), batch, targets=[1, 2, 3], controls=Controls(task=z6, n_renamings=19, n_shuffles=0)
    )
    found = result.scan().frame().query("flagged")
    # The answer is there, and no total on the way to it.
    assert set(found["target"]) == {"s_3"}
    assert set(found["role"]) == {"prompt_end"}


# Totals 7, 12 and 7, 12 and 7, 13 and 12, 17: the first two problems arrive at the same totals.
OPERANDS = [[3, 4, 5], [4, 3, 5], [3, 4, 6], [9, 3, 5]]


def digit_sums(regime: str) -> Batch:
    task = get_task("digit-sum")
    problems = solve(task, np.array(OPERANDS))
    return collate([render(task, problem, regime) for problem in problems], Vocabulary.of(task))


def types(batch: Batch, role: Role, step: int, target: int) -> list[int]:
    numbers = beginnings(batch, batch.where(role, step, part=-1), target).tolist()
    return [numbers.index(one) for one in numbers]


def test_last_written_total() -> None:
    batch = digit_sums("cot")
    for role, step, expected in (
        (Role.OPERAND, 2, 0),
        (Role.EQUALS, 1, 0),
        (Role.TOTAL, 1, 1),
        (Role.STEP_END, 1, 1),
        (Role.EQUALS, 2, 1),
        (Role.TOTAL, 2, 2),
        (Role.ANSWER, 2, 2),
    ):
        assert last_written(batch, batch.where(role, step, part=-1)).tolist() == [expected] * 4
    direct = digit_sums("direct")
    assert last_written(direct, direct.where(Role.PROMPT_END)).tolist() == [0] * 4
    assert last_written(direct, direct.where(Role.ANSWER, 2, part=-1)).tolist() == [2] * 4


def test_after_a_written_total_the_input_is_that_total_and_what_follows() -> None:
    batch = digit_sums("cot")
    # Before anything is written: all operands up to the target.
    assert types(batch, Role.EQUALS, 1, 2) == [0, 1, 2, 3]
    assert types(batch, Role.EQUALS, 1, 1) == [0, 1, 0, 3]
    # After 7: the total and the last operand. The third differs in the operand, the fourth in the total.
    assert types(batch, Role.EQUALS, 2, 2) == [0, 0, 2, 3]
    assert types(batch, Role.STEP_END, 1, 2) == [0, 0, 2, 3]
    # What has been written is its own input: 7, 7, 7 and 12.
    assert types(batch, Role.EQUALS, 2, 1) == [0, 0, 0, 3]


def chases(*tables: tuple[int, ...]) -> Batch:
    task = get_task("pointers")
    return collate([render(task, problem, "cot") for problem in solve(task, np.array(tables))], Vocabulary.of(task))


def test_without_the_order_of_a_fold_an_input_is_all_that_stands_there() -> None:
    """Tables 2,0,1 and 2,1,1 go 0, 2, 1 and differ in an entry that no step reads; 1,0,2 goes 0, 1, 0."""
    batch = chases((2, 0, 1), (2, 1, 1), (1, 0, 2), (2, 0, 1))
    assert not in_order(batch)
    assert types(batch, Role.OPERAND, 0, 2) == [0, 0, 2, 0]
    assert types(batch, Role.PROMPT_END, -1, 2) == types(batch, Role.EQUALS, 2, 2) == [0, 1, 2, 0]


def test_copies_of_a_total_are_known_only_in_order() -> None:
    copies = [(Role.PREVIOUS_TOTAL, 2), (Role.PREVIOUS_TOTAL, 3), (Role.STEP_OPERAND, 1), (Role.STEP_OPERAND, 2)]
    assert [is_written(role, step, 1) for role, step in copies] == [True, False, False, False]
    assert all(is_written(role, step, 1, in_order=False) for role, step in copies)
    assert not is_written(Role.STEP_OPERAND, 1, 2, in_order=False)
    assert not is_written(Role.EQUALS, 2, 1, in_order=False)


SITES = [Site("resid_pre", 1), Site("z", 0), Site("k", 1, head=2), Site("pattern", 1), Site("mlp_out", 0)]


@pytest.mark.parametrize("max_bytes", [1, 5 * 3 * 16 * 4, 2**20], ids=["one place at a time", "a site", "all"])
def test_every_place_of_every_site_in_order(
    tiny_model: TransformerBridge, tokens: torch.Tensor, max_bytes: int
) -> None:
    positions = torch.randint(0, 8, (5, 3), generator=torch.Generator().manual_seed(0))
    expected = activations(tiny_model, tokens, SITES, positions=positions)
    found = list(stream_places(tiny_model, tokens, SITES, positions, max_bytes=max_bytes, batch_size=2))
    assert [(site, column) for site, column, _ in found] == [(site, column) for site in SITES for column in range(3)]
    for site, column, rows in found:
        torch.testing.assert_close(rows, expected[site][:, column].flatten(1), atol=1e-5, rtol=0)


def test_parts_stay_within_their_bytes(
    tiny_model: TransformerBridge, tokens: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    stream = reading.stream_activations

    def counted(model, tokens, sites, *, positions, batch_size):  # type: ignore[no-untyped-def]
        for rows, found in stream(model, tokens, sites, positions=positions, batch_size=batch_size):
            read.append(sum(part.nbytes for part in found.values()))
            yield rows, found

    monkeypatch.setattr(reading, "stream_activations", counted)
    positions = torch.zeros(5, 3, dtype=torch.long)
    sites = [Site(kind, layer) for layer in (0, 1) for kind in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
    each = 5 * 3 * 16 * 4
    seen = Counter(site for site, _, _ in stream_places(tiny_model, tokens, sites, positions, max_bytes=2 * each))
    assert seen == dict.fromkeys(sites, 3)
    assert read == [2 * each] * 4


def test_sites_outside_the_model_are_refused(tiny_model: TransformerBridge, tokens: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="layers 0 to 1"):
        list(stream_places(tiny_model, tokens, [Site("resid_pre", 2)], torch.zeros(5, 1, dtype=torch.long)))


def live_bytes() -> int:
    """What all tensors that exist take, storage by storage."""
    held = (one.untyped_storage() for one in gc.get_objects() if type(one) is torch.Tensor)
    return sum({part.data_ptr(): part.nbytes() for part in held}.values())


def test_more_sites_need_no_more_memory_and_change_no_cell(
    make_tiny: Callable[..., TransformerBridge], monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = get_task("s3")
    problems = solve(s3, np.random.default_rng(0).permutation(np.array(list(product(range(6), repeat=4))))[:200])
    batch = collate([render(s3, problem, "cot") for problem in problems], Vocabulary.of(s3))
    model = make_tiny(d_vocab=len(batch.vocabulary), n_ctx=64, d_model=64, d_head=16, n_layers=8)
    options: dict[str, Any] = {
        "places": [(Role.EQUALS, 2), (Role.EQUALS, 3)],
        "targets": [3],
        "controls": Controls(n_shuffles=0),
    }
    peak: list[int] = []
    real = cells.solve

    def watched(*args: Any, **settings: Any) -> Any:
        for number, found in enumerate(real(*args, **settings)):
            if number == 0:
                peak.append(live_bytes())
            yield found

    monkeypatch.setattr(cells, "solve", watched)

    def highest(n_layers: int, max_bytes: int | None) -> tuple[int, Any]:
        sites = [Site(kind, layer) for layer in range(n_layers) for kind in ("resid_pre", "attn_out", "mlp_out")]
        peak.clear()
        gc.collect()
        before = live_bytes()
        result = probe_totals(model, batch, sites=sites, **options, fit=FitOptions(max_bytes=max_bytes))
        return max(peak) - before, result.frame()

    (four, _), (eight, table), (whole, at_once) = highest(4, 2**21), highest(8, 2**21), highest(8, None)
    assert eight < 1.1 * four
    assert eight < 2**21 < whole
    assert table.drop(columns=["ci_low", "ci_high"]).equals(at_once.drop(columns=["ci_low", "ci_high"]))
