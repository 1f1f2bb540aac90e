"""Two runs that differ in one thing, where they are told apart, and the places at which they are compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from cotinterp.mechanism.metrics import require_different
from cotinterp.mechanism.model import (
    HookedModel,
    is_causal,
    numbers_by_row,
    require_model,
    require_tokens,
    token_ids,
)
from cotinterp.mechanism.sites import mask_of
from cotinterp.results import facts_html, short_repr
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.pairs import Pairs
from cotinterp.transcripts.roles import place_words


class Address(NamedTuple):
    """What a place is called in tables: role and step (-1 where it has none), and the symbol of the first example."""

    role: str
    step: int = -1
    symbol: str = ""


@dataclass(frozen=True, eq=False)
class Contrast:
    """Clean and corrupted tokens of any model, row by row, with the question that tells them apart.

    `at`: position whose logits are read (they predict the token after it); `answer` and `foil`: the token that the
    clean and the corrupted run should predict there. `places`: by label, in reading order, which positions of each
    example belong to the place; a place of several tokens is always edited whole. `addresses` names places in tables
    (by default role = label). `pair` says what was changed, `readout` what is read. `reference`, where given, is a
    third run that defines the unit of effects in place of the corrupted one: for changes that should not matter, which
    have no gap of their own. `batch`: the clean transcripts, whose roles name what heads read; None for tokens without
    roles. `templates`: a number for each example; only examples with the same number lend each other their activations
    (`alike`). None: those of one layout in `batch`; without roles those read at one position, in which the caller
    vouches that a position means the same.

    Any TransformerLens-style model will do, and no task of ours is needed:

        clean = model.to_tokens(["The capital of France is", "The capital of Japan is"])
        corrupted = clean.flip(0)
        answer = model.to_tokens([" Paris", " Tokyo"], prepend_bos=False)[:, 0]
        at = torch.full((2,), clean.shape[1] - 1)
        symbols = model.to_str_tokens(clean[0])
        contrast = Contrast.by_position(clean, corrupted, at, answer, answer.flip(0), symbols=symbols)
        patch_sweep(model.eval(), contrast, heads=True).figure()

    Tokens, `at`, `answer` and `foil` may be given as lists or arrays. Instruments that read the clean run alone take
    clean tokens for both. Raises ValueError where shapes differ, `at` leaves the tokens, answer and foil are one token,
    a place is empty or no mask, `batch` holds other tokens, or examples of one template have different layouts before
    the readout.
    """

    clean: Int[Tensor, "batch pos"]
    corrupted: Int[Tensor, "..."]
    at: Int[Tensor, "..."]
    answer: Int[Tensor, "..."]
    foil: Int[Tensor, "..."]
    places: Mapping[str, Shaped[Tensor, "..."]]
    addresses: Mapping[str, Address] = field(default_factory=dict)
    pair: str = "pair"
    reference: Int[Tensor, "..."] | None = None
    batch: Batch | None = None
    templates: Int[np.ndarray, "..."] | None = None
    readout: str = ""

    def __post_init__(self) -> None:
        for name in ("clean", "corrupted", "reference", "at", "answer", "foil"):
            given = getattr(self, name)
            if name != "reference" or given is not None:
                kept = (token_ids if name in ("clean", "corrupted", "reference") else numbers_by_row)(given, name)
                object.__setattr__(self, name, kept)
        shape, batch = tuple(self.clean.shape), tuple(self.clean.shape[:1])
        of_tokens = {"corrupted": self.corrupted, "reference": self.reference}
        of_tokens |= {f"place {name!r}": mask for name, mask in self.places.items()}
        of_rows = {name: getattr(self, name) for name in ("at", "answer", "foil", "templates")}
        for given, expected in ((of_tokens, shape), (of_rows, batch)):
            for name, values in given.items():
                if values is not None and tuple(values.shape) != expected:
                    found = tuple(values.shape)
                    raise ValueError(f"{name} has shape {found}; clean tokens {shape} ask for {expected}.")
        if not self.places:
            raise ValueError("a contrast needs places to compare at; Contrast.by_position makes one of every position.")
        if not 0 <= int(self.at.min()) <= int(self.at.max()) < shape[1]:
            raise ValueError(f"`at` must lie inside the tokens, 0 to {shape[1] - 1}, got {self.at.tolist()}.")
        require_different(self.answer, self.foil)
        for label, mask in self.places.items():
            mask_of(mask, shape, f"place {label!r}")
            empty = int((~mask.any(dim=1)).sum())
            if empty:
                raise ValueError(f"place {label!r} has no position in {empty} of {len(self)} examples: leave it out.")
        self._check_batch()
        self._check_templates()

    def _check_batch(self) -> None:
        if self.batch is None:
            return
        if len(self.batch) != len(self):
            raise ValueError(f"batch has {len(self.batch)} transcripts for {len(self)} examples: give one for each.")
        n = min(self.clean.shape[1], self.batch.tokens.shape[1])
        written = torch.arange(n, device=self.batch.length.device) < self.batch.length[:, None]
        other = (self.batch.tokens[:, :n] != self.clean[:, :n].to(self.batch.tokens.device)) & written
        if bool(other.any()):
            rows = other.any(dim=1).nonzero()[:, 0].tolist()
            raise ValueError(f"batch holds other tokens than clean in examples {rows}: give the clean transcripts.")

    def _check_templates(self) -> None:
        if self.templates is None or self.batch is None:
            return
        _, first, number = np.unique(self.templates, return_index=True, return_inverse=True)
        like = torch.from_numpy(first[number.reshape(-1)]).to(self.at.device)
        layout = _layout(self.batch).to(self.at.device)
        until = torch.arange(layout.shape[1], device=self.at.device) <= torch.maximum(self.at, self.at[like])[:, None]
        unlike = ((layout != layout[like]).any(dim=-1) & until).any(dim=1)
        if bool(unlike.any()):
            row = int(unlike.nonzero()[0])
            raise ValueError(
                f"examples {int(like[row])} and {row} have one template, {self.templates[row]}, but are laid out in "
                "different ways before the readout: what lies at a position of one would be given to another position "
                "of the other. templates=None tells them apart."
            )

    @property
    def alike(self) -> Int[np.ndarray, " batch"]:
        """A number for each example; those with the same number may lend each other activations, position by position.

        Means, donors and random sources are drawn among these alone: what a token is, and how many there are, differs
        between layouts, and behind the end of the shorter one is padding.
        """
        if self.templates is not None:
            return self.templates
        if self.batch is not None:
            return templates_of(self.batch)
        return np.unique(self.at.cpu().numpy(), return_inverse=True)[1].reshape(-1)

    def __repr__(self) -> str:
        return short_repr(self)

    def _repr_html_(self) -> str:
        """What is compared, for a notebook."""
        facts = {
            "pair": self.pair,
            "examples": len(self),
            "tokens": self.clean.shape[1],
            "readout": self.readout or "position `at` of each example",
            "places": ", ".join(self.places),
        }
        return facts_html(self, facts)

    def __len__(self) -> int:
        return len(self.clean)

    def address(self, label: str) -> Address:
        """Role, step and symbol of a place."""
        return self.addresses.get(label, Address(role=label))

    def select(self, keep: Shaped[Tensor, " some"] | slice) -> "Contrast":
        """Some of the examples: `contrast.select(accuracy(model(c.clean), c.at, c.answer) == 1)`."""
        numbers = isinstance(keep, Tensor) and keep.dtype != torch.bool
        if isinstance(keep, Tensor) and numbers and len(keep) == len(self) > 2 and bool(keep.eq(keep.square()).all()):
            raise ValueError("select takes a boolean mask, numbers of examples or a slice; got 0/1: give keep.bool().")
        rows = ["clean", "corrupted", "at", "answer", "foil"] + ["reference"] * (self.reference is not None)
        places = {label: mask[keep] for label, mask in self.places.items()}
        chosen = torch.arange(len(self), device=self.clean.device)[keep].tolist()
        return replace(
            self,
            places=places,
            batch=None if self.batch is None else self.batch[chosen],
            templates=None if self.templates is None else self.templates[chosen],
            **{name: getattr(self, name)[keep] for name in rows},
        )

    def check(self, model: HookedModel) -> HookedModel:
        """`model`, if it can run all of this: `require_model`, `require_tokens`. ValueError that names the field."""
        require_model(model)
        for name in ("clean", "corrupted", "reference"):
            if getattr(self, name) is not None:
                require_tokens(model, getattr(self, name), name)
        for name in ("answer", "foil"):
            require_tokens(model, getattr(self, name)[:, None], name)
        return model

    def until_readout(self, model: HookedModel | None = None) -> "Contrast":
        """The same contrast without the positions after the last readout, and without the places that lie there.

        A causal model answers the same: nothing after `at` can reach it. Given a `model` that is not causal, nothing is
        left out. ValueError for a `model` that cannot run it (`check`).
        """
        if model is not None and not is_causal(self.check(model)):
            return self
        end = int(self.at.max()) + 1
        cut = {label: mask[:, :end] for label, mask in self.places.items() if mask[:, :end].any(dim=1).all()}
        reference = None if self.reference is None else self.reference[:, :end]
        return replace(
            self, clean=self.clean[:, :end], corrupted=self.corrupted[:, :end], places=cut, reference=reference
        )

    @classmethod
    def by_position(
        cls,
        clean: Int[Tensor, "batch pos"],
        corrupted: Int[Tensor, "..."],
        at: Int[Tensor, "..."],
        answer: Int[Tensor, "..."],
        foil: Int[Tensor, "..."],
        *,
        symbols: Sequence[str] | None = None,
        pair: str = "pair",
    ) -> "Contrast":
        """One place for every position: for prompts of one template and no roles. `symbols` name the first prompt's."""
        n = clean.shape[1]
        if symbols is not None and len(symbols) != n:
            raise ValueError(f"{len(symbols)} symbols for {n} positions: give one for each.")
        masks = torch.eye(n, dtype=torch.bool, device=clean.device)[:, None].expand(n, len(clean), n)
        named = symbols if symbols is not None else [""] * n
        addresses = {f"position {i}": Address("position", i, symbol) for i, symbol in enumerate(named)}
        return cls(clean, corrupted, at, answer, foil, dict(zip(addresses, masks, strict=True)), addresses, pair)

    @classmethod
    def from_pairs(cls, pairs: Pairs) -> "Contrast":
        """One place for every role and step that all examples have at or before the readout, in reading order.

        A value of several characters is one place, as are all tokens that share role and step.
        The pair is called by what was changed and where it is read: `written_total 2 -> total 3`. A reference comes
        along.
        Pairs of several lengths keep the places that all of them have: sweep one k at a time to see every place.
        """
        batch = pairs.clean
        reachable = torch.arange(batch.tokens.shape[1], device=pairs.at.device) <= pairs.at[:, None]
        places: dict[str, Bool[Tensor, "batch pos"]] = {}
        addresses: dict[str, Address] = {}
        for token in batch.transcripts[0].tokens:
            mask = batch.mask(token.role, token.step)
            label = place_words(token.role, token.step)
            if label not in places and bool((mask & reachable).any(dim=1).all()):
                places[label] = mask
                addresses[label] = Address(token.role.value, token.step, _symbol(batch, mask[0]))
        role, step = pairs.readout
        return cls(
            clean=batch.tokens,
            corrupted=pairs.corrupted.tokens,
            at=pairs.at,
            answer=pairs.answer,
            foil=pairs.foil,
            places=places,
            addresses=addresses,
            pair=f"{pairs.family} {pairs.step} -> {role.value} {step}",
            readout=f"{role.value} {step}",
            reference=None if pairs.reference is None else pairs.reference.tokens,
            batch=batch,
            templates=templates_of(batch),
        )


def templates_of(batch: Batch) -> Int[np.ndarray, " batch"]:
    """A number for each transcript, equal where role, step and part agree at every position."""
    layout = _layout(batch).flatten(start_dim=1)
    return np.unique(layout.cpu().numpy(), axis=0, return_inverse=True)[1].reshape(-1)


def _layout(batch: Batch) -> Int[Tensor, "batch pos field"]:
    """What every token is, whatever its value."""
    return torch.stack([batch.role, batch.step, batch.part], dim=-1)


def _symbol(batch: Batch, mask: Bool[Tensor, " pos"]) -> str:
    """What stands at a place of the first example, `12`; of a place in several pieces the first."""
    symbols = batch.symbols(0)
    positions = mask.nonzero()[:, 0].tolist()
    run = [position for i, position in enumerate(positions) if position == positions[0] + i]
    return "".join(symbols[position] for position in run)
