"""Numbers about what is written: edited traces, what is wrong with wrong ones, and when the answer becomes likely."""

from cotinterp.claims.cells import Cells, MissingEvidence, Values
from cotinterp.claims.statistics.answers import difference

SUBSTITUTE = "substitute_total"


def follow_margin(cells: Cells) -> Values:
    """Share of edited totals that the answer follows, minus the share that it ignores."""
    follows = cells.mean("edit", regime="cot", condition=f"{SUBSTITUTE}:follows")
    return difference(follows, cells.mean("edit", regime="cot", condition=f"{SUBSTITUTE}:ignores"))


def clean_trace(cells: Cells) -> Values:
    """Share of right answers after the true total was written in the place of an edit."""
    return cells.mean("edit", regime="cot", condition="none:follows")


def follows_by_chance(cells: Cells) -> Values:
    """Share of answers that would follow another problem's edit."""
    return cells.mean("edit", regime="cot", condition="shuffled_target:follows")


def bookkeeping_share(cells: Cells) -> Values:
    """Share of bookkeeping among the wrong held-out outputs of cot."""
    try:
        return cells.mean("error_kind", regime="cot", condition="bookkeeping")
    except MissingEvidence as missing:
        raise MissingEvidence("no wrong output of cot was measured") from missing


def _at_last_total(cells: Cells, measure: str, condition: str) -> Values:
    step = cells.steps(measure, regime="cot", condition=condition)[-1]
    return cells.mean(measure, regime="cot", condition=condition, step=step)


def lost_to_the_edit(cells: Cells) -> Values:
    """P(true answer) after all totals of the true trace, minus that after all totals of the edited one."""
    after = [_at_last_total(cells, "answer_prob", f"{trace}:free") for trace in ("true", "edited")]
    return difference(*after)


def anchored(cells: Cells) -> Values:
    """P(the answer that follows from the edited total) after all totals of the edited trace."""
    return _at_last_total(cells, "followed_prob", "edited:free")


def readiness(cells: Cells) -> Values:
    """P(true answer) when the trace is closed after its last total, minus that when it is closed before its first."""
    before = cells.mean("answer_prob", regime="cot", condition="true:forced", step=0)
    return difference(_at_last_total(cells, "answer_prob", "true:forced"), before)


def own_wrong_followed(cells: Cells) -> Values:
    """Share of the model's own wrong traces, sampled, whose answer is the last total written."""
    return cells.mean("own_wrong_followed", regime="cot")


def carried(cells: Cells) -> Values:
    """log P(true answer | own greedy trace) minus log P(true answer | problem), in nats."""
    return difference(cells.mean("own_log_prob", regime="cot"), cells.mean("marginal_log_prob", regime="cot"))
