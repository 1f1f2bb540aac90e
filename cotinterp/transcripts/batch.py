"""Transcripts side by side, as tensors, with the name of every place."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from cotinterp.results import rows_html, short_repr
from cotinterp.tasks.task import Task
from cotinterp.transcripts.problems import Problem
from cotinterp.transcripts.regimes import Regime, get_regime
from cotinterp.transcripts.render import Transcript
from cotinterp.transcripts.roles import RESPONSE_ROLES, ROLE_CODE, Role
from cotinterp.transcripts.vocabulary import Vocabulary


@dataclass(frozen=True)
class Batch:
    """Right-padded transcripts.

    Attributes:
        tokens: Token ids.
        role: `ROLE_CODE` of every token; 0 is padding.
        step: Step of every token, -1 where it has none.
        part: Which character of a multi-character value.
        value: Operand or state index that the token belongs to, -1 where none.
        scored: False where a token carries no loss although it is written by the model; see `Token`.
        length: Tokens of each transcript.
        n_prompt: Of these, how many are prompt.
    """

    tokens: Int[Tensor, "batch pos"]
    role: Int[Tensor, "batch pos"]
    step: Int[Tensor, "batch pos"]
    part: Int[Tensor, "batch pos"]
    value: Int[Tensor, "batch pos"]
    scored: Bool[Tensor, "batch pos"]
    length: Int[Tensor, " batch"]
    n_prompt: Int[Tensor, " batch"]
    transcripts: tuple[Transcript, ...]
    vocabulary: Vocabulary

    def __repr__(self) -> str:
        return short_repr(self)

    def _repr_html_(self) -> str:
        """The first transcripts, for a notebook."""
        rows = ((t.prompt, t.response, t.problem.k, t.regime) for t in self.transcripts)
        return rows_html(self, ("prompt", "response", "k", "regime"), rows, n=len(self))

    def __len__(self) -> int:
        return len(self.transcripts)

    def require(self, task: Task) -> None:
        """ValueError unless the transcripts are written in the symbols of `task`, in its order of tokens."""
        own = Vocabulary.of(task)
        if self.vocabulary != own:
            raise ValueError(
                f"the batch is written in the symbols {''.join(self.vocabulary.symbols)!r}, and those of task "
                f"{task.name!r} are {''.join(own.symbols)!r}: it is a batch of another task"
            )

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The solved problem of every transcript."""
        return tuple(transcript.problem for transcript in self.transcripts)

    @property
    def operands(self) -> Int[Tensor, "batch k"]:
        """Operand codes of every problem, -1 beyond the last of a shorter one."""
        return self._padded([problem.operands for problem in self.problems])

    @property
    def totals(self) -> Int[Tensor, "batch k"]:
        """Running totals of every problem: column j is s_j, s_0 the value before the first step; -1 beyond the last."""
        return self._padded([(*problem.previous[:1], *problem.totals) for problem in self.problems])

    def _padded(self, rows: Sequence[tuple[int, ...]]) -> Int[Tensor, "batch k"]:
        longest = max(map(len, rows), default=0)
        padded = [(*row, *(-1,) * (longest - len(row))) for row in rows]
        return torch.tensor(padded, dtype=torch.long, device=self.tokens.device).reshape(len(rows), longest)

    @property
    def loss_mask(self) -> Bool[Tensor, "batch pos"]:
        """True where the token is written by the model and scored; the logits one position earlier predict it."""
        codes = torch.tensor([ROLE_CODE[role] for role in RESPONSE_ROLES], device=self.role.device)
        return torch.isin(self.role, codes) & self.scored

    def mask(self, role: Role | str, step: int | None = None) -> Bool[Tensor, "batch pos"]:
        """True at every token of a role, and of one step where a step is given."""
        at_role = self.role == ROLE_CODE[Role(role)]
        return at_role if step is None else at_role & (self.step == step)

    def where(self, role: Role | str, step: int | None = None, part: int = 0) -> Int[Tensor, " batch"]:
        """Position of the one token of that role, step and part in every transcript; part -1 is the value's last.

        Raises:
            KeyError: Some transcript has no such token, or more than one; the places that exist are named.
        """
        found = self.mask(role, step)
        if part >= 0:
            found = found & (self.part == part)
        else:
            position = torch.arange(found.shape[1], device=found.device)
            found = found & (position == (position * found).amax(dim=1, keepdim=True))
        counts = found.sum(dim=1)
        if not bool((counts == 1).all()):
            example = int((counts != 1).nonzero()[0])
            steps = sorted({t.step for t in self.transcripts[example].tokens if t.role == role})
            named = (
                f"{role} of step {step} (part {part})" if step is not None else f"{role} (part {part}, no step given)"
            )
            roles = list(dict.fromkeys(str(t.role) for t in self.transcripts[example].tokens))
            raise KeyError(
                f"{named} stands {int(counts[example])} times in {self.transcripts[example].text!r}, expected once. "
                + (f"That role has steps {steps} there" if steps else f"Roles there: {', '.join(roles)}")
            )
        return found.int().argmax(dim=1)

    def symbols(self, index: int) -> list[str]:
        """The symbols of one transcript, padding dropped."""
        return [token.symbol for token in self.transcripts[index].tokens]

    def __getitem__(self, index: slice | Sequence[int] | Int[Tensor, " some"]) -> "Batch":
        """Some of the transcripts, padded to the longest of them."""
        rows = torch.arange(len(self))[index if isinstance(index, slice) else torch.as_tensor(index)]
        width = int(self.length[rows].max()) if len(rows) else 0
        return Batch(
            tokens=self.tokens[rows][:, :width],
            role=self.role[rows][:, :width],
            step=self.step[rows][:, :width],
            part=self.part[rows][:, :width],
            value=self.value[rows][:, :width],
            scored=self.scored[rows][:, :width],
            length=self.length[rows],
            n_prompt=self.n_prompt[rows],
            transcripts=tuple(self.transcripts[row] for row in rows.tolist()),
            vocabulary=self.vocabulary,
        )

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


