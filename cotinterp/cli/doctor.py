"""The command `doctor`: what of this machine, of checkpoints and of models of one's own can be relied on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from cotinterp.cli.instruments import app, own_model

if TYPE_CHECKING:
    import torch

    from cotinterp.mechanism.model import HookedModel
    from cotinterp.mechanism.model_check import ModelCheck

EXAMPLES, POSITIONS = 4, 7
"""Of the made-up text that a model of one's own is asked about."""


@app.command(
    name="doctor",
    examples=(
        "cotinterp doctor",
        "cotinterp doctor s3-cot-L4-s0-42df236d --json",
        "cotinterp doctor mine.py:bridge --weights model.safetensors",
    ),
)
def doctor_command(
    run: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN ...]")] = (),
    root: Path | None = None,
    task: str | None = None,
    weights: Path | None = None,
    json: bool = False,
) -> None:
    """Say what can be relied on: versions, device, bfloat16; checkpoints and models whose sites add up and act.

    Status 2 where something is wrong.

    Args:
        run: Slugs of runs, paths of their directories, or path/to/file.py:function that returns a TransformerLens-style
            model (the file is run); the four reference models by default.
        root: Where slugs are looked up; ./checkpoints by default, then the models that travel with the package.
        task: path/to/file.py:ClassName where the runs' task is not registered.
        weights: Of one path/to/file.py:function, the safetensors file whose weights its model should have.
        json: Print one JSON object in place of the lines.
    """
    from cotinterp.sweeps.progress import progress_stages
    from cotinterp.tasks.loading import is_reference
    from cotinterp.training.spec import reference_specs

    names = run or tuple(spec.slug for spec in reference_specs())
    ours = [name for name in names if not is_reference(name) or Path(name).exists()]
    if weights is not None and (ours or len(names) > 1):
        raise ValueError("--weights is the file of one model of your own: give one path/to/file.py:function with it")
    if weights is not None and not weights.is_file():
        raise FileNotFoundError(f"no file {weights}: --weights is the safetensors file of the model")
    with progress_stages("doctor", ("load torch", *names)) as begin:
        facts = _facts()
        found = []
        for name in names:
            begin(name)
            found.append(_checkpoint(name, root, task) if name in ours else _model(name, weights))
    _print(facts, found, as_json=json)
    if bad := [one["name"] for one in found if one["faults"]]:
        what = "checkpoints" if len(ours) == len(names) else "models"
        raise ValueError(f"{len(bad)} of {len(names)} {what} cannot be used: {', '.join(bad)}")


def _facts() -> dict[str, str | int]:
    import platform
    from importlib.metadata import version

    import torch

    from cotinterp.models.build import fast_bfloat16, resolve_device
    from cotinterp.training.checkpoints import machine_of

    device = resolve_device("auto")
    packages = ("cotinterp", "torch", "transformer-lens", "plotly", "circuitsvis")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "device": str(device),
        "processor": machine_of(device),
        "threads": torch.get_num_threads(),
        "bfloat16": "in hardware" if fast_bfloat16(device) else "emulated: train with --precision fp32",
    }


def _checkpoint(slug: str, root: Path | None, task: str | None) -> dict[str, Any]:
    """Whether the files of a run are whole and belong together, and whether its model is wired as it should be."""
    from cotinterp.mechanism import check_model
    from cotinterp.models.weights import weight_faults
    from cotinterp.studies.subject import Subject
    from cotinterp.training.checkpoints import MODEL_FILE, load_run, read_evaluation
    from cotinterp.training.progress import METRICS_FILE, read_metrics
    from cotinterp.training.spec_file import DEFAULT_ROOT

    try:
        run = load_run(slug, root=root or DEFAULT_ROOT, task=task)
        read_metrics(run.directory / METRICS_FILE)
        evaluation = read_evaluation(run.directory)
        subject = Subject.of_run(run)
        check = check_model(run.model, subject.batch(subject.trained(EXAMPLES)).tokens)
        weights = weight_faults(run.model, run.directory / MODEL_FILE)
    except (ValueError, OSError) as error:
        return {"name": slug, "faults": [" ".join(str(error).split())]}
    stale = evaluation is not None and evaluation.get("weight_hash") != run.weight_hash
    others = ["evaluation.json is of other weights: `cotinterp evaluate --store` makes it anew"] if stale else []
    return _found(slug, check, weights, others)


def _model(reference: str, weights: Path | None) -> dict[str, Any]:
    """Whether a model of one's own is wired as the instruments assume, and has the weights of its file."""
    from torch import nn

    from cotinterp.mechanism import check_model
    from cotinterp.models.weights import weight_faults
    from cotinterp.tasks.loading import user_code

    model, file = own_model(reference)
    text = _made_up_text(model)
    with user_code(f"the model of {reference}, given tokens of shape {tuple(text.shape)}", file):
        model(text)
    check = check_model(model, text)
    if weights is None:
        return _found(reference, check, None)
    if not isinstance(model, nn.Module):
        return _found(
            reference, check, [f"a {type(model).__name__} is no torch module: its weights cannot be compared"]
        )
    return _found(reference, check, weight_faults(model, weights))


def _made_up_text(model: "HookedModel") -> "torch.Tensor":
    """Tokens by chance, the same every time; of another length than the model has heads, so that axes show."""
    import torch

    longest = int(getattr(model.cfg, "n_ctx", 0) or POSITIONS + 1)
    length = min(POSITIONS + (int(model.cfg.n_heads) == POSITIONS), longest)
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(int(model.cfg.d_vocab), (EXAMPLES, length), generator=generator)
    return text.to(next(model.parameters()).device) if isinstance(model, torch.nn.Module) else text


def _found(name: str, check: "ModelCheck", weights: list[str] | None, others: Sequence[str] = ()) -> dict[str, Any]:
    """What is said of one model; `weights`: faults of its weights, None where they were compared with nothing."""
    from cotinterp.mechanism.model_check import NEXT, STREAM

    laws = {law: off if off == off else None for law, off in check.law_errors().items()}
    stream = [off for law in (STREAM, NEXT) if (off := laws[law]) is not None]
    return {
        "name": name,
        "faults": [*others, *(weights or ()), *check.faults()],
        "sound": list(check.sound()),
        "laws": laws,
        "stream_adds_up": max(stream) <= check.tolerance if stream else None,
        "every_site_acts": all(one.written for one in check.checks if one.read and one.site.kind != "resid_mid"),
        "weights_of_file": None if weights is None else not weights,
    }


WORDS: dict[str, dict[bool | None, str]] = {
    "stream_adds_up": {
        True: "the residual stream adds up",
        False: "the residual stream does NOT add up",
        None: "whether the residual stream adds up cannot be seen",
    },
    "every_site_acts": {True: "every site acts", False: "NOT every site acts"},
    "weights_of_file": {
        True: "the weights are those of the file",
        False: "the weights are NOT those of the file",
        None: "--weights compares the weights with a file",
    },
}


def _print(facts: dict[str, str | int], found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"facts": facts, "models": found}))
        return
    for name, value in facts.items():
        print(f"{name:18}{value}")
    for one in found:
        if "sound" not in one:
            print(f"{one['name']}  NOT usable: {one['faults'][0]}")
            continue
        said = "NOT whole" if one["faults"] else "whole"
        print(f"{one['name']}  {said}; trustworthy sites: {', '.join(one['sound']) or 'none'}")
        print(f"    {'; '.join(words[one[name]] for name, words in WORDS.items())}")
        for fault in one["faults"]:
            print(f"    {fault}")
