"""The explorer's numbers are those of the library, and what it cannot do it says."""

import contextlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.behavior.edits import trace_edits
from cotinterp.behavior.search.methods import METHODS
from cotinterp.behavior.search.scoring import Oracle
from cotinterp.behavior.search.writer import Search
from cotinterp.explore.requests import MOST_TOKENS
from cotinterp.explore.session import (
    MOST_MODELS,
    Difference,
    Draw,
    EdgeCut,
    Explorer,
    HeadCut,
    Patch,
    Place,
    Scene,
    Shown,
)
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.circuits import Edge, Graph, run_kept
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.attention import attention_by_role
from cotinterp.mechanism.interventions import ablate_zero, run_with
from cotinterp.mechanism.probing.controls import Controls
from cotinterp.mechanism.probing.totals import probe_totals
from cotinterp.mechanism.sites import Site
from cotinterp.models.decoding import prefixes, text_of, verified
from cotinterp.studies.subject import Subject
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems, solve
from cotinterp.transcripts.render import render
from tests.explore.conftest import COT, DIRECT, S3

SUM = Scene(model=COT, operands=(3, 4, 5, 6))
EDITED = SUM.model_copy(update={"total": (2, 15)})


def text(answer):
    return "".join(token["symbol"] for token in answer["tokens"])


def ids(explorer, model, written):
    return torch.tensor([explorer.runs[model].vocabulary.encode(written)])


def changed(scene, *changes):
    return scene.model_copy(update={"changes": changes})


def copied(site, layer, *, src, dest, source=SUM, head=-1):
    shown = Shown(model=source.model, operands=source.operands, total=source.total)
    return Patch(kind="patch", site=site, layer=layer, head=head, src=src, dest=dest, source=shown)


@pytest.mark.parametrize("model", [DIRECT, COT, S3])
def test_what_is_written_is_what_greedy_decoding_writes(explorer, model):
    run = explorer.runs[model]
    problems = sample_problems(run.task, 5, 6, split="heldout", rng=np.random.default_rng(0))
    batch = collate([render(run.task, problem, run.spec.regime) for problem in problems], run.vocabulary)
    written = verified(run.model, prefixes(run.model, batch), stop=run.vocabulary.end)
    for problem, transcript, tokens in zip(problems, batch.transcripts, written, strict=True):
        answer = explorer.write(Scene(model=model, operands=problem.operands))
        assert text(answer) == transcript.prompt + text_of(run.vocabulary, tokens)
        assert (answer["right"], answer["split"]) == (run.task.state_text(problem.answer), "heldout")


def test_a_token_has_its_role_its_writer_and_its_probability(explorer):
    answer = explorer.write(EDITED)
    assert text(answer) == "<3+4+5+6>{3+4=7;7+5=15;15+6=21}21#"
    p = run_with(explorer.runs[COT].model, ids(explorer, COT, text(answer)), [])[0].softmax(-1)
    token = answer["tokens"][26]
    assert (token["symbol"], token["role"], token["step"], token["value"], token["by"]) == (
        "6",
        "step_operand",
        3,
        6,
        "model",
    )
    assert token["p"] == pytest.approx(float(p[25, explorer.runs[COT].vocabulary.token("6")]), abs=1e-6)
    assert token["likeliest"][0][0] == "6"
    assert [answer["tokens"][place]["by"] for place in (8, 9, 21, 22)] == ["prompt", "given", "given", "model"]
    assert "p" not in answer["tokens"][0]


@pytest.mark.parametrize("model", [COT, S3])
def test_an_edited_total_is_judged_as_trace_edits_does(explorer, model):
    run = explorer.runs[model]
    problems = sample_problems(run.task, 4, 4, split="heldout", rng=np.random.default_rng(1))
    rng = np.random.default_rng(0)
    result = trace_edits(run.model, run.task, run.spec.regime, problems, edits=["substitute_total"], rng=rng)
    edited = [one for one in result.answers if one.edit == "substitute_total"]
    assert {str(one.outcome) for one in edited} <= {"follows", "ignores", "other"}
    assert len(edited) > 10
    for one in edited:
        scene = Scene(model=model, operands=one.problem.operands, total=(one.step, one.total))
        answer = explorer.write(scene)
        assert text(answer).endswith(one.text)
        assert answer["outcome"] == one.outcome


