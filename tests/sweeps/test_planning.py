"""Which runs a verdict needs: exactly the reference ones, each differing from the standard in one thing."""

from pathlib import Path

import pytest

from cotinterp.claims.claim import THRESHOLDS
from cotinterp.models.spec import ModelSpec
from cotinterp.studies.inference import searched
from cotinterp.studies.measuring import as_taught, outcomes
from cotinterp.sweeps.designs import JUDGED_CURRICULA
from cotinterp.sweeps.grid import read_grid
from cotinterp.sweeps.replication import PARTS, Planned, base_spec, joint_plan, plan
from cotinterp.tasks import get_task
from cotinterp.training.spec import OptimizerSpec, RunSpec, reference_specs
from cotinterp.transcripts.render import longest_transcript
from cotinterp.transcripts.vocabulary import Vocabulary

pytestmark = pytest.mark.slow

SMALL = RunSpec(
    task="parity",
    regime="cot",
    k_max=4,
    n_train=60,
    model=ModelSpec(n_layers=2, d_model=16, n_heads=2, d_mlp=32, n_ctx=40),
    optimizer=OptimizerSpec(steps=20),
    seed=7,
)


def test_the_reference_design_run_by_run():
    def spec(task, regime, **more):
        return RunSpec(task=task, regime=regime, seed=3, precision="bf16", **more)

    def until_converged(regime, n_train):
        return RunSpec(
            task="s3",
            regime=regime,
            seed=3,
            n_train=n_train,
            model=ModelSpec(n_layers=2, d_model=64, d_mlp=256),
            optimizer=OptimizerSpec(until="converged", steps=60_000),
        )

    expected = {
        Planned(spec("s3", "direct")),
        Planned(spec("s3", "cot")),
        Planned(spec("s3", "filler")),
        Planned(spec("s3", "direct", model=ModelSpec(n_layers=1)), "L1"),
        Planned(spec("s3", "direct", model=ModelSpec(n_layers=2)), "L2"),
        Planned(spec("s3", "direct", n_train=300), "n300"),
        Planned(spec("s3", "direct", n_train=10_000), "n10000"),
        Planned(spec("random-labels", "direct")),
        Planned(until_converged("direct", 1000), "converged-n1000"),
        Planned(until_converged("direct", 100_000), "converged-n100000"),
        Planned(until_converged("cot", 100_000), "converged-n100000"),
        Planned(spec("s3", "cot", optimizer=OptimizerSpec(steps=150)), "early"),
    }
    assert set(plan("s3", seeds=[3])) == expected


def test_the_committed_reference_models_are_in_it():
    slugs = {one.spec.slug for one in joint_plan(["digit-sum", "s3"], seeds=[0])}
    assert {spec.slug for spec in reference_specs()} <= slugs


def test_tasks_share_the_run_on_random_labels():
    together = joint_plan(["digit-sum", "s3"], seeds=range(5))
    assert len(together) == len(set(together)) == 5 * (2 * 11 + 1)


@pytest.mark.parametrize(("part", "variants"), [("depths", {"L1", "L2"}), ("sizes", {"n300", "n10000"})])
def test_a_part_alone(part, variants):
    assert {one.variant for one in plan("s3", seeds=[0], parts=[part])} == variants


def test_a_design_of_ones_own_keeps_everything_else():
    runs = plan("s3", seeds=[1, 2], base=SMALL)
    assert {one.variant for one in runs} == {"", "L1", "n6", "n200", "converged-n20", "converged-n2000", "early"}
    assert {one.spec.seed for one in runs} == {1, 2}
    for one in runs:
        same = {"task": SMALL.task, "regime": SMALL.regime, "seed": SMALL.seed}
        if one.variant.startswith(("converged", "early")):
            same |= {"optimizer": SMALL.optimizer}
        if one.variant.startswith("converged"):
            assert (one.spec.model.n_layers, one.spec.model.d_model, one.spec.optimizer.steps) == (1, 8, 600)
            same |= {"model": SMALL.model, "n_train": SMALL.n_train}
        same |= {"model": SMALL.model} if one.variant.startswith("L") else {}
        same |= {"n_train": SMALL.n_train} if one.variant.startswith("n") else {}
        assert one.spec.model_copy(update=same) == SMALL


def test_no_depth_beyond_the_base():
    one_layer = SMALL.model_copy(update={"model": SMALL.model.model_copy(update={"n_layers": 1})})
    assert plan("s3", seeds=[0], base=one_layer, parts=["depths"]) == ()


def test_a_size_that_rounds_to_the_standard_one_is_no_variant():
    one_problem = SMALL.model_copy(update={"n_train": 1})
    assert [one.variant for one in plan("s3", seeds=[0], base=one_problem, parts=["sizes"])] == ["n3"]


