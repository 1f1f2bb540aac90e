"""A variable that is carried is found, one that is not is not, and neither placebo passes for one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.interventions import run_with
from cotinterp.mechanism.probing.subspaces import Subspace, interchange
from cotinterp.mechanism.sites import Site
from cotinterp.mechanism.variables.causal import DECLARED, CausalVariables, VariableRule, causal_variables
from cotinterp.mechanism.variables.das import SubspaceSearch, interchange_accuracy, learn_subspace, own_accuracy
from cotinterp.models.build import build_model
from cotinterp.models.handmade import (
    parallel,
    parallel_blueprint,
    reader,
    reader_blueprint,
    recomputer,
    recomputer_blueprint,
)
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import get_task
from cotinterp.transcripts.interchange_pairs import interchange_pairs
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.vocabulary import Vocabulary

TASK = get_task("z6")
READ = Site("resid_pre", 1)
"""Where the reader's layer 1 looks: the token of the total that was written, one-hot."""
FEW = SubspaceSearch(rank=6, steps=80, batch_size=32, learning_rate=0.05, n_random=5)


def problems(n, split="train", k=4):
    return sample_problems(TASK, k, n, split=split, rng=np.random.default_rng(7))


def pairs(variable, regime="totals", *, place=("total", 2), readout=("total", 3), n=60, split="heldout"):
    asked = {"variable": variable, "place": place, "readout": readout, "rng": np.random.default_rng(0)}
    return interchange_pairs(TASK, problems(n, split), regime, **asked)


@pytest.fixture(scope="module")
def models():
    return {"reader": reader(TASK).eval(), "recomputer": recomputer(TASK).eval()}


@pytest.fixture(scope="module")
def random_model(randomized):
    """Any model of z6: it answers nothing, and what is exchanged changes its logits."""
    spec = ModelSpec(n_layers=3, n_heads=2, d_model=16, d_mlp=32, n_ctx=40)
    return randomized(build_model(spec, len(Vocabulary.of(TASK)), seed=0), seed=3)


def test_the_directions_of_a_written_total_carry_it_and_others_do_not(models):
    held_out = pairs("s_2")
    blueprint = reader_blueprint(TASK)
    token, position = (Subspace(blueprint.basis(name).T) for name in ("token", "position"))
    assert own_accuracy(models["reader"], held_out).all()
    right = {
        name: interchange_accuracy(models["reader"], held_out, READ, one).mean()
        for name, one in {"token": token, "position": position, "rest": token.complement(), "whole": None}.items()
    }
    assert right == {"token": 1.0, "position": 0.0, "rest": 0.0, "whole": 1.0}
    assert interchange_accuracy(models["recomputer"], held_out, READ, None).mean() == 0.0


def test_whose_value_it_is_depends_on_the_variable_that_is_asked_about(models):
    """At the total before it, exchanging everything gives the source's total with the base's operand, and no other."""
    for variable in ("x_3", "s_1", "s_2,x_3"):
        right = interchange_accuracy(models["reader"], pairs(variable), READ, None)
        assert right.mean() < 0.4, "they agree by chance alone"


def test_of_two_variables_side_by_side_each_has_its_own_directions(models):
    """In what attention brings to the place that predicts the next total stand that total's two parts."""
    site, asked = Site("attn_out", 1), {"place": ("step_end", 2)}
    blueprint = reader_blueprint(TASK)
    total, operand = (blueprint.basis(name).T for name in ("total", "operand"))
    for variable, basis in {"s_2": total, "x_3": operand, "s_2,x_3": torch.cat([total, operand], dim=1)}.items():
        own = {}
        for other in ("s_2", "x_3", "s_2,x_3"):
            own[other] = interchange_accuracy(models["reader"], pairs(other, **asked), site, Subspace(basis)).mean()
        assert own[variable] == 1.0
        assert max(value for other, value in own.items() if other != variable) < 0.4


