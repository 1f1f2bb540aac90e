"""The list of edits, and the one that writes a wrong total."""

import numpy as np
import pytest

from cotinterp.behavior.edit_kinds import ALL_EDITS, Original, Reason, SubstituteTotal, all_edits, get_edit
from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.regimes import get_regime

SUM = get_task("digit-sum")
COT = get_regime("cot")
(PROBLEM,) = solve(SUM, np.array([[3, 4, 5, 6]]))


def test_names():
    assert [kind.name for kind in ALL_EDITS] == [
        *("substitute_total", "swap", "swap_prefix", "truncate", "fill_totals", "fill_steps", "permute", "delete"),
        "edit_prompt",
    ]
    assert {kind.name for kind in ALL_EDITS if not kind.closed} == {"substitute_total", "swap_prefix"}
    assert len({kind.description for kind in ALL_EDITS}) == len(ALL_EDITS)
    assert get_edit("swap") is get_edit(ALL_EDITS[1]) is ALL_EDITS[1]
    with pytest.raises(KeyError, match="unknown edit 'swop'. Known: substitute_total, swap, swap_prefix"):
        get_edit("swop")


def test_all_wrong_totals_or_some_of_them():
    def texts(values):
        plan, _ = SubstituteTotal(values).plan(SUM, COT, [PROBLEM], 1, rng=np.random.default_rng(0))
        return [made.transcript.text[made.transcript.n_prompt : made.given] for made in plan]

    assert sorted(texts(None)) == [f"{{3+4={total}" for total in (0, 1, 2, 3, 4, 5, 6, 8, 9)]
    assert len(texts(2)) == 2
    assert all_edits(values_per_step=2)[0] == SubstituteTotal(2)
    with pytest.raises(ValueError, match="values_per_step must be 1 or more"):
        all_edits(values_per_step=0)


def test_one_wrong_total_as_any_other_edit():
    made = SubstituteTotal().edit(Original("substitute_total", SUM, COT, PROBLEM, 3, np.random.default_rng(0)))
    assert made.transcript.text[: made.given] == f"<3+4+5+6>{{3+4=7;7+5=12;12+6={made.total}"
    assert made.followed == made.total != 18
    affine = get_task("affine-mod10")
    (blind,) = solve(affine, np.array([[1, 2, 7]]))
    assert (
        SubstituteTotal().edit(Original("substitute_total", affine, COT, blind, 1, np.random.default_rng(0)))
        is Reason.AMBIGUOUS
    )
