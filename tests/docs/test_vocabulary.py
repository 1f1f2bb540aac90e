"""The tables of vocabulary.md against the library: tasks, tokens, sites, edits, columns, categories."""

import re
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch

from cotinterp.behavior.edit_kinds import ALL_EDITS, WHOLE, Reason, get_edit
from cotinterp.behavior.edits import NONE, SHUFFLED, Outcome
from cotinterp.behavior.errors import Category
from cotinterp.behavior.search.verification import ScoredSteps, Verification
from cotinterp.behavior.step_importance import MEASURES, StepEffects, StepImportance
from cotinterp.depth.error_law import fit_error_laws
from cotinterp.mechanism.circuits import EdgeScores, FaithfulnessCurve, Graph, edge_agreement, edge_auroc
from cotinterp.mechanism.circuits.rivals import Rival, RivalCensus
from cotinterp.mechanism.circuits.stability import CircuitTransfer, circuit_stability
from cotinterp.mechanism.circuits.validity import validity_of
from cotinterp.mechanism.heads.attribution import Component
from cotinterp.mechanism.heads.composition import CompositionResult
from cotinterp.mechanism.heads.knock_outs import KnockOut, KnockOutResult
from cotinterp.mechanism.heads.matching import HeadMatches
from cotinterp.mechanism.heads.ov import OVResult
from cotinterp.mechanism.heads.routes import RouteResult
from cotinterp.mechanism.patching.runs import DIRECTIONS
from cotinterp.mechanism.probing.alignment import AlignedCell, AlignmentResult
from cotinterp.mechanism.probing.subspaces import Subspace
from cotinterp.mechanism.sites import HEAD_AXIS, KINDS, Site, refuse_write, site_columns
from cotinterp.mechanism.variables.causal import CausalVariables, VariableCell, VariableRule
from cotinterp.report.schema import SCHEMAS
from cotinterp.studies.dynamics import PRIMARY, Dynamics
from cotinterp.studies.events import event_order
from cotinterp.studies.learning_curves import learning_curves
from cotinterp.studies.verifier_use import VerifierUse
from cotinterp.tasks import get_task, task_names
from cotinterp.tasks.task import STRUCTURE
from cotinterp.transcripts.pairs import Family
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.regimes import regime_names
from cotinterp.transcripts.render import Transcript, render
from cotinterp.transcripts.roles import Role
from tests.docs.pages import REPOSITORY, prose, rows

PAGE = REPOSITORY / "docs" / "vocabulary.md"


def table(heading, first_column):
    """Rows under a heading whose first column is called so."""
    found = [row.cells for row in rows(PAGE) if row.heading == heading and next(iter(row.cells)) == first_column]
    assert found, f"no table {first_column!r} under {heading!r}"
    return found


def example(regime) -> Transcript:
    (problem,) = solve(get_task("digit-sum"), np.array([[3, 4, 5]]))
    return render(get_task("digit-sum"), problem, regime)


def test_every_token_of_the_example_is_named_as_render_names_it():
    written = [
        (int(row["position"]), row["symbol"], row["role"], int(row["step"]), int(row["part"]), int(row["value"]))
        for row in table("Roles", "position")
    ]
    tokens = example("cot").tokens
    assert written == [
        (i, token.symbol, str(token.role), token.step, token.part, token.value) for i, token in enumerate(tokens)
    ]
    assert f"`{example('cot').text}`" in prose(PAGE)


def test_the_example_shows_every_role_of_the_regime_and_the_symbols_name_the_rest():
    shown = {row["role"] for row in table("Roles", "position")} | {row["role"] for row in table("Symbols", "symbol")}
    assert "their role is `bracket`" in prose(PAGE)
    assert "have the role `example`" in prose(PAGE)
    assert {str(role) for role in Role} - {"bracket", "example"} <= shown


def test_symbols_are_those_of_the_transcripts_with_their_roles():
    written = {row["symbol"]: row["role"] for row in table("Symbols", "symbol")}
    assert sorted(written) == sorted(STRUCTURE)
    roles = {token.symbol: str(token.role) for token in example("cot").tokens if token.symbol in STRUCTURE}
    assert {symbol: written[symbol] for symbol in roles} == roles


def test_regimes_and_their_responses():
    written = {row["regime"]: row["response to `<3+4+5>"] for row in table("Regimes", "regime")}
    assert written == {regime: example(regime).response for regime in regime_names()}


def test_sites_hooks_axes_and_which_can_be_written():
    written = table("Sites", "kind")
    assert tuple(row["kind"] for row in written) == KINDS
    for row in written:
        site = Site(row["kind"], 0)
        assert row["hook in layer 0"] == site.hook
        assert row["head axis"] == str(HEAD_AXIS.get(site.kind, "none"))
        layout = row["layout, all heads"].split()
        assert "head" not in layout or layout.index("head") in (
            HEAD_AXIS[site.kind],
            len(layout) + HEAD_AXIS[site.kind],
        )
        assert ("head" in layout) == (site.kind in HEAD_AXIS)
        if row["can be written"] == "yes":
            refuse_write(site)
        else:
            with pytest.raises(ValueError, match="cannot be written"):
                refuse_write(site)


