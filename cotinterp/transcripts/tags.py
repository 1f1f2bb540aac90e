"""The state that each operand of a prompt brings about, as a token: what `tagging` asks for beside the response."""

import torch
from jaxtyping import Int
from torch import Tensor

from cotinterp.tasks.task import Task
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.problems import split_of
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.roles import Role

NO_TAG = -1
"""Where no state is asked for."""


def operand_tags(task: Task, batch: Batch) -> Int[Tensor, "batch pos"]:
    """At OPERAND j (j = 1..k-1) the token of s_j, the state after operands 0 to j; NO_TAG everywhere else.

    The tag belongs to the position that reads operand j, not to the one before it: a causal model has seen all that
    s_j depends on, and the symbol itself stands nowhere in the prompt. OPERAND 0 has none, since s_0 is that operand.

    Raises:
        ValueError: The states of the task take several symbols, or no state follows from each operand in turn.
    """
    batch.require(task)
    refusal = get_regime("tagging").refusal(task)
    if refusal is not None:
        raise ValueError(f"task {task.name!r} has no states to name at its operands: {refusal}")
    tokens = torch.tensor([batch.vocabulary.token(task.state_text(state)) for state in range(task.n_states)])
    k = torch.tensor([transcript.problem.k for transcript in batch.transcripts])
    of_step = torch.arange(int(k.max()))
    named = torch.full((len(batch), int(k.max())), NO_TAG)
    totals = torch.tensor([total for transcript in batch.transcripts for total in transcript.problem.totals])
    named[(of_step >= 1) & (of_step < k[:, None])] = tokens[totals]
    step = batch.step.cpu().clamp(min=0, max=named.shape[1] - 1)
    return named.gather(1, step).masked_fill(~batch.mask(Role.OPERAND).cpu(), NO_TAG).to(batch.tokens.device)


def training_tags(task: Task, batch: Batch) -> Int[Tensor, "batch pos"]:
    """`operand_tags` without the states of beginnings that are not on the training side of the split.

    Operands 0 to j of a training problem are a problem themselves. Where the split holds that one out, its state must
    not be a target, or a model could know by heart what it is to be measured on: among 100,000 words of up to twelve
    of six elements all 7,776 words of five occur as beginnings.
    """
    tags = operand_tags(task, batch)
    sides: dict[tuple[int, ...], bool] = {}

    def withheld(operands: tuple[int, ...]) -> bool:
        if operands not in sides:
            sides[operands] = split_of(operands) != "train"
        return sides[operands]

    width = max(transcript.problem.k for transcript in batch.transcripts)
    hidden = torch.zeros(len(batch), width, dtype=torch.bool)
    for row, transcript in enumerate(batch.transcripts):
        operands = transcript.problem.operands
        hidden[row, : len(operands)] = torch.tensor([withheld(operands[: j + 1]) for j in range(len(operands))])
    step = batch.step.clamp(min=0, max=width - 1)
    return tags.masked_fill(hidden.to(step.device).gather(1, step), NO_TAG)
