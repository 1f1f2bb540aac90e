"""What a transcript says about a running total at a place: its value, what can be seen of it, what stands written."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.probing.controls import distinct_rows
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.roles import Role


def is_written(role: Role, step: int, target: int, *, in_order: bool = True) -> bool:
    """Whether this place is a symbol of `s_target` itself: the total, its copy in the next step, the answer.

    Where steps do not follow the operands in order (`Problem.in_order`), either value of this step or a later one may
    be a copy, in some problems, and is taken for one.
    """
    if not in_order and role in (Role.PREVIOUS_TOTAL, Role.STEP_OPERAND) and step >= target:
        return True
    return (role, step) in {
        (Role.TOTAL, target),
        (Role.PREVIOUS_TOTAL, target + 1),
        (Role.ANSWER, target),
        *([(Role.OPERAND, 0)] if target == 0 else []),
    }


def in_order(batch: Batch) -> bool:
    """Whether the steps of every problem follow its operands in order, as in a left fold."""
    return all(transcript.problem.in_order for transcript in batch.transcripts)


def running_total(batch: Batch, step: int) -> Int[np.ndarray, " batch"]:
    """State index of `s_step` in every transcript. ValueError where a problem has no such step."""
    fewest = min(transcript.problem.k for transcript in batch.transcripts)
    if not 0 <= step < fewest:
        raise ValueError(f"no s_{step} in problems of {fewest} operands; their totals are s_0 to s_{fewest - 1}")
    return _totals(batch)[:, step]


def last_written(batch: Batch, positions: Int[Tensor, " batch"]) -> Int[np.ndarray, " batch"]:
    """The last step whose total stands written at or before `positions`; 0 where none does."""
    place = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    shown = (batch.mask(Role.TOTAL) | batch.mask(Role.ANSWER)) & (place <= positions[:, None])
    steps: Int[np.ndarray, " batch"] = (batch.step * shown).amax(1).cpu().numpy()
    return steps


def beginnings(batch: Batch, positions: Int[Tensor, " batch"], step: int) -> Int[np.ndarray, " batch"]:
    """A number for all that `s_step` can be made of at `positions`: the type of input of the control task.

    That is the last total up to `s_step` that stands written there (operand 0 where none does) and the operands after
    it up to operand `step`, as far as they stand there. Where `s_step` itself has been written it is that one symbol.
    Where steps do not follow the operands in order it is all operands and all totals that stand there.
    """
    place = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    seen = (batch.mask(Role.OPERAND) & (place <= positions[:, None])).sum(1).cpu().numpy()
    start = np.minimum(last_written(batch, positions), step)
    operands = all_operands(batch)
    number = np.arange(operands.shape[1])
    if not in_order(batch):
        totals = np.where(number <= last_written(batch, positions)[:, None], _totals(batch), -1)[:, 1:]
        return distinct_rows(np.column_stack([np.where(number < seen[:, None], operands, -1), totals]))
    known = (number < np.minimum(seen, step + 1)[:, None]) & ((number > start[:, None]) | (start == 0)[:, None])
    shown = np.where(start > 0, np.take_along_axis(_totals(batch), start[:, None], axis=1)[:, 0], -1)
    return distinct_rows(np.column_stack([start, shown, np.where(known, operands, -1)]))


def current_token(batch: Batch, positions: Int[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
    """One-hot current token beside one-hot position: what a probe can know without the model."""
    tokens = batch.tokens[torch.arange(len(batch), device=positions.device), positions]
    codes = (values.unique(return_inverse=True)[1] for values in (tokens, positions))
    return torch.cat([F.one_hot(code) for code in codes], dim=1).float()


def all_operands(batch: Batch) -> Int[np.ndarray, "batch k"]:
    """Operand indices of every problem, -1 beyond the last."""
    longest = max(transcript.problem.k for transcript in batch.transcripts)
    rows = [transcript.problem.operands for transcript in batch.transcripts]
    return np.array([(*row, *(-1,) * (longest - len(row))) for row in rows])


def _totals(batch: Batch) -> Int[np.ndarray, "batch k"]:
    """States s_0, s_1, ... of every problem, -1 beyond the last."""
    problems = [transcript.problem for transcript in batch.transcripts]
    longest = max(problem.k for problem in problems)
    return np.array([(problem.previous[0], *problem.totals, *(-1,) * (longest - problem.k)) for problem in problems])