@pytest.mark.parametrize("name", list(SCHEMAS))
def test_columns_of_each_table_in_order(name):
    assert tuple(row["column"] for row in table(f"tables/{name}.csv", "column")) == SCHEMAS[name].columns


def test_values_of_columns():
    assert [row["category"] for row in table("tables/errors.csv", "category")] == [str(one) for one in Category]
    assert [row["outcome"] for row in table("Outcomes of an edited trace", "outcome")] == [str(one) for one in Outcome]
    assert tuple(row["direction"] for row in table("Denoise and noise", "direction")) == DIRECTIONS


def test_tasks_and_how_many_states_each_has():
    written = {row["task"]: int(row["states"]) for row in table("Problems", "task")}
    assert written == {name: get_task(name).n_states for name in task_names() if name in written}
    assert set(written) >= {"digit-sum", "parity", "s3", "random-labels"}


def test_edits_which_are_closed_and_which_are_of_the_whole_trace():
    written = table("Outcomes of an edited trace", "edit")
    assert {row["edit"] for row in written} == {*(kind.name for kind in ALL_EDITS), NONE, SHUFFLED}
    for row in (row for row in written if row["edit"] not in (NONE, SHUFFLED)):
        kind = get_edit(row["edit"])
        assert row["closed"] == ("yes" if kind.closed else "no"), kind.name
        assert (row["step"] == "-1") == (tuple(kind.steps(4)) == (WHOLE,)), kind.name


def test_reasons_for_leaving_an_edit_out():
    assert [row["reason"] for row in table("Outcomes of an edited trace", "reason")] == [str(one) for one in Reason]


def test_families_of_pairs():
    assert [row["family"] for row in table("Minimal pairs and readouts", "family")] == list(get_args(Family))


def test_columns_of_knock_outs_of_laws_of_errors_and_of_the_scan_of_a_sweep():
    cell = KnockOut("previous_total", "", "readout", None, None, "pattern", 0.5)
    frame = KnockOutResult((cell,), torch.ones(1, 6), torch.ones(6)).frame()
    assert [row["column"] for row in table("Knock-outs", "column")] == list(frame.columns)
    counts = pd.DataFrame({"run_seed": 0, "k": [2, 3, 4], "n": 90, "correct": [80, 70, 60]})
    written = [name for row in table("Laws of errors", "column") for name in re.findall(r"\w+", row["column"])]
    assert written == list(fit_error_laws(counts, fitted=(2, 3), resamples=2).frame().columns)
    assert tuple(row["column"] for row in table("Scans", "column")) == SCHEMAS["patching_scan"].columns[3:]


def test_columns_of_routes_and_across_models():
    site, one = Site("resid_pre", 1), torch.ones(1, 1, 2, 3)
    parts, problems = torch.ones(1, 1, 2, 1, 3), np.ones(3)
    part = Component("token_embedding")
    routes = RouteResult(
        "equals 2", ("total 1",), (part,), "contrast", parts, parts, torch.ones(1, 1, 2, 5, 5, 3), one, one
    )
    both = {"copy": np.arange(2), "* 1": np.arange(2)[::-1]}
    ov = OVResult("total 1", ("0", "1"), np.array([0, 1]), torch.ones(1, 2, 2, 2), both)
    composed = CompositionResult(torch.zeros(3, 2, 1, 2, 1), 0.1)
    cell = AlignedCell("0", "1", site, "rotation", problems, problems, *(np.ones((3, 1)),) * 4, 0.1, 1.0, 3)
    heads = (Site("z", 0, 0), Site("z", 0, 1))
    matches = HeadMatches("output", "0", "1", heads, heads, np.arange(2), np.eye(2), np.eye(2), 3)
    aligned = AlignmentResult((cell,), ()).frame()
    for heading, first, frame in (
        ("Routes", "route column", routes.frame()),
        ("Routes", "OV column", ov.frame().drop(columns=list(site_columns(site)))),
        ("Routes", "composition column", composed.frame()),
        (
            "Across models",
            "alignment column",
            aligned.drop(columns=list(site_columns(site))),
        ),
        ("Across models", "match column", matches.frame()),
    ):
        assert [row[first] for row in table(heading, first)] == list(frame.columns)


