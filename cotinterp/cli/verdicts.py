"""Commands that judge: the instruments on known mechanisms, and the claims on trained models."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from cotinterp.cli.instruments import Count, NonNegative, app

Part = Literal[
    "regimes",
    "depths",
    "sizes",
    "memory",
    "converged",
    "early",
    "widths",
    "curricula",
    "adapters",
    "positions",
    "encoder",
    "search",
    "rewards",
    "circuits",
]


@app.command(
    name="calibrate",
    examples=(
        "cotinterp calibrate --quick",
        "cotinterp calibrate --mutations --out out/calibrate",
        "cotinterp calibrate --untrained 20 --scans heads probes",
    ),
)
def calibrate_command(
    out: Path = Path("out/calibrate"),
    quick: bool = False,
    mutations: bool = False,
    untrained: NonNegative = 0,
    scans: tuple[Literal["heads", "patching", "probes"], ...] = (),
    nulls: NonNegative = 0,
    peers: bool = False,
    jobs: Count | None = None,
) -> None:
    """Test every instrument and claim on models whose mechanism is known; status 1 if one gets it wrong.

    Args:
        out: Tables and figures go here.
        quick: Fewer examples.
        mutations: Also plant a bug for every control, which must notice it.
        untrained: Also scan that many untrained models: the share in which anything is flagged, against the level.
        scans: How the models of --untrained are scanned: heads, patching, probes; by default in all three ways.
        nulls: Also judge all claims in that many worlds of untrained models, and in simulated ones at the threshold.
        peers: Also compare with TransformerLens's own patching and interchange, on several architectures.
        jobs: Processes for the untrained models of --untrained and --nulls, one thread each; 2 by default.
    """
    from cotinterp.results import output_folder

    if scans and not untrained:
        raise ValueError("--scans says how the models of --untrained are scanned: give --untrained N, or no --scans")
    if jobs is not None and not untrained and not nulls:
        raise ValueError("--jobs is for the models of --untrained and --nulls: give one of these, or no --jobs")
    output_folder(out)
    from cotinterp.sweeps.progress import progress_stages

    with progress_stages("calibrate", ("load torch",)):
        from cotinterp.calibration.session import calibration_session

    if not calibration_session(
        out=out,
        quick=quick,
        mutations=mutations,
        untrained=untrained,
        scans=scans,
        nulls=nulls,
        peers=peers,
        jobs=2 if jobs is None else jobs,
        say=print,
    ):
        raise SystemExit(1)


@app.command(
    name="claims",
    examples=(
        "cotinterp claims",
        "cotinterp claims --task s3 --claim gap-widens",
        "cotinterp claims --from checkpoints --train --task mine.py:Swap --quick",
    ),
)
def claims_command(
    task: tuple[str, ...] = (),
    claim: tuple[str, ...] = (),
    seeds: Count | None = None,
    origin: Annotated[Literal["tables", "checkpoints"], tyro.conf.arg(name="from")] = "tables",
    tables: Path | None = None,
    root: Path | None = None,
    train: bool = False,
    update_tables: bool = False,
    out: Path | None = None,
    jobs: Count | None = None,
    device: str | None = None,
    quick: bool = False,
    k_max: Count | None = None,
    n_layers: Count | None = None,
    steps: Count | None = None,
    n_train: Count | None = None,
    part: tuple[Part, ...] = (),
    until_decided: bool = False,
    max_seeds: Count | None = None,
) -> None:
    """Judge every claim, with its evidence, rivals and controls.

    Args:
        task: Tasks by name or path/to/file.py:ClassName; by default all in the tables, or the reference tasks.
        claim: Claims by name, path/to/file.py:NAME or group (catalog, teaching, size, designs, inference, circuits);
            by default the catalog.
        seeds: The lowest so many seeds, in one look; by default all in the tables, looked at every five, and five from
            checkpoints.
        origin: Judge stored tables, or measure trained runs anew.
        tables: Folder of the stored evidence; ./analyses/out by default, then what travels with the package.
        root: Where the runs of the replication lie; out/replication by default.
        train: Train the runs that are missing under --root; one that was killed goes on.
        update_tables: Write what is measured to --tables.
        out: Verdicts, tables and figure go here; out/claims by default, out/claims/<tasks> for chosen tasks.
        jobs: Runs that are trained or measured side by side, each on one CPU thread; 2 by default.
        device: cpu, auto, cuda, ...; cpu by default.
        quick: Few problems for each measurement: a look. It trains no less: --part, --steps and --n-layers do.
        k_max: Most operands of the runs, where not the reference design's.
        n_layers: Layers of the standard runs, where not the reference design's.
        steps: Updates of the runs, where not the reference design's.
        n_train: Training problems of the runs, where not the reference design's.
        part: Which runs; by default those of the catalog, regimes to early. Claims that need others stay inconclusive.
        until_decided: Five seeds at a time, until every verdict is decided; p-values are corrected for the looks.
        max_seeds: With --until-decided, the most seeds; by default all in the tables, twenty from checkpoints.
    """
    asked = {
        "--root": root is not None,
        "--train": train,
        "--update-tables": update_tables,
        "--jobs": jobs is not None,
        "--device": device is not None,
        "--quick": quick,
        "--k-max": k_max is not None,
        "--n-layers": n_layers is not None,
        "--steps": steps is not None,
        "--n-train": n_train is not None,
        "--part": bool(part),
    }
    if origin == "tables" and (unused := [option for option, given in asked.items() if given]):
        raise ValueError(f"{', '.join(unused)} would do nothing: stored tables are judged. Add --from checkpoints")
    if origin == "checkpoints" and tables is not None and not update_tables:
        raise ValueError("--tables would do nothing: trained runs are measured. Add --update-tables, or omit --tables")
    if max_seeds is not None and not until_decided:
        raise ValueError("--max-seeds is the end of --until-decided: give both, or --seeds for a fixed number")
    if until_decided and seeds is not None:
        raise ValueError("--seeds is a fixed number, and --until-decided looks for it: give one of them")
    if quick and update_tables:
        raise ValueError("--quick is a look and no measurement, so --update-tables would spoil the stored evidence")
    from cotinterp.claims.catalog import CATALOG, get_claims
    from cotinterp.results import output_folder
    from cotinterp.results.shipped import here_or_shipped
    from cotinterp.studies.evidence import EVIDENCE_FILE, read_evidence
    from cotinterp.sweeps.progress import progress_stages
    from cotinterp.tasks import get_task

    claims = [one for ref in claim for one in get_claims(ref)] or CATALOG
    named = [get_task(ref) for ref in task]
    names = [one.name for one in named]
    stored, place = tables or Path("analyses/out"), root or Path("out/replication")
    if origin == "tables":
        with progress_stages("claims", ("read the evidence",)):
            evidence = read_evidence(here_or_shipped("tables", stored, EVIDENCE_FILE).parent)
        evidence = evidence if seeds is None else evidence.of_seeds(seeds)
        evidence.check_tasks(named)
    elif not train and not place.is_dir():
        raise FileNotFoundError(f"no folder {place}: --root says where the runs lie, and --train trains them there")
    folder = output_folder(out or Path("out/claims", *(["+".join(dict.fromkeys(names))] if names else [])))
    with progress_stages("claims", ("load torch",)):
        from cotinterp.claims.judge import look_factors, stored_looks
        from cotinterp.claims.session import Sources, Stages, claims_session, gather_evidence

    staged = until_decided
    if origin == "tables":
        planned = max_seeds or len(evidence.seeds)
        staged = seeds is None
        looks = (lambda _: look_factors(planned)) if until_decided else stored_looks(evidence)
        stages = Stages.of_tables(evidence, looks)
    else:
        from cotinterp.claims.claim import LEAST_SEEDS
        from cotinterp.models.build import resolve_device
        from cotinterp.sweeps.replication import PARTS, base_spec
        from cotinterp.training.spec import REFERENCE_TASKS

        resolve_device(device or "cpu")
        sources = Sources(
            tasks=task,
            seeds=LEAST_SEEDS if seeds is None else seeds,
            tables=stored if update_tables else None,
            root=place,
            train=train,
            jobs=2 if jobs is None else jobs,
            device=device or "cpu",
            quick=quick,
            base=base_spec(*task or REFERENCE_TASKS, k_max=k_max, n_layers=n_layers, steps=steps, n_train=n_train),
            parts=part or PARTS,
        )
        evidence = gather_evidence(sources, folder)
        stages = Stages.of_models(sources, folder, max_seeds or 4 * LEAST_SEEDS)
    claims_session(evidence, out=folder, tasks=names, claims=claims, say=print, stages=stages if staged else None)