def test_one_direction_suffices_where_a_number_is_held_as_a_number():
    """The recomputer adds its operands up along one direction; the mean of the parallel sum is another."""
    made = ((recomputer, recomputer_blueprint, "totals", "sum", Site("attn_out", 1), ("step_end", 2), ("total", 3)),)
    made += ((parallel, parallel_blueprint, "direct", "mean", Site("attn_out", 0), ("prompt_end", -1), ("answer", 3)),)
    for build, blueprint, regime, name, site, place, readout in made:
        model, held_out = build(TASK).eval(), pairs("s_3", regime, place=place, readout=readout)
        (direction,) = blueprint(TASK).basis(name)
        assert interchange_accuracy(model, held_out, site, Subspace(direction[:, None])).mean() == 1.0


def test_the_search_comes_by_a_single_direction():
    """A bit is held one-hot: what differs between 0 and 1 is one direction, and nothing else tells them apart."""
    bits = get_task("parity")
    model, blueprint = reader(bits).eval(), reader_blueprint(bits)
    asked = {"variable": "s_3", "place": ("total", 3), "readout": ("total", 4), "rng": np.random.default_rng(0)}
    words = sample_problems(bits, 5, 30, split="train", rng=np.random.default_rng(0))
    found = learn_subspace(
        model,
        interchange_pairs(bits, words, "totals", **asked),
        READ,
        replace(FEW, rank=1, steps=200, learning_rate=0.1),
    )
    zero, one = blueprint.basis("token")[[blueprint.vocabulary.token(symbol) for symbol in "01"]]
    assert float(((zero - one) / 2**0.5 @ found.basis[:, 0]).abs()) > 0.75, "of 60 dimensions"
    held_out = interchange_pairs(bits, words[:10], "totals", **asked)
    assert interchange_accuracy(model, held_out, READ, found).all()


@pytest.mark.parametrize("site", [Site("resid_pre", 0), Site("resid_pre", 2), Site("resid_post", 2)])
def test_the_fast_path_is_the_edit_primitive(random_model, site):
    """Against `run_with` and `interchange`; in half of the pairs what the edited run says is made the target."""
    asked = pairs("s_2", "cot", place=("previous_total", 3), n=20)
    subspace = Subspace.random(16, 5, np.random.default_rng(0))
    donor = activations(random_model, asked.source.tokens, [site], positions=asked.source_at)[site]
    logits = run_with(random_model, asked.base.tokens, [interchange(site, donor, subspace, asked.at)])
    said = logits.argmax(-1)
    rows = torch.arange(len(asked))
    tokens = asked.base.tokens.clone()
    half = rows % 2 == 0
    tokens[half, asked.given[half]] = said[half, asked.given[half] - 1]
    again = run_with(random_model, tokens, [interchange(site, donor, subspace, asked.at)]).argmax(-1)
    tokens[half, asked.given[half] + 1] = again[half, asked.given[half]]
    told = replace(asked, base=replace(asked.base, tokens=tokens))
    expected = (again[rows, asked.given - 1] == tokens[rows, asked.given]) & (
        again[rows, asked.given] == tokens[rows, asked.given + 1]
    )
    found = interchange_accuracy(random_model, told, site, subspace)
    assert found.tolist() == expected.tolist()
    assert found[half].all()
    assert not found.all()


def test_hooks_and_the_fast_path_learn_the_same_subspace(random_model):
    """Attached hooks send the same model the generic way."""
    known = pairs("s_2", "cot", place=("previous_total", 3), n=30, split="train")
    few = SubspaceSearch(rank=2, steps=4, batch_size=16)
    fast = learn_subspace(random_model, known, READ, few)
    with random_model.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda value, hook: value)]):
        slow = learn_subspace(random_model, known, READ, few)
    torch.testing.assert_close(slow.basis, fast.basis, atol=1e-4, rtol=1e-3)
    start = learn_subspace(random_model, known, READ, replace(few, learning_rate=1e-12))
    assert (fast.basis - start.basis).abs().max() > 0.01, "and it has moved"