def test_columns_of_causal_variables_and_of_the_importance_of_steps():
    right = np.ones(4, dtype=bool)
    cell = VariableCell(
        variable="s_2",
        hypothesis="mapped",
        model="trained",
        site=Site("resid_pre", 1),
        place=(Role.EQUALS, 3),
        readout=(Role.TOTAL, 3),
        subspace=Subspace(torch.eye(3)[:, :1]),
        **dict.fromkeys(("learned", "shuffled", "full", "rest", "before", "train", "base"), right),
        random=right[None],
        dropped=0,
    )
    written = [row["column"] for row in table("Causal variables", "column")]
    assert written == list(CausalVariables((cell,), VariableRule(), {}).frame().columns)
    (problem,) = solve(get_task("digit-sum"), np.array([[3, 4, 5]]))
    step = StepEffects(problem, 1, "3+4=7;", 0.0, 8, (), 0, dict.fromkeys(MEASURES, 0.0))
    rows = table("Importance of steps", "column")
    assert [row["column"] for row in rows] == list(StepImportance((step,), 0).frame().columns)
    assert [name for name in MEASURES if f"`{name}`:" not in rows[2]["meaning"]] == []


def test_columns_of_verifiers():
    site, numbers, right = Site("resid_pre", 1), np.arange(4), np.array([True, False] * 2)
    one = ScoredSteps("probe", numbers / 4, right, where={"model": "trained", **site_columns(site)})
    written = [row["column"] for row in table("Verifiers of steps", "column")]
    assert written == list(Verification((one,), numbers, numbers).frame().columns)
    arms = np.zeros((3, 4))
    use = VerifierUse(site, right, numbers, arms > 0, arms > 0, arms, right)
    written = [row["use column"] for row in table("Verifiers of steps", "use column")]
    assert [*site_columns(site), *written] == list(use.frame().columns)


def test_columns_of_tests_of_circuits():
    def written(first):
        cells = (row[first] for row in table("Tests of circuits", first))
        return [name for cell in cells for name in re.findall(r"\w+", cell)]

    graph, values = Graph(1, 1), {"0": np.eye(8, 4)}
    valid = validity_of(
        lambda circuits: np.array([np.full(6, float(len(c))) for c in circuits]), graph, graph.edges[:2]
    )
    assert written("column") == list(valid.frame().columns)
    assert written("edge column") == list(valid.edge_frame().columns)
    stable = circuit_stability(values, graph.edges, sizes=(2,), n_pairs=2)
    assert written("stability column") == list(stable.frame().columns)
    moved = CircuitTransfer(edges=graph.edges[:2], scores={"pair": np.array([[1.0], [0.0], [1.0], [0.0]])})
    assert written("transfer column") == list(moved.frame().columns)
    one = Rival("circuit", graph.edges[:2], 0.0, 1.0, False)
    assert written("rivals column") == list(RivalCensus(circuit=one, rivals=(), gap_p=1.0).frame().columns)
    found = prose(PAGE)
    for result in (stable.edge_frame(), RivalCensus(circuit=one, rivals=(one,), gap_p=1.0).rival_frame()):
        assert all(f"`{column}`" in found for column in result.columns)


def test_columns_of_edges_and_circuits():
    edges, gap = Graph(1, 1).edges, np.ones(2)
    scores = EdgeScores(
        edges=edges,
        change=np.eye(len(edges), 2),
        gap=gap,
        method="exact",
        direction="noise",
        metric="logit_diff",
        ranking="absolute",
        steps=0,
        pair="pair",
        place="",
        labels={"task": "z6", "regime": "cot", "run_seed": 0},
    )
    heading = "Edges and circuits"
    written = [name for row in table(heading, "column") for name in re.findall(r"\w+", row["column"])]
    assert written == list(scores.frame().columns)
    about = written[: written.index("edge")]
    curve = FaithfulnessCurve(
        circuits=(frozenset(), frozenset(edges)),
        metrics=np.eye(2) * 2,
        accuracy=np.eye(2),
        clean=gap,
        corrupted=-gap,
        about=scores.about(),
        n_connected=(0, len(edges)),
        labels=scores.labels,
    )
    found = {"agreement": edge_agreement(scores, scores), "known": edge_auroc(scores, edges[:1]), "circuit": curve}
    for name, result in found.items():
        column = f"{name} column"
        assert [*about, *(row[column] for row in table(heading, column))] == list(result.frame().columns)


def test_columns_and_measures_of_dynamics():
    labels = {"task": "s3", "regime": "cot", "run_seed": 0}
    rising = {0: 0.0, 10: 0.0, 20: 1.0, 40: 1.0, 80: 1.0}
    values = {
        (update, measure, condition): np.full(4, value)
        for update, value in rising.items()
        for measure, condition in PRIMARY.items()
    }
    frame = Dynamics(4, "L0H1", values, labels).frame()
    written = {first: [row[first] for row in table("Dynamics", first)] for first in ("column", "dynamics measure")}
    assert [*labels, *written["column"]] == list(frame.columns)
    assert written["dynamics measure"] == list(PRIMARY)
    conditions = [row["conditions"].split(",")[0].strip("` ") for row in table("Dynamics", "dynamics measure")]
    assert conditions == list(PRIMARY.values())
    order = event_order(frame)
    for first, shown in (
        ("event column", order.events.columns[4:]),
        ("order column", order.frame().columns[2:]),
        ("curve column", learning_curves(frame).frame().columns[3:]),
    ):
        assert [row[first] for row in table("Dynamics", first)] == list(shown)
