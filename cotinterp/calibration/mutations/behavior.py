"""Mistakes of behavioral tests: chance forgotten, outcomes confused, errors taught."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cotinterp.behavior import edit_kinds, edits, generalization
from cotinterp.behavior.accuracy import AccuracyResult, Output
from cotinterp.calibration.mutations.trial import TASK, K, Mutation, instead, reading_model, require
from cotinterp.transcripts.batch import Batch, collate
from cotinterp.transcripts.problems import Problem, sample_problems
from cotinterp.transcripts.render import render_for_training
from cotinterp.transcripts.roles import RESPONSE_ROLES, ROLE_CODE
from cotinterp.transcripts.vocabulary import Vocabulary


def answered(side: str, problems: Sequence[Problem], always: int) -> tuple[Output, ...]:
    """Outputs of a model that gives one answer to everything."""
    text = f"{TASK.state_text(always)}#"
    return tuple(Output(x, side, text, True, x.answer == always, x.answer == always) for x in problems)


def check_guesser() -> None:
    """A model that always gives one answer generalizes nothing, because it has learned nothing."""
    rng = np.random.default_rng(0)
    sides = {side: sample_problems(TASK, 3, 400, split=side, rng=rng) for side in ("train", "heldout")}
    trained_on = sides["train"]
    favorite = int(np.bincount([problem.answer for problem in trained_on]).argmax())
    outputs = tuple(output for side, chosen in sides.items() for output in answered(side, chosen, favorite))
    accuracy = AccuracyResult(outputs, {"task": TASK.name, "regime": "direct", "run_seed": 0})
    (cell,) = generalization.generalization_by_k(TASK, accuracy, trained_on).cells
    require(not cell.interval_known, f"a guesser is given a generalization ratio of {cell.ratio:.2f}")


def no_chance(trained_on: Sequence[Problem], problems: Sequence[Problem]) -> Float[np.ndarray, " n"]:
    """Whatever is guessed is worth nothing."""
    return np.zeros(len(problems))


def check_reader_follows() -> None:
    """A model that reads what it wrote follows every edit of it."""
    problems = sample_problems(TASK, K, 10, split="heldout", rng=np.random.default_rng(0))
    kinds, rng = [edit_kinds.SUBSTITUTE], np.random.default_rng(0)
    result = edits.trace_edits(reading_model(), TASK, "totals", problems, edits=kinds, rng=rng)
    followed = np.mean([one.outcome == "follows" for one in result.answers if one.edit == edit_kinds.SUBSTITUTE])
    require(bool(followed == 1), f"a reader is said to follow {followed:.0%} of the edits")


def judged_the_other_way(answer: int | None, followed: int | None, original: int) -> edits.Outcome:
    """The two answers taken for one another."""
    if answer is not None and answer == original:
        return edits.Outcome.FOLLOWS
    return edits.Outcome.IGNORES if answer is not None and answer == followed else edits.Outcome.OTHER


def check_noise_unscored() -> None:
    """No symbol that was replaced by a wrong one in training carries any loss."""
    problems = sample_problems(TASK, K, 60, split="train", rng=np.random.default_rng(0))
    rows = [render_for_training(TASK, x, "noisy", np.random.default_rng(i)) for i, x in enumerate(problems)]
    batch = collate(rows, Vocabulary.of(TASK))
    taught = int((batch.loss_mask & ~batch.scored).sum())
    require(taught == 0, f"{taught} wrong symbols are taught")


def all_scored(self: Batch) -> Bool[Tensor, "batch pos"]:
    """A loss on everything that is written."""
    return torch.isin(self.role, torch.tensor([ROLE_CODE[role] for role in RESPONSE_ROLES]))


BEHAVIOR_MUTATIONS = (
    Mutation(
        "chance taken to be 0",
        "a model that always gives one answer has no generalization ratio",
        instead(generalization, "majority_credit", no_chance),
        check_guesser,
    ),
    Mutation(
        "follows and ignores taken for one another",
        "the handmade reader follows every edit",
        instead(edits, "outcome_of", judged_the_other_way),
        check_reader_follows,
    ),
    Mutation(
        "noisy training that teaches the wrong totals",
        "replaced symbols carry no loss",
        instead(Batch, "loss_mask", property(all_scored)),
        check_noise_unscored,
    ),
)
