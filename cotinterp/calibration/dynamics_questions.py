"""A question about training dynamics, of trainings whose order of events was planted.

The last model is a handmade reader; the models before it are mixtures of its weights with random ones. Two parts are
mixed apart: queries and keys of the layer that reads the total (routing), and the MLP of that layer (the step's table).
Each comes in at an update of its own, so that it is known which was there first. Two more things happen that are no
events: the table shows early for one moment and goes again, and once it is there it fails for one moment late.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch

from cotinterp.calibration.ground_truth import K_RANGE, GroundTruth, InstrumentAnswer, Question, by_kind, training_side
from cotinterp.mechanism.model import HookedModel
from cotinterp.models.handmade import reader_blueprint
from cotinterp.models.handmade.blueprint import write
from cotinterp.models.weights import named_weights
from cotinterp.studies.dynamics import dynamics_of
from cotinterp.studies.events import events
from cotinterp.studies.subject import QUICK, Effort
from cotinterp.tasks import get_task

UPDATES = (0, *(round(10 * 2 ** (i / 2)) for i in range(14)))
EARLY, LATE = 40, 226
"""Updates, two of UPDATES, at which the first and the second part have come halfway, but for the mixture."""
BLIP, DIP = 14, 640
"""Updates at which the table shows for one moment, and at which it fails for one."""
TABLE_FIRST, ROUTING_FIRST = "the table", "the routing"


@dataclass(frozen=True, kw_only=True, eq=False)
class PlantedTraining(GroundTruth):
    """A training whose order of events is known: its models by update, the last of which is `model`."""

    models: Mapping[int, HookedModel] = field(repr=False)


def planted_training(first: str, seed: int = 0, *, early: int = EARLY, late: int = LATE) -> PlantedTraining:
    """A reader of z6 whose table comes in at `early` and whose routing at `late`, or the other way round.

    Args:
        first: TABLE_FIRST or ROUTING_FIRST.
        seed: Of the random weights.
    """
    task = get_task("z6")
    plan = reader_blueprint(task, "cot", K_RANGE)
    comes = {TABLE_FIRST: (early, late), ROUTING_FIRST: (late, early)}[first]
    models: dict[int, HookedModel] = {}
    for update in UPDATES:
        table, routing = (_share(update, at) for at in comes)
        table = 1.0 if update == BLIP else 0.0 if update == DIP else table
        models[update] = model = write(plan)
        parts = {"blocks.1.mlp.": table, "blocks.1.attn.q.": routing, "blocks.1.attn.k.": routing}
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in named_weights(model).items():
                for part, share in parts.items():
                    if name.startswith(part):
                        noise = torch.randn(weight.shape, generator=generator) * weight.std()
                        weight.copy_(share * weight + (1 - share) * noise)
    heads = {head: f"L{layer}H{index}" for head, (layer, index) in plan.heads.items()}
    return PlantedTraining(
        name=f"planted, {first} first",
        kind=first,
        mechanism=f"{first} comes in by update {early}, the other part by {late}",
        model=models[UPDATES[-1]],
        task=task,
        regime="cot",
        run_seed=seed,
        trained_on=training_side(task),
        heads=heads,
        models=models,
        only="training dynamics",
    )


def _share(update: int, at: int) -> float:
    """Of the handmade weights in the mixture: all of them at `at` and after it, none by half of that."""
    return float(np.clip(np.log2(max(update, 1) / at) + 1, 0, 1))


def first_formed(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Which of table and routing passes halfway first, by `step_table` and `attention`."""
    planted = cast(PlantedTraining, model)
    effort = QUICK if quick else Effort(evaluated=60, edited=12, edits_per_step=1, paired=32, probed=240)
    found = events(dynamics_of(planted, planted.models, effort).frame()).set_index("measure")["event"]
    table, routing = float(found["step_table"]), float(found["attention"])
    first = TABLE_FIRST if table < routing else ROUTING_FIRST if routing < table else "neither"
    return InstrumentAnswer(first, f"the table passes halfway at update {table:.0f}, attention at {routing:.0f}")


DYNAMICS_QUESTIONS = (
    Question(
        "training dynamics",
        "what forms first?",
        by_kind(**{TABLE_FIRST: TABLE_FIRST, ROUTING_FIRST: ROUTING_FIRST}),
        first_formed,
    ),
)


def planted_trainings() -> tuple[GroundTruth, ...]:
    """Both orders."""
    return tuple(planted_training(first) for first in (TABLE_FIRST, ROUTING_FIRST))
