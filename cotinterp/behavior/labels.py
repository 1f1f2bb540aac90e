"""Which trained model a table is about."""

from collections.abc import Mapping

from cotinterp.tasks.task import Task
from cotinterp.transcripts.regimes import Regime, get_regime


def labels_of(task: Task, regime: str | Regime, seed: int) -> dict[str, str | int]:
    """The columns task, regime and seed that every table of behavior begins with."""
    return {"task": task.name, "regime": get_regime(regime).name, "seed": seed}


def described(labels: Mapping[str, str | int]) -> str:
    """Labels as the end of a title: `digit-sum, cot, seed 0`."""
    return ", ".join(str(value) if isinstance(value, str) else f"{name} {value}" for name, value in labels.items())