def collate(transcripts: Sequence[Transcript], vocabulary: Vocabulary) -> Batch:
    """Transcripts as one right-padded batch."""
    if not transcripts:
        raise ValueError("a batch needs at least one transcript, got none")
    length = torch.tensor([len(x) for x in transcripts])
    filled = torch.arange(int(length.max())) < length[:, None]
    padding = (vocabulary.pad, ROLE_CODE[Role.PAD], -1, 0, -1, 1)
    tokens, role, step, part, value, scored = torch.tensor(padding)[:, None, None].repeat(1, *filled.shape)
    columns = (tokens, role, step, part, value, scored)
    for column, numbers in zip(columns, _numbers(transcripts, vocabulary), strict=True):
        column[filled] = numbers
    return Batch(
        tokens=tokens,
        role=role,
        step=step,
        part=part,
        value=value,
        scored=scored.bool(),
        length=length,
        n_prompt=torch.tensor([x.n_prompt for x in transcripts]),
        transcripts=tuple(transcripts),
        vocabulary=vocabulary,
    )


def _numbers(transcripts: Sequence[Transcript], vocabulary: Vocabulary) -> Int[Tensor, "field token"]:
    """Token id, role code, step, part, value and whether it is scored, of all tokens one after another.

    Few of them are distinct objects (`regimes.written`), and only those are looked at.
    """
    tokens = [token for transcript in transcripts for token in transcript.tokens]
    ids = list(map(id, tokens))
    distinct = dict(zip(ids, tokens, strict=True))
    number_of = {key: number for number, key in enumerate(distinct)}
    table = [
        (vocabulary.token(t.symbol), ROLE_CODE[t.role], t.step, t.part, t.value, t.scored) for t in distinct.values()
    ]
    return torch.tensor(table, dtype=torch.long)[list(map(number_of.__getitem__, ids))].T


def label_places(batch: Batch, regime: str | Regime) -> Int[Tensor, " batch"]:
    """How many tokens are read of each transcript before its answer is asked as a label (`Regime.reads`).

    ValueError for a regime whose answer is written.
    """
    reads = get_regime(regime).reads
    if reads == "response":
        raise ValueError(
            f"regime {get_regime(regime).name!r} writes its answer; a label is asked in 'label' and others"
        )
    return batch.n_prompt if reads == "prompt" else batch.mask(Role.ANSWER).int().argmax(1)
