"""A finished run as a folder that the Hugging Face hub takes: its own files, a config.json and a model card.

The folder is a directory of the run like any other (`load_run` takes it, by path and under any name), and what is said
of the model is what its files say: accuracies are those of evaluation.json, and a run without one has none.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cotinterp.models.build import bridge_fields
from cotinterp.models.weights import CheckpointError
from cotinterp.results.atomic import new_folder, write_atomic
from cotinterp.results.shipped import shipped
from cotinterp.training.checkpoints import EVALUATION_FILE, Run, read_evaluation
from cotinterp.training.data import problems_of
from cotinterp.training.progress import METRICS_FILE, read_metrics
from cotinterp.training.spec import reference_specs
from cotinterp.training.spec_file import MODEL_FILE, SPEC_FILE
from cotinterp.transcripts.render import render

CONFIG_FILE, CARD_FILE = "config.json", "README.md"


def export_run(run: Run, folder: Path | str, *, license: str | None = None) -> Path:
    """Writes the run to `folder`, which is whole or absent, and returns its path.

    Args:
        folder: A new one, or an empty one.
        license: Its identifier on the hub; by default that of cotinterp for its reference models, else `unknown`.

    Raises:
        FileExistsError: There is something at `folder`.
        ValueError: What the model is cannot be said in TransformerLens's config: positions "alibi", and continuous
            thoughts, without which it would be read.
        CheckpointError: Log or evaluation are damaged, or the evaluation is of other weights.
    """
    folder = Path(folder)
    if run.spec.model.positions == "alibi":
        raise ValueError(
            f"{run.spec.slug} has positions 'alibi', which no config.json of TransformerLens's own model can say: "
            f"share {run.directory} as it is, load_run takes it"
        )
    evaluation = read_evaluation(run.directory)
    if evaluation is not None and evaluation.get("weight_hash") != run.weight_hash:
        raise CheckpointError(
            f"{run.directory / EVALUATION_FILE} is of other weights than those beside it: evaluate the run again "
            "(`cotinterp evaluate --store`), or delete it"
        )
    read_metrics(run.directory / METRICS_FILE)
    known = license or ("mit" if _is_ours(run) else "unknown")
    with new_folder(folder) as new:
        for name in (MODEL_FILE, SPEC_FILE, METRICS_FILE, EVALUATION_FILE):
            if (run.directory / name).exists():
                shutil.copyfile(run.directory / name, new / name)
        write_atomic(new / CONFIG_FILE, json.dumps(hub_config(run), indent=2, ensure_ascii=False) + "\n")
        write_atomic(new / CARD_FILE, model_card(run, evaluation, license=known))
    return folder


def hub_config(run: Run) -> dict[str, Any]:
    """config.json: what a program needs that has TransformerLens and not cotinterp."""
    if run.spec.model.thoughts:
        raise ValueError(
            f"{run.spec.slug} has continuous thoughts: read by TransformerLens alone its dots would be embedded, as in "
            "another model. Hand on its directory, which load_run reads"
        )
    return {
        "model_type": "cotinterp",
        "transformer_lens": bridge_fields(run.spec.model, len(run.vocabulary)),
        "symbols": list(run.vocabulary.symbols),
        "task": run.task.name,
        "regime": run.spec.regime,
        "slug": run.spec.slug,
        "weight_hash": run.weight_hash,
    }


def model_card(run: Run, evaluation: Mapping[str, Any] | None, *, license: str) -> str:
    """README.md: metadata for the hub as YAML (each value written as JSON, which is YAML too), then the card."""
    spec, shape = run.spec, run.spec.model
    rows = [] if evaluation is None else list(evaluation["accuracy"])
    head: dict[str, Any] = {
        "license": license,
        "library_name": "cotinterp",
        "tags": ["cotinterp", "transformer-lens", "interpretability", run.task.name, spec.regime],
        "task": run.task.name,
        "regime": spec.regime,
    }
    if rows:
        head["model-index"] = [{"name": spec.slug, "results": [_result(run, row) for row in rows]}]
    front = "\n".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in head.items())
    size = sum(parameter.numel() for parameter in run.model.original_model.parameters())
    layers = f"{shape.n_layers} layers" + (f" run {shape.loops} times in turn" if shape.loops > 1 else "")
    trained = run.metadata
    problem = problems_of(spec, run.task)[0]
    own = ', task="path/to/file.py:ClassName"' if spec.definition is not None else ""
    return f"""---
{front}
---

# {spec.slug}

A toy transformer of the research bench cotinterp, trained on the task `{run.task.name}` in the regime `{spec.regime}`:
{layers}, {shape.n_heads} heads, d_model {shape.d_model}, d_mlp {shape.d_mlp}, {size:,} weights. It knows
{len(run.vocabulary)} symbols and no language. The first of its training problems, as it is to be written:

```text
{render(run.task, problem, spec.regime).text}
```

Training: {spec.n_train:,} problems of {spec.k_min} to {spec.k_max} operands, {trained["step"]} updates of
{spec.optimizer.batch_size} transcripts, seed {spec.seed}, {spec.precision}; cotinterp {trained["cotinterp"]}, torch
{trained["torch"]}, CPU threads: {trained["threads"]}. `{SPEC_FILE}` has every field, `{METRICS_FILE}` the losses.
SHA-256 of the weights: `{run.weight_hash}`.

## Accuracy

{_accuracy(rows)}

## Loading

```python
from cotinterp import load_run

run = load_run("path/to/this/folder"{own})
```

{_own_task(run)}or with TransformerLens 4 alone, in this folder:

```python
import json
from pathlib import Path

from safetensors.torch import load_file
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

config = json.loads(Path("config.json").read_text())
model = TransformerBridge.boot_native(TransformerBridgeConfig(**config["transformer_lens"])).eval()
model.load_state_dict(load_file("model.safetensors"), strict=False)  # the file has no bias of the unembedding: it is 0
```

A token is the place of its symbol in `config["symbols"]`. The `transformers` library does not load this model.
"""


def _own_task(run: Run) -> str:
    if run.spec.definition is None:
        return ""
    return "The task is not one that comes with cotinterp: its file has to be there, and is not in this folder.\n\n"


def _result(run: Run, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "task": {"type": "text-generation", "name": run.task.name},
        "dataset": {
            "type": "cotinterp",
            "name": f"{run.task.name}, {row['k']} operands, {row['split']}",
            "config": f"k={row['k']}",
            "split": row["split"],
        },
        "metrics": [{"type": "accuracy", "value": row["accuracy"]}],
    }


def _accuracy(rows: list[Mapping[str, Any]]) -> str:
    if not rows:
        return f"Not measured: the run had no `{EVALUATION_FILE}`."
    lines = [
        "Answers that are right, of what the model writes by itself (greedily), with a 95% interval "
        f"(`{EVALUATION_FILE}`):",
        "",
        "| problems | operands | right | of | accuracy | from | to |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = (f"{row[name]:.3f}" for name in ("accuracy", "ci_low", "ci_high"))
        lines.append(f"| {row['split']} | {row['k']} | {row['correct']} | {row['n']} | {' | '.join(shares)} |")
    return "\n".join(lines)


def _is_ours(run: Run) -> bool:
    """Whether it is a reference model, in the place where it comes with the package and its license."""
    place = shipped("checkpoints") / run.spec.slug
    return run.spec in reference_specs() and run.directory.resolve() == place.resolve()