def test_a_self_patch_changes_nothing_and_a_full_one_is_the_other_run(explorer):
    alone, other = explorer.write(SUM), explorer.write(EDITED)
    own = changed(SUM, copied("resid_post", 2, src=20, dest=20))
    assert [token.get("p") for token in explorer.write(own)["tokens"]] == [token.get("p") for token in alone["tokens"]]
    assert not np.any(explorer.grid(own)["moved"])
    # At the last layer nothing is left to be done with what was written.
    whole = explorer.write(changed(SUM, copied("resid_post", 3, src=24, dest=24, source=EDITED)))
    assert whole["tokens"][25]["likeliest"] == other["tokens"][25]["likeliest"]


def test_the_embedding_of_a_written_total_carries_the_answer_of_its_run(explorer):
    """On this problem: what the reference model reads of this digit it has read by layer 1."""
    early = explorer.write(changed(SUM, copied("resid_pre", 0, src=21, dest=21, source=EDITED)))
    assert (early["answer"], early["outcome"], early["right"]) == ("21", "source", "18")
    late = explorer.write(changed(SUM, copied("resid_post", 1, src=21, dest=21, source=EDITED)))
    assert (late["answer"], late["outcome"]) == ("18", "right")


def test_what_a_patch_cannot_reach_does_not_move(explorer):
    moved = np.array(explorer.grid(changed(SUM, copied("resid_post", 1, src=21, dest=21, source=EDITED)))["moved"])
    reached = np.zeros(moved.shape, dtype=bool)
    reached[1, 21] = reached[2:, 21:] = True
    assert not moved[~reached].any()
    assert moved[1, 21] > 0.1
    assert moved[2:, 22:].any()


def test_a_head_knocked_out_is_an_ablated_one(explorer):
    scene = changed(SUM, HeadCut(kind="head", layer=0, head=3))
    answer, run = explorer.write(scene), explorer.runs[COT]
    p = run_with(run.model, ids(explorer, COT, text(answer)), [ablate_zero(Site("z", 0, 3))])[0].softmax(-1)
    given = [
        float(p[place - 1, run.vocabulary.token(token["symbol"])])
        for place, token in enumerate(answer["tokens"])
        if place
    ]
    assert given == pytest.approx([token["p"] for token in answer["tokens"][1:]], abs=1e-6)
    assert all(token["likeliest"][0][0] == token["symbol"] for token in answer["tokens"][9:])
    # It copied the operand: 0 stands for 4, in the role of the operand and without its value.
    wrong = answer["tokens"][12]
    assert (wrong["symbol"], wrong["role"], wrong["step"], wrong["value"]) == ("0", "step_operand", 1, -1)


def test_a_cut_edge_leaves_no_attention_there(explorer):
    place = Place(scene=SUM, position=16)
    before = np.array(explorer.look(place)["attention"])
    cut = Place(scene=changed(SUM, EdgeCut(kind="edge", layer=-1, head=-1, dest=16, src=13)), position=16)
    after = np.array(explorer.look(cut)["attention"])
    assert before[:, :, 13].max() > 0.1
    assert not after[:, :, 13].any()
    np.testing.assert_allclose(after.sum(-1), 1, atol=1e-5)


def test_the_lens_of_the_last_layer_is_the_model_and_the_parts_are_its_difference(explorer):
    run, answer = explorer.runs[COT], explorer.write(SUM)
    logits = run_with(run.model, ids(explorer, COT, text(answer)), [])[0]
    grid, found = explorer.grid(SUM), explorer.look(Place(scene=SUM, position=19))
    best = [run.vocabulary.symbols[token] for token in logits.argmax(-1).tolist()]
    assert grid["symbol"][-1] == best
    assert grid["p"][-1] == pytest.approx(logits.softmax(-1).max(-1).values.tolist(), abs=1e-5)
    # Two layers before the end, by hand.
    stream = activations(run.model, ids(explorer, COT, text(answer)), [Site("resid_post", 1)])[Site("resid_post", 1)]
    with torch.no_grad():
        by_hand = run.model.unembed(run.model.ln_final(stream))[0, 19].softmax(-1)
    assert found["lens"][1][0] == (
        run.vocabulary.symbols[int(by_hand.argmax())],
        pytest.approx(float(by_hand.max()), abs=1e-5),
    )
    top = logits[19].topk(2)
    assert found["difference"] == pytest.approx(float(top.values[0] - top.values[1]), abs=1e-4)
    assert sum(value for _, value in found["direct"]) == pytest.approx(found["difference"], abs=1e-3)


