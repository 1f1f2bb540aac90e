"""The reference experiment as data: which runs, and that their checkpoints are there."""

from pathlib import Path

from cotinterp.training.spec import Precision, RunSpec

REFERENCE_TASKS = ("digit-sum", "s3")
REFERENCE_REGIMES = ("direct", "cot")


def reference_specs(seed: int = 0, precision: Precision = "bf16") -> tuple[RunSpec, ...]:
    """The matched pairs: for each task two runs that differ in the response string and in nothing else.

    They are trained in bfloat16, which takes a third of the time on processors that have it and costs no accuracy that
    three seeds would show (docs/performance.md).
    """
    return tuple(
        RunSpec(task=task, regime=regime, seed=seed, precision=precision)
        for task in REFERENCE_TASKS
        for regime in REFERENCE_REGIMES
    )


def reference_directories(root: Path) -> tuple[Path, ...]:
    """The directories of the reference runs under `root`.

    Raises:
        FileNotFoundError: Some are missing; they are named, and how to train them.
    """
    directories = tuple(root / spec.slug for spec in reference_specs())
    missing = [directory.name for directory in directories if not directory.is_dir()]
    if missing:
        raise FileNotFoundError(
            f"no reference checkpoints {missing} under {root}. `cotinterp reproduce --from-scratch` trains all four; "
            "--root says where they lie"
        )
    return directories
