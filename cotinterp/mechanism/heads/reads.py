"""Which tokens a head would have to look at, from where, if it carried a chain of thought: reads as data.

A read is declared by roles and steps alone, so it holds for every regime that writes such roles. The two reads here are
those of an iteration head (Cabannes et al. 2024, arXiv 2406.02128): at every step, the total so far and the operand to
be consumed next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional

from cotinterp.mechanism.contrast import Contrast
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.roles import ROLE_CODE, Role, place_words

ReadMask = Bool[Tensor, "batch dest src"]
"""True where `dest` is to read `src`."""
SourceMask = Bool[Tensor, "batch pos"]
"""True at the tokens that are read."""


@dataclass(frozen=True)
class Source:
    """Tokens of one role, all characters of the value, at the step of the token that is being predicted plus `offset`.

    `offset` None means every step. `and_earlier`: the steps before that one as well.
    """

    role: Role
    offset: int | None = 0
    and_earlier: bool = False

    def covers(self, step: Int[Tensor, "*places"], predicted: Int[Tensor, "*predicted"] | int) -> Bool[Tensor, "*out"]:
        """Whether a token of that step is one of these, for a prediction of step `predicted` (they broadcast)."""
        if self.offset is None:
            return torch.ones_like(step, dtype=torch.bool)
        wanted = predicted + self.offset
        return step <= wanted if self.and_earlier else step == wanted


@dataclass(frozen=True)
class ReadTarget:
    """The destinations of a read: positions whose logits predict the first character of a value of this role.

    Attributes:
        role: Role of the predicted value.
        sources: What is to be read there. Only tokens at or before the destination count; a destination before which
            none of them is written is no destination of this read.
        first_step: Values of earlier steps are left out.
        unless: Examples that contain any of these roles are left out.
    """

    role: Role
    sources: tuple[Source, ...]
    first_step: int = 1
    unless: frozenset[Role] = frozenset()


@dataclass(frozen=True)
class ReadPattern:
    """A named set of destinations, each with the tokens that a head of this kind reads from there."""

    name: str
    targets: tuple[ReadTarget, ...]


PREVIOUS_TOTAL_READ = ReadPattern(
    "previous_total",
    (
        ReadTarget(Role.TOTAL, (Source(Role.TOTAL, -1), Source(Role.PREVIOUS_TOTAL))),
        ReadTarget(Role.PREVIOUS_TOTAL, (Source(Role.TOTAL, -1),), first_step=2),
    ),
)
"""The running total as written. Before total j: TOTAL of step j-1 and PREVIOUS_TOTAL of step j, whichever are written
(at step 1 of `cot` the latter alone). Before PREVIOUS_TOTAL of step j >= 2: TOTAL of step j-1. A regime that writes
no totals has no such destination and the score is NaN there."""

NEXT_OPERAND_READ = ReadPattern(
    "next_operand",
    (
        ReadTarget(Role.TOTAL, (Source(Role.OPERAND), Source(Role.STEP_OPERAND))),
        ReadTarget(Role.PREVIOUS_TOTAL, (Source(Role.OPERAND),), first_step=2),
        ReadTarget(Role.STEP_OPERAND, (Source(Role.OPERAND),)),
        ReadTarget(Role.ANSWER, (Source(Role.OPERAND, None),), unless=frozenset({Role.TOTAL})),
    ),
)
"""The operand to be consumed. Before total j: the prompt's operand j and, once written, STEP_OPERAND of step j. Before
PREVIOUS_TOTAL of step j >= 2 and before STEP_OPERAND of step j: the prompt's operand j. Where no totals are written, no
operand is the next one: before the answer all operands of the prompt count, and chance is high (about one half)."""

READ_PATTERNS = (PREVIOUS_TOTAL_READ, NEXT_OPERAND_READ)

FINAL_TOTAL_READ = ReadPattern("final_total", (ReadTarget(Role.ANSWER, (Source(Role.TOTAL),)),))
"""Before the answer: the last total, where one is written."""

PROMPT_OPERANDS_READ = ReadPattern(
    "prompt_operands",
    tuple(
        ReadTarget(role, (Source(Role.OPERAND, -1, and_earlier=True),))
        for role in (Role.TOTAL, Role.PREVIOUS_TOTAL, Role.ANSWER)
    ),
)
"""Before a value of step j: the prompt's operands 0 to j-1, of which the previous total is made. A model that computes
each total from the prompt needs them; one that reads the written total does not."""

EARLIER_OPERANDS_READ = ReadPattern(
    "earlier_operands",
    tuple(
        ReadTarget(target.role, (*target.sources, Source(Role.STEP_OPERAND, -1, and_earlier=True)))
        for target in PROMPT_OPERANDS_READ.targets
    ),
)
"""The same with the copies of these operands in the trace, where a regime writes them."""

STALE_TOTAL_READ = ReadPattern(
    "stale_total",
    tuple(
        ReadTarget(role, (Source(Role.TOTAL, -2, and_earlier=True),), first_step=3)
        for role in (Role.TOTAL, Role.ANSWER)
    ),
)
"""Before a value of step j: the totals of steps up to j-2, which neither a reader of the written totals nor a model
that starts again from the prompt has to look at. A control."""

KNOCK_OUT_READS = (PREVIOUS_TOTAL_READ, FINAL_TOTAL_READ, NEXT_OPERAND_READ, PROMPT_OPERANDS_READ)
"""The reads whose loss tells a reader of the written totals from a model that starts again from the prompt."""


def read_masks(batch: Batch, pattern: ReadPattern) -> dict[str, ReadMask]:
    """For each target of the pattern that the batch holds: True where `dest` is to read `src`.

    Keyed by the role that is predicted. A target without a single destination in the batch is left out. ValueError
    where the steps of some problem do not follow its operands in order, so that other tokens would have to be read.
    """
    _require_order(batch)
    masks = {str(target.role): _target_mask(batch, target) for target in pattern.targets}
    return {role: mask for role, mask in masks.items() if bool(mask.any())}


def read_sources(batch: Batch, pattern: ReadPattern, role: Role, step: int) -> Bool[Tensor, "batch pos"]:
    """The tokens that the pattern names for the prediction of `role` at `step`; nothing where it names none there.

    ValueError as in `read_masks`.
    """
    _require_order(batch)
    found = torch.zeros_like(batch.tokens, dtype=torch.bool)
    for target in pattern.targets:
        absent = not any(bool(batch.mask(unwanted).any()) for unwanted in target.unless)
        if target.role == role and step >= target.first_step and absent:
            for source in target.sources:
                found |= batch.mask(source.role) & source.covers(batch.step, step)
    return found


def target_masks(contrast: Contrast, patterns: Sequence[ReadPattern]) -> dict[str, dict[str, ReadMask]]:
    """`read_masks` of each pattern, by its name, on the clean transcripts of a contrast."""
    batch, beyond = _batch_of(contrast)
    return {
        pattern.name: {
            role: functional.pad(mask, (0, beyond, 0, beyond)) for role, mask in read_masks(batch, pattern).items()
        }
        for pattern in patterns
    }


def source_masks(contrast: Contrast, patterns: Sequence[ReadPattern]) -> dict[str, SourceMask]:
    """`read_sources` of each pattern, by its name, for what a contrast reads out."""
    role, step = predicted_at_readout(contrast)
    batch, beyond = _batch_of(contrast)
    return {pattern.name: functional.pad(read_sources(batch, pattern, role, step), (0, beyond)) for pattern in patterns}


def predicted_at_readout(contrast: Contrast) -> tuple[Role, int]:
    """Role and step of the value that the logits at the readout predict.

    ValueError for a contrast without roles, and for one that reads different values out of its examples.
    """
    batch, _ = _batch_of(contrast)
    rows, following = torch.arange(len(batch), device=contrast.at.device), contrast.at + 1
    codes, steps = (field.to(following.device)[rows, following] for field in (batch.role, batch.step))
    found = sorted(set(zip(codes.tolist(), steps.tolist(), strict=True)))
    if len(found) > 1:
        named = [place_words(tuple(Role)[code], step) for code, step in found]
        raise ValueError(
            f"this contrast reads out different values in its examples, {named}: select those of one place."
        )
    code, step = found[0]
    return tuple(Role)[code], step


def _batch_of(contrast: Contrast) -> tuple[Batch, int]:
    """The clean transcripts, and by how many positions the tokens of the contrast are wider (below 0: narrower).

    ValueError for a contrast without roles.
    """
    if contrast.batch is None:
        raise ValueError(
            "this contrast has no roles, so that no read is known by name: make it with Contrast.from_pairs, or give "
            "the reads as masks (an empty mapping for none)."
        )
    return contrast.batch, contrast.clean.shape[1] - contrast.batch.tokens.shape[1]


def role_masks(contrast: Contrast) -> dict[str, SourceMask]:
    """The tokens of each role of the clean transcripts, in reading order of the roles; padding is not among them."""
    batch, beyond = _batch_of(contrast)
    masks = {str(role): functional.pad(batch.mask(role), (0, beyond)) for role in Role if role is not Role.PAD}
    return {role: mask for role, mask in masks.items() if bool(mask.any())}


def _require_order(batch: Batch) -> None:
    example = next((one for one in batch.transcripts if not one.problem.in_order), None)
    if example is not None:
        raise ValueError(
            f"the reads are those of a left fold: total j - 1 and operand j at step j. The steps of {example.text!r} "
            "take other values, so attention has no declared place to go to there"
        )


def _target_mask(batch: Batch, target: ReadTarget) -> ReadMask:
    """True at [example, dest, src]; the last position predicts nothing that is known."""
    predicted_role, predicted_step, predicted_part = (x.roll(-1, dims=1) for x in (batch.role, batch.step, batch.part))
    dest = (predicted_role == ROLE_CODE[target.role]) & (predicted_part == 0) & (predicted_step >= target.first_step)
    dest[:, -1] = False
    for role in target.unless:
        dest &= ~batch.mask(role).any(dim=1, keepdim=True)
    n_pos = batch.tokens.shape[1]
    position = torch.arange(n_pos, device=batch.tokens.device)
    sources = torch.zeros(len(batch), n_pos, n_pos, dtype=torch.bool, device=batch.tokens.device)
    for source in target.sources:
        of_step = source.covers(batch.step[:, None, :], predicted_step[:, :, None])
        sources |= batch.mask(source.role)[:, None, :] & of_step
    return sources & dest[:, :, None] & (position[None, :] <= position[:, None])
