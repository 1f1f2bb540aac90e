"""Commands that judge: the instruments on known mechanisms, and the claims on trained models."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from cotinterp.cli.instruments import app


@app.command(name="calibrate")
def calibrate_command(
    out: Path = Path("out/calibrate"),
    quick: bool = False,
    mutations: bool = False,
    untrained: int = 0,
    nulls: int = 0,
    peers: bool = False,
    jobs: int = 2,
) -> None:
    """Test every instrument and claim on models whose mechanism is known; status 1 if one gets it wrong.

    Args:
        out: Tables and figures go here.
        quick: Fewer examples.
        mutations: Also plant a bug for every control, which must notice it.
        untrained: Also scan that many untrained models: the share in which anything is flagged, against the level.
        nulls: Also judge all claims in that many worlds of untrained models, and in simulated ones at the threshold.
        peers: Also compare with TransformerLens's own patching and interchange, on several architectures.
        jobs: Processes for the untrained models, one thread each.
    """
    from cotinterp.calibration.session import calibration_session

    if not calibration_session(
        out=out,
        quick=quick,
        mutations=mutations,
        untrained=untrained,
        nulls=nulls,
        peers=peers,
        jobs=jobs,
        say=print,
    ):
        raise SystemExit(1)


@app.command(name="claims")
def claims_command(
    task: tuple[str, ...] = (),
    claim: tuple[str, ...] = (),
    seeds: int | None = None,
    origin: Annotated[Literal["tables", "checkpoints"], tyro.conf.arg(name="from")] = "tables",
    tables: Path = Path("analyses/out"),
    root: Path = Path("out/replication"),
    train: bool = False,
    update_tables: bool = False,
    out: Path = Path("out/claims"),
    jobs: int = 2,
    device: str = "cpu",
    quick: bool = False,
    k_max: int | None = None,
    n_layers: int | None = None,
    steps: int | None = None,
    part: tuple[str, ...] = (),
) -> None:
    """Judge every claim, with its evidence, rivals and controls.

    Args:
        task: Tasks by name or path/to/file.py:ClassName; by default all in the tables, or the reference tasks.
        claim: Claims by name or path/to/file.py:NAME; by default the catalog.
        seeds: The lowest so many seeds; by default all in the tables, five from checkpoints.
        origin: Judge stored tables, or measure trained runs anew.
        tables: Folder of the stored evidence.
        root: Where the runs of the replication lie.
        train: Train the runs that are missing under --root; one that was killed goes on.
        update_tables: Write what is measured to --tables.
        out: Verdicts, tables and figure go here.
        jobs: Runs that are trained or measured side by side, each on one CPU thread.
        device: cpu, auto, cuda, ...
        quick: Small samples: a look, not a measurement.
        k_max: Most operands of the runs, where not the reference design's.
        n_layers: Layers of the standard runs, where not the reference design's.
        steps: Updates of the runs, where not the reference design's.
        part: Which runs: regimes, depths, sizes, memory; by default all. Claims that need others stay inconclusive.
    """
    from cotinterp.claims.catalog import CATALOG, get_claim
    from cotinterp.claims.claim import LEAST_SEEDS
    from cotinterp.claims.session import claims_session
    from cotinterp.studies.evidence import read_evidence
    from cotinterp.tasks import get_task

    claims = [get_claim(ref) for ref in claim] or CATALOG
    names = [get_task(ref).name for ref in task]
    if origin == "tables":
        evidence = read_evidence(tables) if seeds is None else read_evidence(tables).of_seeds(seeds)
    else:
        from cotinterp.claims.session import Sources, gather_evidence
        from cotinterp.sweeps.replication import PARTS, base_spec

        sources = Sources(
            tasks=task,
            seeds=LEAST_SEEDS if seeds is None else seeds,
            tables=tables if update_tables else None,
            root=root,
            train=train,
            jobs=jobs,
            device=device,
            quick=quick,
            base=base_spec(task[0] if task else "s3", k_max=k_max, n_layers=n_layers, steps=steps),
            parts=part or PARTS,
        )
        evidence = gather_evidence(sources, out)
    claims_session(evidence, out=out, tasks=names, claims=claims, say=print)