@pytest.fixture(scope="module")
def found(models):
    variables = {"s_2": "mapped", "x_0": "unmapped"}
    asked = {"place": ("total", 2), "readout": ("total", 3), "variables": variables, "sites": [READ]}
    sides = problems(150), problems(60, "heldout")
    return {
        name: causal_variables(models[name], TASK, "totals", *sides, **asked, search=replace(FEW, steps=steps))
        for name, steps in (("reader", 80), ("recomputer", 10))
    }


def test_the_search_finds_what_is_carried_and_nothing_where_nothing_is(found):
    answers = {name: [answer for answer, _ in result.answers] for name, result in found.items()}
    assert answers == {
        "reader": ["carried", "not shown to be carried"],
        "recomputer": ["not shown to be carried"] * 2,
    }
    table = found["reader"].frame().set_index("target")
    assert table.loc["s_2", "iia"] > 0.85
    assert table.loc["s_2", "full_iia"] == 1.0
    assert (table["random_max"] < 0.3).all()
    assert (table["before_iia"] == 0).all()
    assert (table["base_accuracy"] == 1).all()
    assert table.loc["s_2", "shuffled_iia"] < table.loc["s_2", "iia"] - 0.25
    assert table.loc["s_2", "rest_iia"] < 0.25
    deaf = found["recomputer"].frame()
    assert (deaf[["iia", "full_iia", "shuffled_iia", "random_max", "train_iia"]] == 0).all(axis=None)


def test_the_table_and_the_rule(found):
    result = found["reader"]
    (cell, *_) = result.cells
    row = result.frame().iloc[0]
    assert row["n"] == len(cell.learned)
    assert row["ci_low"] < 1.0
    assert row["site"] == "L1.resid_pre"
    assert (row["role"], row["step"], row["readout"], row["rank"]) == ("total", 2, "total 3", 6)

    def judged(rule=DECLARED, **changes):
        return CausalVariables((replace(cell, **changes), *result.cells[1:]), rule, {}).answers[0]

    assert judged(base=np.arange(len(cell.base)) % 2 == 0)[0] == "undecided"
    assert judged(VariableRule(min_pairs=1000))[1] == f"{len(cell.learned)} held-out pairs; 1000 or more would decide"
    assert judged(shuffled=cell.learned)[0] == "not shown to be carried"
    assert judged(random=cell.learned[None])[0] == "not shown to be carried"
    twin = replace(cell, model="untrained")
    assert CausalVariables((cell, twin), VariableRule(), {}).answers[0][0] == "not shown to be carried"
    other = replace(cell, variable="x_0", hypothesis="unmapped")
    assert CausalVariables((cell, other), VariableRule(), {}).answers[0][0] == "not shown to be carried"
    assert result.figure().data


def test_what_is_refused(models):
    model, sides = models["reader"], (problems(10), problems(10, "heldout"))
    asked = {"place": ("total", 2), "readout": ("total", 3), "variables": {"s_2": "mapped"}, "sites": [READ]}
    with pytest.raises(ValueError, match="10 problems are in both training and test"):
        causal_variables(model, TASK, "totals", sides[0], sides[0], **asked)
    with pytest.raises(ValueError, match="give at least one variable and one site"):
        causal_variables(model, TASK, "totals", *sides, **{**asked, "sites": []})
    with pytest.raises(ValueError, match=r"L1.resid_mid cannot be written"):
        causal_variables(model, TASK, "totals", *sides, **{**asked, "sites": [Site("resid_mid", 1)]})
    with pytest.raises(ValueError, match="rank 1000 was asked for"):
        causal_variables(model, TASK, "totals", *sides, **asked, search=SubspaceSearch(rank=1000))
    with pytest.raises(ValueError, match="learning_rate=0.0"):
        SubspaceSearch(learning_rate=0.0)