def test_attention_by_role_is_that_of_attention_by_role(explorer):
    answer, looked = explorer.write(EDITED), explorer.look(Place(scene=EDITED, position=26))
    run, tokens = explorer.runs[COT], ids(explorer, COT, text(answer))
    roles = [token["role"] for token in answer["tokens"]]
    groups = {role: torch.tensor([[role == other for other in roles]]) for role in dict.fromkeys(roles[:27])}
    here = torch.arange(len(roles))[None] == 26
    at, pair = torch.tensor([26]), torch.tensor([0])
    contrast = Contrast.by_position(tokens, tokens, at, pair, pair + 1)
    mass = attention_by_role(run.model, contrast, {"here": here} | groups).mass[:, :, 0, 1:, 0]
    assert [row["role"] for row in looked["by_role"]] == list(groups)
    assert np.array([row["attention"] for row in looked["by_role"]]) == pytest.approx(
        np.moveaxis(mass.numpy(), 2, 0), abs=1e-6
    )
    assert sum(row["n"] for row in looked["by_role"]) == 27


def test_a_model_of_ones_own_is_asked_as_a_run_is(explorer):
    run = explorer.runs[COT]
    own = Subject(
        model=run.model, task=run.task, regime="cot", run_seed=0, k_range=(2, 6), trained_on=(), variant="mine"
    )
    asked = Explorer([own])
    scene = changed(EDITED, HeadCut(kind="head", layer=0, head=3)).model_copy(update={"model": 0})
    place, there = Place(scene=scene, position=19), Place(scene=scene.model_copy(update={"model": COT}), position=19)
    assert asked.about()["models"][0]["slug"] == "mine"
    for name in ("write", "grid"):
        mine, its = getattr(asked, name)(scene), getattr(explorer, name)(there.scene)
        assert mine | {"python": ""} == its | {"python": ""}
    assert asked.look(place) | {"python": ""} == explorer.look(there) | {"python": ""}
    assert asked.probes(place)["probes"] == explorer.probes(there)["probes"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(asked.write(scene)["python"], "copied", "exec"), {"subject": own})
    given = [float(line.rsplit(" ", 1)[1]) for line in printed.getvalue().splitlines()]
    assert given == pytest.approx([token["p"] for token in asked.write(scene)["tokens"][1:]], abs=1e-6)
    with pytest.raises(ValueError, match="mine has 20 tokens, and task 's3' 16 symbols"):
        Explorer([replace(own, task=explorer.runs[S3].task)])


def test_a_probe_reads_as_well_as_probe_totals_says(explorer):
    run = explorer.runs[S3]
    scene = Scene(model=S3, operands=(1, 2, 3, 4))
    found = explorer.probes(Place(scene=scene, position=19))["probes"]
    sides = (("train", 600), ("heldout", 200))
    fitted, test = (
        collate(
            [
                render(run.task, p, "cot")
                for p in sample_problems(run.task, 4, n, split=side, rng=np.random.default_rng(0))
            ],
            run.vocabulary,
        )
        for side, n in sides
    )
    token = explorer.write(scene)["tokens"][19]
    assert token["role"] == "equals"
    table = probe_totals(
        run.model, fitted, test=test, places=[("equals", token["step"])], controls=Controls(n_shuffles=0)
    ).frame()
    table = table[table["site"] != "input"]
    assert [row["accuracy"] for row in found] == pytest.approx(table["accuracy"].tolist())
    assert [row["selectivity"] for row in found] == pytest.approx(table["selectivity"].tolist())
    next_total = [row for row in found if row["site"] == "L3.resid_post" and row["total"] == token["step"]]
    assert next_total[0]["accuracy"] > 0.95
    assert next_total[0]["reads"] == explorer.write(scene)["totals"][token["step"] - 1]