def test_the_slug_names_the_task_of_the_plan():
    assert all(one.spec.slug.startswith("s3-") for one in plan("s3", seeds=[0], base=SMALL, parts=["regimes"]))


def test_a_task_in_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from cotinterp.tasks import FoldTask\n"
        "class Doubling(FoldTask):\n"
        "    name, operands, commutative = 'doubling', '0123456', False\n"
        "    def step(self, total, operand):\n"
        "        return (2 * total + operand) % 7\n"
    )
    (direct, *_) = plan(f"{tmp_path}/mine.py:Doubling", seeds=[0], base=SMALL)
    assert direct.spec.slug.startswith("doubling-direct-L2-s0-")


def test_widths_are_planned_where_they_are_asked_for():
    found = plan("s3", seeds=[0], parts=["widths"])
    assert [(one.variant, one.spec.regime) for one in found] == [
        (f"w{width}", regime) for width in (4, 8, 16, 32, 64) for regime in ("direct", "cot")
    ]
    shapes = {(one.spec.model.n_layers, one.spec.model.d_model // one.spec.model.d_head) for one in found}
    assert shapes == {(2, 4)}
    assert {one.spec.optimizer.until for one in found} == {"converged"}
    assert {one.variant for one in plan("s3", seeds=[0])} & {one.variant for one in found} == set()


def test_ways_of_teaching_are_planned_with_their_controls_and_the_teacher():
    found = {one.variant: one for one in plan("parity", seeds=[3], base=SMALL, parts=["curricula"])}
    names = [name for way in JUDGED_CURRICULA for name in (way, f"{way}-control")]
    assert list(found) == ["", *names, "teacher"]
    assert {one.spec.seed for one in found.values()} == {3}
    assert found["teacher"].spec.slug == found["hidden-states"].spec.distill.teacher
    assert found["teacher"].measures == (outcomes,)
    assert {found[name].measures for name in names} == {(as_taught,)}


def test_two_runs_of_one_name_are_refused_before_they_are_trained():
    with pytest.raises(ValueError, match="regimes and curricula each have a run 'direct'"):
        plan("parity", seeds=[0], base=SMALL, parts=["regimes", "curricula"])


def test_adapters_begin_from_a_model_that_is_trained_before_them():
    found = plan("parity", seeds=[3], base=SMALL, parts=["adapters"])
    assert [one.variant for one in found] == [
        f"from-{start}-{what}" for start in ("other", "same") for what in ("all", "rank4-x1", "rank4-x5")
    ]
    for one in found:
        (start,) = one.before
        assert one.spec.start_from == start.slug
        assert (start.seed, start.regime, start.optimizer.steps) == (3, "cot", 2 * one.spec.optimizer.steps)
        assert start.task == ("z6" if "other" in one.variant else "parity")
    assert [one.spec.optimizer.lr for one in found[:3]] == [0.001, 0.001, 0.005]
    # A digit sum has symbols that z6 has not, and parity has none.
    (_, adapted, *_) = plan("digit-sum", seeds=[0], parts=["adapters"])
    assert (adapted.spec.adapter.full, found[1].spec.adapter.full) == (("embed", "unembed"), ())


def test_positions_have_room_for_twice_the_operands_and_encoders_look_ahead():
    found = plan("parity", seeds=[0], base=SMALL, parts=["positions"])
    schemes = ("standard", "rotary", "alibi", "sinusoidal", "none")
    regimes = ("direct", "cot")
    assert [(one.variant, one.spec.regime) for one in found] == [
        (f"positions-{scheme}", regime) for scheme in schemes for regime in regimes
    ]
    assert {one.spec.model.n_ctx for one in found} == {longest_transcript(get_task("parity"), 8, "cot")}
    assert {one.spec.n_train for one in found} == {400}
    encoders = plan("parity", seeds=[0], base=SMALL, parts=["encoder"])
    assert {(one.variant, one.spec.model.attention) for one in encoders} == {("encoder", "bidirectional")}


def test_a_small_model_writes_and_one_fourteen_times_as_large_answers_at_once():
    small, large = plan("s3", seeds=[2], parts=["search"])
    assert [(one.variant, one.spec.regime) for one in (small, large)] == [("small", "cot"), ("large", "direct")]
    d_vocab = len(Vocabulary.of(get_task("s3")))
    sizes = [one.spec.model.n_parameters(d_vocab) for one in (small, large)]
    assert sizes[1] > THRESHOLDS["times-larger"].value * sizes[0]
    apart = {"regime": "cot", "model": small.spec.model, "optimizer": small.spec.optimizer, "precision": "fp32"}
    assert large.spec.model_copy(update=apart) == small.spec
    assert small.spec.k_max == 10
    assert large.measures == small.measures[:2] == (outcomes, searched)


def test_reward_begins_from_bases_in_which_every_symbol_counts_the_same():
    found = {one.variant: one for one in plan("parity", seeds=[4], parts=["rewards"])}
    names = ["base-0", "grpo-0", "base-10", "grpo-10", "twin-10", "dealt-10"]
    assert list(found) == [*names, "base-early", "grpo-early", "twin-early", "dealt-early"]
    # Parity of 12 digits: 2 symbols at once, 69 with the trace.
    assert [one.words for one in found["base-10"].spec.mix] == ["direct*0.9@1.8", "cot*0.1@6.9"]
    assert [one.words for one in found["base-0"].spec.mix] == ["direct@2"]
    assert (found["base-10"].spec.k_min, found["base-10"].spec.k_max) == (12, 12)
    for name, one in found.items():
        begun, _, share = name.partition("-")
        base = found[f"base-{share}"].spec
        assert one.before == (() if begun == "base" else (base,))
        if begun != "base":
            assert one.spec.start_from == base.slug
            assert (one.spec.rewards is None) == (begun == "twin")
            assert one.spec.optimizer == found[f"grpo-{share}"].spec.optimizer
    assert found["twin-10"].spec.mix == found["base-10"].spec.mix
    assert found["dealt-10"].spec.rewards.shuffled


def test_a_model_whose_circuits_are_looked_at_keeps_weights_and_has_another_seed_beside_it():
    (one,) = plan("s3", seeds=[4], parts=["circuits"])
    (other,) = one.before
    assert (one.spec.regime, one.spec.model.n_layers, one.spec.model.d_model) == ("cot", 2, 64)
    assert one.spec.snapshots[:3] == (0, 20, 24)
    assert one.spec.snapshots[-1] == 1999
    assert other == one.spec.model_copy(update={"seed": 1004, "snapshots": ()})


@pytest.mark.parametrize("seeds", [[], [0, 1, 0]])
def test_seeds_that_replicate_nothing_are_refused(seeds):
    with pytest.raises(ValueError, match="distinct"):
        plan("s3", seeds=seeds)


def test_an_unknown_part_is_told_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown parts \['width'\].*regimes"):
        plan("s3", seeds=[0], parts=["width", *PARTS])


def test_nothing_changed_is_no_base():
    assert base_spec("s3") is None


def test_the_reference_design_with_some_of_it_changed():
    base = base_spec("s3", k_max=4, n_layers=2, steps=50)
    assert (base.k_max, base.model.n_layers, base.optimizer.steps, base.optimizer.warmup) == (4, 2, 50, 5)
    restored = base.model_copy(update={"k_max": 6, "model": ModelSpec(), "optimizer": OptimizerSpec()})
    assert restored == RunSpec(task="s3", regime="direct", precision="bf16")


def test_the_context_grows_with_the_longest_transcript_of_all_tasks():
    assert base_spec("parity", k_max=12).model.n_ctx == 94
    assert base_spec("digit-sum", "parity", k_max=12).model.n_ctx > 94
    assert base_spec("parity", k_max=7).model == ModelSpec()
    assert len(plan("parity", seeds=[0], base=base_spec("parity", k_max=12))) == len(plan("s3", seeds=[0]))


def test_one_change_alone():
    assert base_spec("s3", k_max=3).optimizer == OptimizerSpec()
    assert base_spec("s3", steps=5000).optimizer.warmup == OptimizerSpec().warmup


def test_other_sizes_keep_their_share_of_more_problems():
    more = plan("s3", seeds=[0], base=base_spec("s3", n_train=30_000), parts=["regimes", "sizes"])
    sizes = {one.variant: one.spec.n_train for one in more if one.spec.regime == "direct"}
    assert sizes == {"": 30_000, "n3000": 3000, "n100000": 100_000}


@pytest.mark.parametrize(("part", "grid"), [("encoder", "encoder_control"), ("positions", "length_generalization")])
def test_a_run_of_a_part_is_one_of_the_grid_of_the_same_question(part, grid):
    """What was trained for the script need not be trained again for the claim."""
    specs = set(read_grid(Path(__file__).parents[2] / f"analyses/grids/{grid}.toml").specs)
    assert {one.spec for task in ("z6", "s3") for one in plan(task, seeds=range(3), parts=[part])} == specs


def test_bases_on_parity_and_twins_on_z6_are_those_of_the_grids():
    grids = Path(__file__).parents[2] / "analyses/grids"
    for task, grid, kept in (
        ("parity", "rewards_parity", ("base-10", "grpo-10", "twin-10")),
        ("z6", "rewards_twins", ()),
    ):
        specs = set(read_grid(grids / f"{grid}.toml").specs)
        found = {one.variant: one.spec for one in plan(task, seeds=[0], parts=["rewards"])}
        kept = kept or [name for name in found if name.endswith("early")]
        assert {found[name] for name in kept} <= specs
