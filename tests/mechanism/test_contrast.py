from dataclasses import replace

import numpy as np
import pytest
import torch

from cotinterp.mechanism.contrast import Contrast
from cotinterp.tasks import get_task
from cotinterp.transcripts.pair_families import pair_families
from cotinterp.transcripts.pairs import operand_pairs, written_total_pairs
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.roles import Role, place_words

CLEAN = torch.tensor([[1, 2, 3, 4], [1, 5, 3, 4]])
CORRUPTED = torch.tensor([[1, 6, 3, 4], [1, 7, 3, 4]])
AT, ANSWER, FOIL = torch.tensor([2, 2]), torch.tensor([8, 9]), torch.tensor([9, 8])


def by_position(**changes):
    given = {"clean": CLEAN, "corrupted": CORRUPTED, "at": AT, "answer": ANSWER, "foil": FOIL}
    return Contrast.by_position(**{**given, **changes})


def test_every_position_is_a_place():
    contrast = by_position(symbols=list("abcd"))
    assert list(contrast.places) == ["position 0", "position 1", "position 2", "position 3"]
    for i, mask in enumerate(contrast.places.values()):
        assert mask.nonzero().tolist() == [[0, i], [1, i]]
    assert contrast.address("position 2") == ("position", 2, "c")


def test_without_addresses_the_label_is_the_role():
    contrast = Contrast(CLEAN, CORRUPTED, AT, ANSWER, FOIL, {"subject": CLEAN != CORRUPTED})
    assert contrast.address("subject") == ("subject", -1, "")


def test_until_the_readout():
    cut = by_position().until_readout()
    assert cut.clean.tolist() == [[1, 2, 3], [1, 5, 3]]
    assert list(cut.places) == ["position 0", "position 1", "position 2"]


def test_until_the_last_readout_where_they_differ():
    cut = by_position(at=torch.tensor([0, 2])).until_readout()
    assert cut.clean.shape == (2, 3)


def test_selecting_examples():
    for keep in (torch.tensor([False, True]), torch.tensor([1]), slice(1, 2)):
        one = by_position().select(keep)
        assert (one.clean.tolist(), one.answer.tolist(), len(one)) == ([[1, 5, 3, 4]], [9], 1)
        assert one.places["position 3"].tolist() == [[False, False, False, True]]


def test_a_reference_goes_where_the_tokens_go():
    pairs = replace(by_position(), reference=CLEAN.flip(0))
    assert pairs.until_readout().reference.tolist() == CLEAN.flip(0)[:, :3].tolist()
    assert pairs.select(slice(1, 2)).reference.tolist() == [CLEAN[0].tolist()]
    with pytest.raises(ValueError, match=r"reference has shape \(2, 3\); clean tokens \(2, 4\)"):
        replace(by_position(), reference=CLEAN[:, :3])


def test_unrelated_pairs_bring_their_reference_along():
    task = get_task("s3")
    chosen = solve(task, np.array([[1, 2, 3, 4], [2, 2, 5, 1]]))
    families = pair_families(task, chosen, "totals", step=2, rng=np.random.default_rng(0))
    contrasts = {family: Contrast.from_pairs(pairs) for family, pairs in families.items()}
    assert [contrast.pair for contrast in contrasts.values()] == [
        "prompt_operand 0 -> total 2",
        "written_total 1 -> total 2",
        "both 0 -> total 2",
        "unrelated 3 -> total 2",
    ]
    assert contrasts["both"].reference is None
    for family in ("prompt_operand", "written_total", "unrelated"):
        assert torch.equal(contrasts[family].reference, contrasts["both"].corrupted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corrupted": CORRUPTED[:, :3]}, r"corrupted has shape \(2, 3\); clean tokens \(2, 4\) ask for \(2, 4\)"),
        ({"answer": ANSWER[:1]}, r"answer has shape \(1,\).*ask for \(2,\)"),
        ({"at": torch.tensor([2, 4])}, r"`at` must lie inside the tokens, 0 to 3, got \[2, 4\]"),
        ({"foil": torch.tensor([8, 8])}, "same token in 1 of 2 pairs"),
        ({"symbols": ["a"]}, "1 symbols for 4 positions"),
    ],
)
def test_what_does_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        by_position(**changes)


def test_empty_places_are_refused():
    with pytest.raises(ValueError, match="needs places"):
        Contrast(CLEAN, CORRUPTED, AT, ANSWER, FOIL, {})
    with pytest.raises(ValueError, match="place 'subject' has no position in 1 of 2 examples"):
        Contrast(CLEAN, CORRUPTED, AT, ANSWER, FOIL, {"subject": CLEAN == 2})


def problems(*operands):
    return solve(get_task("digit-sum"), np.array(operands))


def test_places_of_a_chain_of_thought():
    """`<8+5+4>{8+5=13;13+4=17}17#`, the first total replaced: read where the next step copies it."""
    chosen = problems([8, 5, 4], [9, 7, 1])
    pairs = written_total_pairs(get_task("digit-sum"), chosen, "cot", step=1, rng=np.random.default_rng(0))
    contrast = Contrast.from_pairs(pairs)
    assert contrast.pair == "written_total 1 -> previous_total 2"
    assert {
        label: contrast.address(label).symbol
        for label in ("operand 0", "operator 1", "total 1", "equals 1", "step end 1")
    } == {"operand 0": "8", "operator 1": "+", "total 1": "13", "equals 1": "=", "step end 1": ";"}
    assert contrast.address("total 1")[:2] == ("total", 1)
    for label, mask in contrast.places.items():
        role, step, _ = contrast.address(label)
        assert torch.equal(mask, pairs.clean.mask(Role(role), step)), label
    assert "answer 2" not in contrast.places, "it lies behind the readout"
    assert contrast.places["total 1"].sum(1).tolist() == [2, 2], "both characters are one place"


def test_places_are_in_reading_order():
    pairs = operand_pairs(
        get_task("s3"), solve(get_task("s3"), np.array([[1, 2, 3]])), "direct", index=1, rng=np.random.default_rng(0)
    )
    assert list(Contrast.from_pairs(pairs).places) == [
        "prompt start",
        "operand 0",
        "operator 1",
        "operand 1",
        "operator 2",
        "operand 2",
        "prompt end",
    ]


def test_several_lengths_keep_what_all_have():
    chosen = (*problems([1, 2]), *problems([1, 2, 3]))
    pairs = operand_pairs(
        get_task("digit-sum"), chosen, "cot", index=0, rng=np.random.default_rng(0), readout=(Role.TOTAL, 1)
    )
    contrast = Contrast.from_pairs(pairs)
    assert "operand 1" in contrast.places
    assert "operand 2" not in contrast.places


def test_labels_are_words():
    assert place_words(Role.PREVIOUS_TOTAL, 2) == "previous total 2"
    assert place_words(Role.PROMPT_END, -1) == "prompt end"