def test_an_edge_is_worth_what_the_run_without_it_loses(explorer):
    at = next(i for i, one in enumerate(explorer.write(SUM)["tokens"]) if (one["role"], one["step"]) == ("equals", 3))
    shown, other = (Shown(model=COT, operands=SUM.operands, total=total) for total in (None, (2, 15)))
    found = explorer.edges(Difference(shown=shown, other=other, position=at))
    assert (found["answer"], found["foil"]) == ("1", "2")
    model = explorer.runs[COT].model
    clean, corrupted = (ids(explorer, COT, text(explorer.write(scene)))[:, : at + 1] for scene in (SUM, EDITED))
    tokens = [torch.tensor([explorer.runs[COT].vocabulary.token(symbol)]) for symbol in "12"]
    contrast = Contrast.by_position(clean, corrupted, torch.tensor([at]), *tokens)
    graph = Graph.of(model)
    whole, none, without = (
        float(run_kept(model, contrast, edges)[0])
        for edges in (graph.edges, (), set(graph.edges) - {Edge.parse(found["edges"][0][0])})
    )
    assert found["n"] == len(graph.edges)
    assert whole - none == pytest.approx(found["gap"], rel=1e-4)
    assert (whole - without) / (whole - none) == pytest.approx(found["edges"][0][1], abs=1e-4)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(found["python"], "copied", "exec"), {})
    said = [line.split() for line in printed.getvalue().splitlines()]
    assert [name for name, _ in said] == [name for name, _ in found["edges"]]
    assert [float(share) for _, share in said] == pytest.approx([share for _, share in found["edges"]], abs=1e-6)


def test_the_python_beside_a_number_gives_that_number(explorer):
    scene = changed(
        EDITED,
        copied("z", 1, head=2, src=17, dest=17),
        EdgeCut(kind="edge", layer=2, head=1, dest=-1, src=3),
        HeadCut(kind="head", layer=0, head=1),
    )
    answer, printed = explorer.write(scene), io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(answer["python"], "copied", "exec"), {})
    given = [float(line.rsplit(" ", 1)[1]) for line in printed.getvalue().splitlines()]
    assert given == pytest.approx([token["p"] for token in answer["tokens"][1:]], abs=1e-6)
    looked, printed = explorer.look(Place(scene=scene, position=19)), io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(looked["python"], "copied", "exec"), {})
    said = [line.split() for line in printed.getvalue().splitlines() if line.startswith(("lens", "direct"))]
    lens, direct = looked["lens"], looked["direct"][:6]
    assert [float(line[-1]) for line in said] == pytest.approx(
        [row[0][1] for row in lens] + [value for _, value in direct], abs=1e-5
    )
    assert [line[-2] for line in said] == [row[0][0] for row in lens] + [name for name, _ in direct]
    probes, printed = explorer.probes(Place(scene=SUM, position=19)), io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(probes["python"], "copied", "exec"), {})
    assert str(round(probes["probes"][-1]["accuracy"], 3)) in printed.getvalue()


def test_an_answer_is_that_of_the_method_and_goes_through_json(explorer):
    request = {"ask": "write", "model": COT, "operands": [3, 4, 5, 6], "total": [2, 15]}
    answer = explorer.answer(json.loads(json.dumps(request)))
    assert answer == explorer.write(EDITED)
    assert json.loads(json.dumps(answer, allow_nan=False))["outcome"] == "follows"
    models = explorer.answer({"ask": "about"})["models"]
    assert [(one["id"], one["regime"], one["writes_totals"]) for one in models] == [
        (0, "direct", False),
        (1, "cot", True),
        (2, "cot", True),
    ]
    drawn = explorer.draw(Draw(model=S3, k=4, seed=1))["operands"]
    assert explorer.write(Scene(model=S3, operands=tuple(drawn)))["split"] == "heldout"


