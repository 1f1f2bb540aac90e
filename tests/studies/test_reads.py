"""What a total is computed from: families of pairs and knock-outs, on models whose mechanism is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.calibration.ground_truth import untrained
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.heads.reads import read_sources
from cotinterp.mechanism.interventions import patch, run_with
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.sites import Site
from cotinterp.models.handmade import parallel, reader, recomputer
from cotinterp.studies.reads import ALL_VALUES_READ, READS, families, knock_outs
from cotinterp.studies.subject import Effort
from cotinterp.transcripts.pair_families import pair_families
from cotinterp.transcripts.roles import RESPONSE_ROLES, Role
from tests.studies.z6_subjects import K_RANGE, Z6, cell_rates, subject

pytestmark = pytest.mark.slow

EFFORT = Effort(paired=20)
EMBEDDED = Site("resid_pre", 0)


@pytest.mark.parametrize("regime", ["totals", "cot"])
@pytest.mark.parametrize(("build", "source"), [(reader, "written_total"), (recomputer, "prompt_operand")])
def test_the_effect_is_that_of_the_source(build, source, regime):
    rows = families(subject(build(Z6, regime, K_RANGE), regime), EFFORT)
    expected = {"prompt_operand": 0.0, "written_total": 0.0, "unrelated": 0.0, "both": 1.0}
    assert cell_rates(rows, "family_effect") == pytest.approx({**expected, source: 1.0}, abs=1e-5)
    assert cell_rates(rows, "family_told_apart") == {"": 1.0}
    assert set(rows["k"]) == {4}
    assert rows.groupby(["measure", "condition"])["problems"].sum().tolist() == [20] * 5


@pytest.fixture(scope="module")
def random():
    """A model at its initialization, whose effects are none of 0 and 1, with the pairs that it is asked."""
    made = subject(untrained("z6", "cot", 0).model, "cot")
    problems = made.heldout(EFFORT.paired, k=4)
    asked = pair_families(Z6, problems, "cot", step=2, rng=np.random.default_rng(0))
    return made, asked, cell_rates(families(made, EFFORT), "family_effect")


def patched(model, asked, into, source, where):
    """Mean logit difference of `into` with the embeddings of `source` at the places `where`; and without."""
    donor = activations(model, source.tokens, [EMBEDDED])[EMBEDDED]
    runs = [run_with(model, into.tokens, edits) for edits in ([], [patch(EMBEDDED, donor, where)])]
    return [logit_diff(logits, asked.at, asked.answer, asked.foil).double().mean().item() for logits in runs]


def gap_of(random):
    """Mean gap of the pairs, from the two runs themselves."""
    made, asked, _ = random
    both = asked["both"]
    runs = [run_with(made.model, run.tokens, []) for run in (both.clean, both.corrupted)]
    clean, corrupted = (logit_diff(logits, both.at, both.answer, both.foil).double().mean() for logits in runs)
    return float(clean - corrupted)


@pytest.mark.parametrize("family", ["written_total", "prompt_operand", "unrelated"])
def test_noising_the_changed_tokens_at_the_first_layer_is_the_run_of_the_family(random, family):
    made, asked, effects = random
    pairs = asked[family]
    changed = pairs.clean.tokens != pairs.corrupted.tokens
    before, after = patched(made.model, pairs, pairs.clean, pairs.corrupted, changed)
    assert (before - after) / gap_of(random) == pytest.approx(effects[family], abs=1e-3)


def test_denoising_the_trace_is_the_rest_of_the_effect_of_the_prompt(random):
    made, asked, effects = random
    both = asked["both"]
    trace = torch.stack([both.clean.mask(role) for role in RESPONSE_ROLES]).any(dim=0)
    before, after = patched(made.model, both, both.corrupted, both.clean, trace)
    assert (after - before) / gap_of(random) == pytest.approx(1 - effects["prompt_operand"], abs=1e-3)


def test_a_model_without_a_mechanism_does_not_tell_the_runs_apart(random):
    made, _, effects = random
    assert effects["both"] == 1.0
    assert abs(effects["written_total"] - 1) > 0.1
    rates = cell_rates(families(made, EFFORT), "family_told_apart")
    assert rates[""] < 0.3


def test_no_rows_without_written_totals_or_an_operand_after_the_step():
    assert families(subject(parallel(Z6, K_RANGE), "direct"), EFFORT).empty
    short = subject(reader(Z6, "cot", K_RANGE), "cot", k_range=(2, 3))
    assert families(short, EFFORT).empty


EFFORT_KNOCK_OUTS = Effort(paired=30)
NAMES = ("previous_total", "earlier_operands", "next_operand", "all_values")


@pytest.mark.parametrize("regime", ["totals", "cot"])
@pytest.mark.parametrize(
    ("build", "needed", "not_needed"),
    [(reader, "previous_total", "earlier_operands"), (recomputer, "earlier_operands", "previous_total")],
)
def test_what_is_read_is_needed_and_what_a_decoy_looks_at_is_not(build, needed, not_needed, regime):
    rows = knock_outs(subject(build(Z6, regime, K_RANGE, decoy=True), regime), EFFORT_KNOCK_OUTS)
    lost = cell_rates(rows, "read_lost")
    assert lost[needed] > 0.7
    assert lost["next_operand"] > 0.7
    assert lost["all_values"] > 0.7
    assert lost[not_needed] == 0.0
    assert lost["stale_total"] == 0.0
    assert [lost[f"random:{name}"] for name in NAMES] == [0.0] * 4
    assert set(lost) == {*NAMES, "stale_total", *(f"random:{name}" for name in NAMES)}
    assert set(rows.groupby("condition")["problems"].sum()) == {30}


def test_what_is_needed_loses_all_on_average():
    """Of six values one leads to the answer and costs nothing, one to the foil and costs twice, the others once."""
    effort = Effort(paired=120)
    lost = cell_rates(knock_outs(subject(reader(Z6, "totals", K_RANGE), "totals"), effort), "read_lost")
    assert lost["previous_total"] == pytest.approx(1.0, abs=0.15)


def test_all_values_are_those_of_the_three_reads():
    made = subject(reader(Z6, "cot", K_RANGE), "cot")
    batch = made.batch(made.heldout(3, k=4))
    one_by_one = [read_sources(batch, read, Role.TOTAL, 3) for read in READS]
    together = read_sources(batch, ALL_VALUES_READ, Role.TOTAL, 3)
    assert (together == one_by_one[0] | one_by_one[1] | one_by_one[2]).all()
    assert [int(mask.sum()) for mask in (*one_by_one, together)] == [6, 15, 6, 27]


def test_of_two_steps_there_is_no_stale_total():
    short = subject(reader(Z6, "cot", K_RANGE), "cot", k_range=(2, 3))
    lost = cell_rates(knock_outs(short, EFFORT_KNOCK_OUTS), "read_lost")
    assert "stale_total" not in lost
    assert lost["previous_total"] > 0.7


def test_an_untrained_model_has_little_to_lose():
    rows = knock_outs(subject(untrained("z6", "cot", 0).model, "cot"), EFFORT_KNOCK_OUTS)
    known = knock_outs(subject(reader(Z6, "cot", K_RANGE), "cot"), EFFORT_KNOCK_OUTS)
    clean, needed = (abs(table["trials"] * table["problems"]).sum() for table in (rows, known))
    assert clean < 0.1 * needed


def test_no_rows_without_written_totals_or_a_total_before_the_last():
    assert knock_outs(subject(parallel(Z6, K_RANGE), "direct"), EFFORT_KNOCK_OUTS).empty
    assert knock_outs(subject(reader(Z6, "cot", K_RANGE), "cot", k_range=(2, 2)), EFFORT_KNOCK_OUTS).empty


def test_a_single_problem_has_no_donor():
    with pytest.raises(ValueError, match="a single held-out problem of 4 operands"):
        knock_outs(subject(reader(Z6, "cot", K_RANGE), "cot"), replace(EFFORT_KNOCK_OUTS, paired=1))
