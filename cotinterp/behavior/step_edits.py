"""Edits of a trace's own steps: closed early, filled, put in another order, one of them taken out."""

from collections.abc import Iterable, Sequence

from cotinterp.behavior.edited_trace import WHOLE, EditedTrace, EditKind, Original, Reason
from cotinterp.transcripts.problems import substitute_total
from cotinterp.transcripts.regimes import Token
from cotinterp.transcripts.roles import Role

FILLER = "."
"""What `fill_totals` and `fill_steps` write; it stands in no training transcript of `cot`, `totals` or `noisy`."""


class Truncate(EditKind):
    """Early answering: the trace is closed after step j; follows: s_j, the total at which it stops.

    Step 0 is an empty trace, whose reader is still at s_0; where steps do not follow the operands in order there is
    nothing to follow in it. A model that goes on with the trace after its closing brace answers nothing (`other`);
    `EditResult.resumed` counts those.
    """

    name = "truncate"
    description = "the trace is closed early"

    def steps(self, k: int) -> Sequence[int]:
        return range(k - 1)

    def edit(self, original: Original) -> EditedTrace | Reason:
        problem, step = original.problem, original.step
        kept = [token for token in original.steps() if token.step <= step and not _ends(token, step)]
        total = problem.totals[step - 1] if step else None
        begun = problem.previous[0] if original.task.in_order else None
        return original.closed(kept, total=total, followed=total if step else begun)


class FillTotals(EditKind):
    """Every symbol of every written state, copied ones too, is a filler; there is nothing to follow."""

    name = "fill_totals"
    description = "filler stands for every written total"

    def edit(self, original: Original) -> EditedTrace | Reason:
        filled = _filled(original.steps(), {Role.PREVIOUS_TOTAL, Role.TOTAL})
        return original.closed(filled, total=None, followed=None)


class FillSteps(EditKind):
    """Every symbol of every step but the separators is a filler; there is nothing to follow.

    Left out (`only_totals`) where a trace holds totals alone: there it is the same as `fill_totals`.
    """

    name = "fill_steps"
    description = "filler stands for every step"

    def edit(self, original: Original) -> EditedTrace | Reason:
        roles = {token.role for token in original.steps()} - {Role.STEP_END}
        if roles == {Role.TOTAL}:
            return Reason.ONLY_TOTALS
        return original.closed(_filled(original.steps(), roles), total=None, followed=None)


class Permute(EditKind):
    """The steps in a random other order, each as it was; follows: the total that now stands last.

    The last one is never a step whose total is the answer; the order of the others is any. Tokens keep the number of
    the step that they belong to. Where totals have several lengths, the steps stand at other positions than before.
    """

    name = "permute"
    description = "the steps stand in another order"

    def steps(self, k: int) -> Sequence[int]:
        return (WHOLE,) if k > 2 else ()

    def edit(self, original: Original) -> EditedTrace | Reason:
        problem, rng = original.problem, original.rng
        ends = [step for step, total in enumerate(problem.totals, start=1) if total != problem.answer]
        if not ends:
            return Reason.AMBIGUOUS
        last = ends[int(rng.integers(len(ends)))]
        order = [*rng.permutation([step for step in range(1, problem.k) if step != last]).tolist(), last]
        steps = original.steps()
        separator = [token for token in steps if token.role is Role.STEP_END][:1]
        moved: list[Token] = []
        for step in order:
            moved += [token for token in steps if token.step == step and not _ends(token, step)]
            moved += [token._replace(step=step) for token in separator]
        total = problem.totals[last - 1]
        return original.closed(moved[: len(moved) - len(separator)], total=total, followed=total)


class Delete(EditKind):
    """Step j is taken out and the later steps start from what stood before it; follows: the answer without step j.

    In a tree the operation's left value takes its place: the operation and its right part are gone.

    Had the later steps been kept as they were, the last total would be the right answer and tell nothing. Without the
    last step the trace would be a truncated one, so that step is not deleted. Tokens keep their own step's number.
    """

    name = "delete"
    description = "a step is taken out, the later ones go on without it"

    def steps(self, k: int) -> Sequence[int]:
        return range(1, k - 1)

    def edit(self, original: Original) -> EditedTrace | Reason:
        problem, step = original.problem, original.step
        shown = substitute_total(original.task, problem, step, problem.previous[step - 1])
        kept = [token for token in original.steps(shown) if token.step != step]
        return original.closed(kept, total=shown.answer, followed=shown.answer)


def _ends(token: Token, step: int) -> bool:
    return token.role is Role.STEP_END and token.step == step


def _filled(steps: Iterable[Token], roles: set[Role]) -> list[Token]:
    """A filler keeps the role of its place and denotes no value."""
    return [token._replace(symbol=FILLER, value=-1) if token.role in roles else token for token in steps]
