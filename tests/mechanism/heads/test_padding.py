"""No number of the heads' instruments depends on what fills the padding, how much of it there is, or on other rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from cotinterp.mechanism.heads.ablation import ablate_heads, compare_ablations
from cotinterp.mechanism.heads.attention import attention_by_role
from cotinterp.mechanism.heads.attribution import logit_attribution
from cotinterp.mechanism.heads.backups import backup_heads, direct_change
from cotinterp.mechanism.heads.knock_outs import Cuts, knock_out_reads
from cotinterp.mechanism.heads.losses import Draws, clean_difference, donors_of
from cotinterp.mechanism.heads.read_scores import iteration_scores, peakiness
from cotinterp.mechanism.heads.table import head_table
from cotinterp.mechanism.sites import Site
from cotinterp.tasks.registry import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.mechanism.padding import mixed_contrast, repadded, repadded_batch, same_numbers

pytestmark = pytest.mark.slow

VOCABULARY = Vocabulary.of(get_task("digit-sum"))
D_VOCAB, TWO = len(VOCABULARY), Draws(n_donors=2, n_random_sets=2)
SOME_HEADS = (Site("z", 0, 0), Site("z", 0, 2), Site("z", 1, 1))
CUTS = Cuts(methods=["pattern", "resample", "mean"], scopes=["layer", "all"])


@pytest.fixture(scope="module")
def model(make_tiny):
    return make_tiny(d_vocab=D_VOCAB, n_ctx=32)


@pytest.fixture(scope="module")
def contrast():
    return mixed_contrast()


INSTRUMENTS = {
    "attention_by_role": lambda m, c: attention_by_role(m, c).frame(),
    "iteration_scores": lambda m, c: iteration_scores(m, c).frame(),
    "logit_attribution": lambda m, c: logit_attribution(m, c).frame(),
    "compare_ablations": lambda m, c: compare_ablations(m, c, draws=TWO).frame(),
    "knock_out_reads": lambda m, c: knock_out_reads(m, c, cuts=CUTS, draws=TWO).frame(),
    "backup_heads": lambda m, c: backup_heads(m, c, SOME_HEADS, draws=TWO).frame(),
    "head_table": lambda m, c: head_table(m, c, draws=TWO).detail(),
    "head_table_joint": lambda m, c: head_table(m, c, draws=TWO).joint_frame(),
}
WITHOUT_ROLES = ("logit_attribution", "compare_ablations", "backup_heads", "head_table")


@pytest.fixture(scope="module")
def measured(model, contrast):
    """The table of each instrument on the contrast as it comes."""
    found = {}

    def of(name):
        return found.setdefault(name, INSTRUMENTS[name](model, contrast))

    return of


@pytest.mark.parametrize("wider", [0, 3])
@pytest.mark.parametrize("name", INSTRUMENTS)
def test_padding_says_nothing(model, contrast, measured, name, wider):
    same_numbers(measured(name), INSTRUMENTS[name](model, repadded(contrast, d_vocab=D_VOCAB, wider=wider)))


@pytest.mark.parametrize("name", WITHOUT_ROLES)
def test_rows_that_are_read_at_different_places_lend_each_other_nothing(model, contrast, name):
    """Without roles a row ends where it is read; only rows of one length are laid out alike."""
    bare = replace(contrast, batch=None, templates=None)
    assert len(bare.at.unique()) > 1
    reads = {
        "previous_total": {"readout": torch.ones(len(bare), *[bare.clean.shape[1]] * 2, dtype=torch.bool).tril(-1)}
    }

    def measure(one):
        if name != "head_table":
            return INSTRUMENTS[name](model, one)
        more = one.clean.shape[1] - bare.clean.shape[1]
        masks = {"previous_total": {"readout": functional.pad(reads["previous_total"]["readout"], (0, more, 0, more))}}
        return head_table(model, one, masks, draws=TWO).detail()

    same_numbers(measure(bare), measure(repadded(bare, d_vocab=D_VOCAB, wider=2)))


def test_peaks_do_not_see_the_padding(model):
    task = get_task("digit-sum")
    batch = collate([render(task, one, "totals") for one in solve(task, np.array([[1, 2, 3], [3, 1, 4]]))], VOCABULARY)
    same_numbers(peakiness(model, batch).frame(), peakiness(model, repadded_batch(batch, wider=4)).frame())


EACH = {
    "attention": lambda m, c: torch.cat([attention_by_role(m, c).mass.flatten(0, 3)]),
    "reads": lambda m, c: iteration_scores(m, c).attention.flatten(0, 2),
    "attribution": lambda m, c: logit_attribution(m, c).values,
    "clean": lambda m, c: clean_difference(m, c)[None],
    "mean": lambda m, c: compare_ablations(m, c, methods=["mean", "zero"]).lost.flatten(0, 1),
    "cut": lambda m, c: knock_out_reads(m, c, cuts=Cuts(methods=["pattern", "mean"], dests=["readout"])).lost[REAL],
}
REAL = slice(0, 2)


@pytest.mark.parametrize("name", EACH)
def test_a_row_has_the_same_numbers_wherever_it_stands_and_whoever_of_another_layout_stands_beside_it(
    model, contrast, name
):
    order = torch.randperm(len(contrast), generator=torch.Generator().manual_seed(0))
    alone = torch.from_numpy(np.flatnonzero(contrast.alike == contrast.alike[0]))
    whole = EACH[name](model, contrast)
    for rows in (order, alone):
        torch.testing.assert_close(
            EACH[name](model, contrast.select(rows)), whole[:, rows], rtol=1e-4, atol=1e-5, equal_nan=True
        )


def test_a_donor_gives_the_same_wherever_it_stands(model, contrast):
    """Resampling, with the donors moved along; the draws themselves depend on the order of the rows."""
    order = torch.randperm(len(contrast), generator=torch.Generator().manual_seed(1))
    place = order.argsort().numpy()
    donors = donors_of(contrast, 2, np.random.default_rng(0))
    moved = place[donors][:, order.numpy()]
    sets = [[site] for site in SOME_HEADS]
    whole = ablate_heads(model, contrast, sets, donors)
    torch.testing.assert_close(
        ablate_heads(model, contrast.select(order), sets, moved), whole[:, order], rtol=1e-4, atol=1e-5
    )
    rise = direct_change(model, contrast, SOME_HEADS, donors)
    torch.testing.assert_close(
        direct_change(model, contrast.select(order), SOME_HEADS, moved), rise[..., order], rtol=1e-4, atol=1e-5
    )


def test_layouts_of_one_template_other_transcripts_and_masks_of_numbers_are_refused(model, contrast):
    with pytest.raises(ValueError, match="have one template, 0, but are laid out in different ways"):
        replace(contrast, templates=np.zeros(len(contrast), dtype=np.int64))
    with pytest.raises(ValueError, match=r"batch holds other tokens than clean in examples \[0"):
        replace(contrast, clean=contrast.corrupted)
    with pytest.raises(ValueError, match="batch has 24 transcripts for 5 examples"):
        replace(contrast.select(slice(5)), batch=contrast.batch)
    with pytest.raises(ValueError, match="must be a boolean tensor"):
        replace(contrast, places={name: mask.long() for name, mask in contrast.places.items()})
    numbers = torch.ones_like(contrast.clean)
    for refused in (
        lambda: attention_by_role(model, contrast, {"all": numbers}),
        lambda: iteration_scores(model, contrast, {"all": {"total": numbers[:, None].expand(-1, 17, -1)}}),
        lambda: knock_out_reads(model, contrast, {"all": numbers}),
    ):
        with pytest.raises(ValueError, match="must be a boolean tensor.*give mask.bool"):
            refused()
    with pytest.raises(ValueError, match="got 0/1: give keep.bool"):
        contrast.select((contrast.at > 9).long())
