"""No number of the heads' instruments depends on what fills the padding, how much of it there is, or on other rows."""

import pytest

from cotinterp.mechanism.heads.ablation import compare_ablations
from cotinterp.mechanism.heads.attention import attention_by_role
from cotinterp.mechanism.heads.attribution import logit_attribution
from cotinterp.mechanism.heads.backups import backup_heads
from cotinterp.mechanism.heads.knock_outs import Cuts, knock_out_reads
from cotinterp.mechanism.heads.losses import Draws
from cotinterp.mechanism.heads.read_scores import iteration_scores
from cotinterp.mechanism.heads.table import head_table
from cotinterp.mechanism.sites import Site
from tests.mechanism.padding import mixed_contrast, repadded, same_numbers

pytestmark = pytest.mark.slow

D_VOCAB, TWO = 20, Draws(n_donors=2, n_random_sets=2)
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


@pytest.mark.parametrize("wider", [0, 3])
@pytest.mark.parametrize("name", INSTRUMENTS)
def test_padding_says_nothing(model, contrast, name, wider):
    measure = INSTRUMENTS[name]
    same_numbers(measure(model, contrast), measure(model, repadded(contrast, d_vocab=D_VOCAB, wider=wider)))
