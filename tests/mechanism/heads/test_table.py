"""The table of heads finds the head whose work is known, and nothing in heads that do nothing."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.labels import HEAD_LABELS, LabelCondition, LabelRule
from cotinterp.mechanism.heads.losses import Draws, clean_difference
from cotinterp.mechanism.heads.table import head_table
from cotinterp.mechanism.sites import Site
from cotinterp.models.build import build_model
from cotinterp.models.handmade import reader, recomputer
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks.registry import get_task
from cotinterp.transcripts.pairs import operand_pairs, written_total_pairs
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.mechanism.contrasts import asked
from tests.mechanism.copier import previous_token_copier

pytestmark = pytest.mark.slow

COLUMNS = [
    "task",
    "regime",
    "run_seed",
    "site",
    "kind",
    "layer",
    "head",
    "attribution",
    "ablation_effect",
    "attention_to_previous_total",
    "attention_to_next_operand",
    "label",
    "readout",
    "n",
    "dropped",
    "note",
]
LABELS = {"task": "digit-sum", "regime": "cot", "run_seed": 0}
TASK = get_task("digit-sum")


@pytest.fixture
def copied(make_tiny):
    """Twenty problems of the copier: position 1 is "the total" that has to be said at position 2."""
    rng = np.random.default_rng(0)
    totals = torch.from_numpy(rng.integers(2, 8, size=20))
    tokens = torch.stack([torch.from_numpy(rng.integers(8, size=20)), totals, torch.zeros(20, dtype=torch.long)], dim=1)
    contrast = asked(clean=tokens, at=torch.full((20,), 2), answer=totals, foil=(totals - 1) % 6 + 2)
    mask = torch.zeros(20, 3, 3, dtype=torch.bool)
    mask[:, 2, 1] = True
    return previous_token_copier(make_tiny), contrast, mask


def test_the_copier_is_the_total_reader_by_hand(copied):
    model, contrast, mask = copied
    result = head_table(model, contrast, {"previous_total": {"answer": mask}}, labels=LABELS)
    copier, idle = (row for _, row in result.frame().iterrows())
    assert list(result.frame().columns) == COLUMNS
    assert copier["attribution"] == pytest.approx(3.0)
    assert copier["attention_to_previous_total"] == pytest.approx(1.0)
    assert copier["label"] == "total reader"
    assert 0.7 < copier["ablation_effect"] < 1.3
    assert (idle["attribution"], idle["ablation_effect"], idle["label"]) == (0.0, 0.0, "inert")
    assert idle["attention_to_previous_total"] == pytest.approx(1 / 3)
    assert result.frame()["attention_to_next_operand"].isna().all()


def test_looking_somewhere_else_makes_the_same_head_an_answer_writer(copied):
    model, contrast, mask = copied
    elsewhere = mask.roll(-1, dims=2)
    result = head_table(model, contrast, {"previous_total": {"answer": elsewhere}})
    assert result.head_labels == ("answer writer", "inert")


def test_a_target_that_does_not_count_makes_no_reader(copied):
    model, contrast, mask = copied
    reads = {"previous_total": {"total": mask}}
    assert head_table(model, contrast, reads, target="total").head_labels[0] == "total reader"
    assert head_table(model, contrast, reads, target="answer").head_labels[0] == "answer writer"


def test_label_and_table_go_by_the_attention_from_the_readout_alone(copied):
    """From position 1 the copier looks at 0 and not at 1: pooled with the readout it would look at half of what it
    reads."""
    model, contrast, mask = copied
    both = mask.clone()
    both[:, 1, 1] = True
    result = head_table(model, contrast, {"previous_total": {"answer": both}})
    row = result.frame().iloc[0]
    assert (row["attention_to_previous_total"], row["label"]) == (pytest.approx(1.0), "total reader")
    assert (row["readout"], row["n"], row["dropped"], row["note"]) == ("position 2", 20, 0, "")
    assert result.detail()["evidence_previous_total"][0] == pytest.approx(1.0)


def test_a_read_that_starts_elsewhere_than_the_readout_is_refused(copied):
    model, contrast, mask = copied
    with pytest.raises(ValueError, match="'previous_total' marks no source at the readout of any example"):
        head_table(model, contrast, {"previous_total": {"answer": mask.roll((-1, -1), dims=(1, 2))}})
    with pytest.raises(ValueError, match="the mask of read 'previous_total' must be a boolean"):
        head_table(model, contrast, {"previous_total": {"answer": mask.long()}})


@pytest.mark.parametrize("n", [2, 7])
def test_a_few_examples_decide_nothing(copied, n):
    model, contrast, mask = copied
    result = head_table(model, contrast.select(slice(n)), {"previous_total": {"answer": mask[:n]}})
    assert set(result.head_labels) == {"undecided"}
    assert set(result.frame()["note"]) == {f"{n} examples, 8 are needed"}
    assert result.flagged() == ()


def test_a_head_that_looks_at_the_total_but_is_not_needed_is_no_reader(copied):
    """The same pattern, its output weights gone: attention alone must not make a reader."""
    model, contrast, mask = copied
    with torch.no_grad():
        native = model.original_model
        native.layers[0].attn.o.weight.zero_()
        native.layers[0].attn.o.bias.zero_()
        native.head.weight[:, :8] = 0
        native.pos.weight[2, 16:] = torch.arange(8.0)
    descending = asked(clean=contrast.clean, at=contrast.at, answer=torch.full((20,), 7), foil=torch.full((20,), 2))
    result = head_table(model, descending, {"previous_total": {"answer": mask}})
    assert result.frame()["attention_to_previous_total"][0] == pytest.approx(1.0)
    assert result.head_labels == ("inert", "inert")


def test_flagged_are_the_heads_whose_loss_a_scan_of_all_heads_finds(copied):
    model, contrast, mask = copied
    result = head_table(model, contrast, {"previous_total": {"answer": mask}})
    assert result.flagged() == (Site("z", 0, 0),)
    assert result.flagged(level=1e-5) == ()
    row = result.detail().iloc[0]
    assert row["evidence_ablation_p"] <= 0.05
    assert row["evidence_ablation_low"] > 0
    turned = asked(clean=contrast.clean, at=contrast.at, answer=contrast.foil, foil=contrast.answer)
    assert head_table(model, turned, {}).flagged() == ()


def test_heads_that_look_are_ablated_together_whatever_their_label(copied):
    model, contrast, mask = copied
    result = head_table(model, contrast, {"previous_total": {"answer": mask.roll(-1, dims=2)}})
    assert result.looking == {}
    result = head_table(model, contrast, {"previous_total": {"answer": mask}}, rules=readers_above(1e9))
    assert result.joint.readers == ()
    assert result.looking["previous_total"].readers == (Site("z", 0, 0),)
    assert set(result.joint_frame()["group"]) == {"look at previous_total"}


def test_a_model_that_prefers_the_foil_gets_no_labels_and_no_shares(copied):
    model, contrast, mask = copied
    turned = asked(clean=contrast.clean, at=contrast.at, answer=contrast.foil, foil=contrast.answer)
    result = head_table(model, turned, {"previous_total": {"answer": mask}})
    assert set(result.head_labels) == {"undetermined"}
    assert result.frame()["ablation_effect"].isna().all()
    assert result.detail()["logits_lost"][0] < 0


def test_two_copiers_that_share_the_work_are_ablated_together(make_tiny):
    """Both heads copy, each half. Together they lose what both lose singly, and there are no others to compare with."""
    model = previous_token_copier(make_tiny)
    with torch.no_grad():
        attn = model.original_model.layers[0].attn
        for projection in (attn.q, attn.k, attn.v):
            projection.weight[8:] = projection.weight[:8]
        attn.o.weight[:, :8] /= 2
        attn.o.weight[:, 8:] = attn.o.weight[:, :8]
    totals = torch.arange(2, 8).repeat(4)
    tokens = torch.stack([totals, totals, totals], dim=1)
    contrast = asked(clean=tokens, at=torch.full((24,), 2), answer=totals, foil=(totals - 1) % 6 + 2)
    mask = torch.zeros(24, 3, 3, dtype=torch.bool)
    mask[:, 2, 1] = True
    result = head_table(model, contrast, {"previous_total": {"answer": mask}})
    assert result.joint.readers == (Site("z", 0, 0), Site("z", 0, 1))
    assert result.joint_effect == pytest.approx(result.frame()["ablation_effect"].sum())
    assert result.joint_effect == pytest.approx(result.joint.summed_effect)
    assert np.isnan(result.random_joint_effect)


@pytest.fixture
def problems():
    rng = np.random.default_rng(1)
    return solve(TASK, np.unique(rng.integers(10, size=(24, 3)), axis=0))


@pytest.fixture
def model(make_tiny):
    return make_tiny(d_vocab=len(Vocabulary.of(TASK)), n_ctx=48)


def test_the_table_of_pairs_has_the_fixed_columns_and_every_head(model, problems):
    pairs = written_total_pairs(TASK, problems, "cot", step=1, rng=np.random.default_rng(0))
    result = head_table(model, Contrast.from_pairs(pairs), labels=LABELS)
    frame = result.frame()
    assert list(frame.columns) == COLUMNS
    assert frame[["layer", "head"]].to_numpy().tolist() == [[layer, head] for layer in range(2) for head in range(4)]
    assert frame["label"].isin({rule.label for rule in HEAD_LABELS}).all()
    assert frame["attention_to_previous_total"].between(0, 1).all()


def test_pairs_tell_their_templates_and_what_is_predicted_at_the_readout(model):
    """The totals 17 and 24 take two characters: that transcript has no companion to give to or receive from."""
    few = solve(TASK, np.array([[1, 2, 3], [2, 3, 1], [9, 8, 7]]))
    result = head_table(
        model, Contrast.from_pairs(operand_pairs(TASK, few, "totals", index=1, rng=np.random.default_rng(0)))
    )
    assert result.readout == "total 1"
    assert (result.ablation.isnan() == torch.tensor([False, False, True])).all()
    assert set(result.detail()["n_ablated"]) == {2}


def test_a_regime_without_totals_has_no_attention_to_them(model, problems):
    pairs = operand_pairs(TASK, problems, "direct", index=1, rng=np.random.default_rng(0))
    frame = head_table(model, Contrast.from_pairs(pairs)).frame()
    assert frame["attention_to_previous_total"].isna().all()
    assert frame["attention_to_next_operand"].between(0, 1).all()


def test_equal_seeds_give_equal_tables_and_other_seeds_other_draws(model, pairs):
    one, same, other = (head_table(model, Contrast.from_pairs(pairs), draws=Draws(seed=seed)) for seed in (0, 0, 1))
    torch.testing.assert_close(one.ablation, same.ablation, rtol=0, atol=0, equal_nan=True)
    assert (one.ablation - other.ablation).abs().nan_to_num().max() > 1e-3
    assert torch.equal(one.attribution, other.attribution)


def readers_above(threshold):
    """Rules by which a head is a reader if it writes more than this share; for tests of what is done with readers."""
    reader = LabelRule("total reader", "", (LabelCondition("attribution_share", ">", threshold),))
    return (reader, LabelRule("mixed", ""))


@pytest.fixture
def pairs(problems):
    return operand_pairs(TASK, problems, "totals", index=1, rng=np.random.default_rng(0))


def test_without_readers_there_is_no_joint_ablation(model, pairs):
    result = head_table(model, Contrast.from_pairs(pairs), rules=readers_above(1e9))
    assert result.joint.readers == ()
    assert np.isnan([result.joint_effect, result.random_joint_effect]).all()
    assert result.joint.frame().empty


def test_readers_are_compared_with_random_sets_of_as_many_other_heads(model, pairs):
    """With one reader, every set is a single head, whose effect stands in the table already."""
    contrast = Contrast.from_pairs(pairs)
    contrast = contrast.select(clean_difference(model, contrast) > 0)
    shares = head_table(model, contrast).detail()["evidence_attribution_share"]
    result = head_table(
        model,
        contrast,
        rules=readers_above(float(shares.nlargest(2).mean())),
        draws=Draws(n_random_sets=5),
    )
    assert [site.block for site in result.joint.readers] == [f"L{shares.idxmax() // 4}H{shares.idxmax() % 4}"]
    single = result.frame()["ablation_effect"]
    assert result.joint_effect == pytest.approx(single[shares.idxmax()])
    frame = result.joint.frame()
    assert frame["set"].value_counts().to_dict() == {"random set": 5, "readers": 1, "sum of single readers": 1}
    random = frame.loc[frame["set"] == "random set", "effect"]
    others = single.drop(shares.idxmax()).to_numpy()
    assert all(np.isclose(others, value, atol=1e-6).any() for value in random)
    assert result.random_joint_effect == pytest.approx(random.mean())


def test_detail_has_the_evidence_behind_each_label(copied):
    model, contrast, mask = copied
    result = head_table(model, contrast, {"previous_total": {"answer": mask}})
    row = result.detail().iloc[0]
    assert row["evidence_previous_total"] == pytest.approx(1.0)
    assert row["chance_previous_total"] == pytest.approx(1 / 3)
    assert row["logits_lost"] == pytest.approx(row["ablation_effect"] * row["clean_logit_difference"])
    assert row["evidence_ablation_low"] <= row["ablation_ci_low"] <= row["ablation_effect"] <= row["ablation_ci_high"]
    assert (row["n"], row["n_ablated"]) == (20, 20)
    assert result.rule_text.startswith("1. undecided: n < 8")


def test_the_figure_has_a_row_for_each_head_and_a_column_for_each_number(copied):
    model, contrast, mask = copied
    result = head_table(model, contrast, {"previous_total": {"answer": mask}}, labels=LABELS)
    figure = result.figure()
    assert len(figure.data) == 4
    assert all(len(trace.y) == 2 for trace in figure.data)
    assert "total reader" in figure.data[0].y[0]
    np.testing.assert_allclose(figure.data[0].z[:, 0], result.frame()["attribution"])
    assert figure.data[3].text[0][0] == "–"


def test_saving_writes_the_table_and_the_figure(copied, tmp_path):
    model, contrast, mask = copied
    table, _ = head_table(model, contrast, {"previous_total": {"answer": mask}}, labels=LABELS).save(tmp_path, "heads")
    assert table.read_text().splitlines()[0] == ",".join(COLUMNS)


@pytest.mark.parametrize("regime", ["totals", "cot"])
def test_handmade_readers_are_found_and_decoys_are_not(regime):
    task = get_task("z6")
    some = solve(task, np.unique(np.random.default_rng(0).integers(6, size=(20, 4)), axis=0))
    readout, rng = (Role.TOTAL, 3), np.random.default_rng(0)
    pairs = written_total_pairs(task, some, regime, step=2, rng=rng, readout=readout)
    result = head_table(
        reader(task, regime, decoy=True), Contrast.from_pairs(pairs), draws=Draws(n_donors=2, n_random_sets=1)
    )
    labels = {site.block: label for site, label in zip(result.sites, result.head_labels, strict=True)}
    assert (labels.pop("L1H0"), labels.pop("L1H1")) == ("total reader", "operand reader")
    assert set(labels.values()) == {"inert"}
    assert result.frame()["attention_to_previous_total"][5] > 0.99
    assert [site.block for site in result.flagged()] == ["L1H0", "L1H1"]

    pairs = operand_pairs(task, some, regime, index=1, rng=rng, readout=readout)
    result = head_table(
        recomputer(task, regime, (4, 4), decoy=True),
        Contrast.from_pairs(pairs),
        draws=Draws(n_donors=2, n_random_sets=1),
    )
    assert "total reader" not in result.head_labels
    assert "iteration head" not in result.head_labels
    decoy = result.frame().iloc[-1]
    assert decoy["attention_to_previous_total"] > 0.99
    assert (decoy["ablation_effect"], decoy["label"]) == (0, "inert")
    assert [site.block for site in result.flagged()] == ["L1H0", "L1H1", "L1H2", "L1H3"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_says_the_same_of_the_heads(dtype):
    task = get_task("z6")
    some = solve(task, np.unique(np.random.default_rng(0).integers(6, size=(12, 4)), axis=0))
    pairs = written_total_pairs(
        task, some, "totals", step=2, rng=np.random.default_rng(0), readout=(Role.TOTAL, 3), first_symbol=True
    )
    single, half = (
        head_table(reader(task).to(each), Contrast.from_pairs(pairs), draws=Draws(n_donors=1, n_random_sets=1))
        for each in (torch.float32, dtype)
    )
    assert half.head_labels == single.head_labels
    assert "total reader" in half.head_labels
    torch.testing.assert_close(half.ablation, single.ablation, rtol=0.03, atol=0.1)


def test_untrained_models_have_no_head_to_report():
    task, spec = get_task("z6"), ModelSpec(n_layers=2, d_model=32, n_heads=4, d_mlp=64)
    some = solve(task, np.unique(np.random.default_rng(0).integers(6, size=(40, 4)), axis=0))
    pairs = operand_pairs(task, some, "direct", index=3, rng=np.random.default_rng(0))
    for seed in range(3):
        model = build_model(spec, len(Vocabulary.of(task)), seed=seed)
        assert head_table(model, Contrast.from_pairs(pairs), draws=Draws(n_donors=2)).flagged() == ()


def test_a_read_of_another_name_is_refused_and_never_dropped(copied):
    model, contrast, mask = copied
    with pytest.raises(ValueError, match=r"unknown reads \['position 1'\].*\['previous_total', 'next_operand'\]"):
        head_table(model, contrast, {"position 1": {"answer": mask}})


def test_a_contrast_without_roles_needs_reads_as_masks(copied):
    model, contrast, _ = copied
    with pytest.raises(ValueError, match="no roles, so that no read is known by name"):
        head_table(model, contrast)
