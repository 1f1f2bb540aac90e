"""The reference experiment and its report."""

from pathlib import Path
from typing import Literal

from cotinterp.cli.app import app


@app.command(name="report")
def report_command(out: Path = Path("out")) -> None:
    """Write report.html anew from the tables that lie in a folder.

    Args:
        out: Folder of an earlier `cotinterp reproduce`.
    """
    from cotinterp.report import rebuild_report

    print(rebuild_report(out))


@app.command(name="reproduce")
def reproduce_command(
    out: Path = Path("out"),
    root: Path = Path("checkpoints"),
    from_scratch: bool = False,
    device: str = "auto",
    jobs: int = 2,
    quick: bool = False,
    precision: Literal["bf16", "fp32"] = "bf16",
) -> None:
    """The reference experiment: load or train the four models, take them apart, write the report.

    Args:
        out: Report, figures, tables and manifest go here.
        root: Where the reference checkpoints lie.
        from_scratch: Train the models anew, under <out>/checkpoints, instead of loading them.
        device: auto, cpu, cuda, ...
        jobs: Models that are trained or measured side by side, each on one CPU thread.
        quick: Small samples: a look, not a measurement.
        precision: With --from-scratch, what to train in; fp32 is faster where bfloat16 is emulated.
    """
    from cotinterp.report.reproduce import reproduce
    from cotinterp.training.reference import reference_specs

    if precision == "fp32" and not from_scratch:
        raise ValueError("the reference models under --root were trained in bf16; fp32 ones need --from-scratch")
    specs = reference_specs(precision="fp32") if precision == "fp32" else None
    written = reproduce(
        out=out, root=root, from_scratch=from_scratch, device=device, jobs=jobs, quick=quick, specs=specs
    )
    print(written)