WRITE = {"ask": "write", "model": COT, "operands": [3, 4, 5, 6]}
EDGES = {"ask": "edges", "position": 3} | dict.fromkeys(("shown", "other"), {"model": COT, "operands": [3, 4]})
SPEND = {"ask": "spend", "model": COT, "operands": [3, 4, 5, 6], "method": "vote", "budget": 60}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "unknown request 'None'"),
        ({"ask": "__init__"}, "there are about, draw, write"),
        ({"ask": ["write"]}, "unknown request"),
        ({"ask": "about", "model": 0}, "unknown request"),
        (WRITE | {"model": 7}, "no model 7; there are 0 to 2"),
        (WRITE | {"model": -1}, "model: "),
        (WRITE | {"model": "../../etc/passwd"}, "valid integer"),
        (WRITE | {"model": True}, "valid integer"),
        (WRITE | {"task": "x.py:Task"}, "Extra inputs are not permitted"),
        (WRITE | {"operands": [3]}, "1 operands; this model can be asked about 2 to 6"),
        (WRITE | {"operands": [3] * 64}, "64 operands"),
        (WRITE | {"operands": [3] * 65}, "at most 64"),
        (WRITE | {"operands": [3, 10]}, "operand 10; task 'digit-sum' has 0 to 9"),
        (WRITE | {"operands": "3+4"}, "valid tuple"),
        (WRITE | {"total": [4, 1]}, "step 4; a problem of 4 operands has steps 1 to 3"),
        (WRITE | {"total": [1, 4000]}, "states 0 to 108"),
        (WRITE | {"model": DIRECT, "total": [1, 3]}, "'direct' writes no totals"),
        (WRITE | {"changes": [{"kind": "head", "layer": 9, "head": 0}]}, "layers 0 to 3"),
        (WRITE | {"changes": [{"kind": "head", "layer": 0, "head": 0}] * 17}, "at most 16"),
        (WRITE | {"changes": [{"kind": "exec", "code": "1"}]}, "does not match any of the expected tags"),
        (
            WRITE
            | {
                "changes": [
                    {
                        "kind": "patch",
                        "site": "z",
                        "layer": 0,
                        "dest": 1,
                        "src": 1,
                        "source": {"model": S3, "operands": [1, 2]},
                    }
                ]
            },
            "between runs of one model",
        ),
        ({"ask": "look", "scene": {"model": COT, "operands": [3, 4]}, "position": 400}, "positions 0 to"),
        (SPEND | {"budget": 0}, "budget: Input should be greater than or equal to 1"),
        (SPEND | {"budget": MOST_TOKENS + 1}, f"budget: Input should be less than or equal to {MOST_TOKENS}"),
        (SPEND | {"method": "magic"}, "method: Input should be 'greedy', 'sample'"),
        (SPEND | {"scorer": "judge"}, "scorer: Input should be 'oracle'"),
        (SPEND | {"temperature": -1}, "temperature: "),
        (SPEND | {"operands": [3]}, "1 operands; this model can be asked about 2 to 6"),
        ({"ask": "draw", "model": COT, "k": 40, "seed": 0}, "operands"),
        (EDGES, "both runs hold the same symbols up to here"),
        (EDGES | {"position": 400}, "positions 0 to"),
        (EDGES | {"other": {"model": S3, "operands": [3, 4]}}, "choose two runs of it"),
        (EDGES | {"shown": {"model": COT, "operands": [3, 4], "changes": []}}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_asked_is_said(explorer, request_, words):
    answer = explorer.answer(request_)
    assert list(answer) == ["error"]
    assert words in answer["error"]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_spent_is_what_the_method_spends(explorer, method):
    run, operands = explorer.runs[S3], (0, 5, 1, 4)
    asked = {"model": S3, "operands": list(operands), "method": method, "budget": 90, "temperature": 3.0}
    found = explorer.answer({"ask": "spend", **asked})
    batch = collate([render(run.task, *solve(run.task, np.array([operands])), "cot")], run.vocabulary)
    search, rng = Search(temperature=3.0, trees=True), np.random.default_rng(0)
    (answer,) = METHODS[method](run.model, run.task, batch, Oracle(), 90, rng=rng, search=search).answers
    assert (found["text"], found["correct"], found["drawn"]) == (answer.text, answer.correct, answer.drawn)
    assert found["spent"] == vars(answer.spent)
    assert found["score"] == (answer.score if answer.score == answer.score else None)
    assert [node["text"] for node in found["tree"]] == [node.text for node in answer.tree]
    assert bool(found["tree"]) == (method in ("beam", "mcts"))
    assert sum(n for _, n in found["votes"]) <= answer.drawn
    if method == "vote":
        assert found["score"] == found["votes"][0][1] / sum(n for _, n in found["votes"])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(found["python"], "copied", "exec"), {})
    assert answer.text in printed.getvalue()


def test_an_explorer_holds_some_models(explorer):
    with pytest.raises(ValueError, match=f"1 to {MOST_MODELS} models, got 0"):
        Explorer([])
    assert repr(explorer).startswith("Explorer(digit-sum-direct-L4-s0-93146b24, ")
