"""cotinterp: what written reasoning tokens buy a fixed-depth transformer, and by which mechanism.

This page is the table of contents. A name is imported when it is first asked for, so `import cotinterp` is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # What is computed
    from cotinterp.tasks import FoldTask as FoldTask
    from cotinterp.tasks import Steps as Steps
    from cotinterp.tasks import Task as Task
    from cotinterp.tasks import check_task as check_task
    from cotinterp.tasks import get_task as get_task
    from cotinterp.tasks import register as register
    from cotinterp.tasks import task_names as task_names

    # What is written
    from cotinterp.transcripts.roles import Role as Role
    from cotinterp.transcripts.vocabulary import Vocabulary as Vocabulary
    from cotinterp.transcripts.problems import Problem as Problem
    from cotinterp.transcripts.problems import sample_problems as sample_problems
    from cotinterp.transcripts.problems import solve as solve
    from cotinterp.transcripts.problems import split_of as split_of
    from cotinterp.transcripts.problems import substitute_total as substitute_total
    from cotinterp.transcripts.problems import training_problems as training_problems
    from cotinterp.transcripts.regimes import Regime as Regime
    from cotinterp.transcripts.regimes import get_regime as get_regime
    from cotinterp.transcripts.regimes import regime_names as regime_names
    from cotinterp.transcripts.render import Transcript as Transcript
    from cotinterp.transcripts.render import render as render
    from cotinterp.transcripts.batch import Batch as Batch
    from cotinterp.transcripts.batch import collate as collate
    from cotinterp.transcripts.pairs import Pairs as Pairs
    from cotinterp.transcripts.pairs import operand_pairs as operand_pairs
    from cotinterp.transcripts.pairs import written_total_pairs as written_total_pairs
    from cotinterp.transcripts.parsing import parse_response as parse_response

    # Who learns it, and how
    from cotinterp.models.spec import ModelSpec as ModelSpec
    from cotinterp.models.build import build_model as build_model
    from cotinterp.training.spec import OptimizerSpec as OptimizerSpec
    from cotinterp.training.spec import RunSpec as RunSpec
    from cotinterp.training.loop import train as train
    from cotinterp.training.checkpoints import Run as Run
    from cotinterp.training.checkpoints import list_runs as list_runs
    from cotinterp.training.checkpoints import load_run as load_run

    # What it does
    from cotinterp.behavior import accuracy_by_k as accuracy_by_k
    from cotinterp.behavior import classify as classify
    from cotinterp.behavior import error_taxonomy as error_taxonomy
    from cotinterp.behavior import evaluate_run as evaluate_run
    from cotinterp.behavior import substitute_totals as substitute_totals
    from cotinterp.behavior import verified_greedy as verified_greedy

    # How it does it
    from cotinterp.mechanism.sites import Site as Site
    from cotinterp.mechanism.sites import head_sites as head_sites
    from cotinterp.mechanism.sites import residual_sites as residual_sites
    from cotinterp.mechanism.activations import activations as activations
    from cotinterp.mechanism.interventions import Edit as Edit
    from cotinterp.mechanism.interventions import run_with as run_with
    from cotinterp.mechanism.contrast import Contrast as Contrast
    from cotinterp.mechanism.patching import patch_sweep as patch_sweep
    from cotinterp.mechanism.probing import probe_totals as probe_totals
    from cotinterp.mechanism.probe_fit import fit_probes as fit_probes
    from cotinterp.mechanism.attribution import logit_attribution as logit_attribution
    from cotinterp.mechanism.attention import attention_by_role as attention_by_role
    from cotinterp.mechanism.read_scores import iteration_scores as iteration_scores
    from cotinterp.mechanism.heads import head_table as head_table

    # What people see
    from cotinterp.results import Result as Result
    from cotinterp.results import bootstrap as bootstrap
    from cotinterp.results import wilson as wilson
    from cotinterp.report.reproduce import reproduce as reproduce
    from cotinterp.report.page import rebuild_report as rebuild_report
    from cotinterp.report.page import write_report as write_report

_NAMES = {
    "cotinterp.tasks": "FoldTask Steps Task check_task get_task register task_names",
    "cotinterp.transcripts.roles": "Role",
    "cotinterp.transcripts.vocabulary": "Vocabulary",
    "cotinterp.transcripts.problems": "Problem sample_problems solve split_of substitute_total training_problems",
    "cotinterp.transcripts.regimes": "Regime get_regime regime_names",
    "cotinterp.transcripts.render": "Transcript render",
    "cotinterp.transcripts.batch": "Batch collate",
    "cotinterp.transcripts.pairs": "Pairs operand_pairs written_total_pairs",
    "cotinterp.transcripts.parsing": "parse_response",
    "cotinterp.models.spec": "ModelSpec",
    "cotinterp.models.build": "build_model",
    "cotinterp.training.spec": "OptimizerSpec RunSpec",
    "cotinterp.training.loop": "train",
    "cotinterp.training.checkpoints": "Run list_runs load_run",
    "cotinterp.behavior": "accuracy_by_k classify error_taxonomy evaluate_run substitute_totals verified_greedy",
    "cotinterp.mechanism.sites": "Site head_sites residual_sites",
    "cotinterp.mechanism.activations": "activations",
    "cotinterp.mechanism.interventions": "Edit run_with",
    "cotinterp.mechanism.contrast": "Contrast",
    "cotinterp.mechanism.patching": "patch_sweep",
    "cotinterp.mechanism.probing": "probe_totals",
    "cotinterp.mechanism.probe_fit": "fit_probes",
    "cotinterp.mechanism.attribution": "logit_attribution",
    "cotinterp.mechanism.attention": "attention_by_role",
    "cotinterp.mechanism.read_scores": "iteration_scores",
    "cotinterp.mechanism.heads": "head_table",
    "cotinterp.results": "Result bootstrap wilson",
    "cotinterp.report.reproduce": "reproduce",
    "cotinterp.report.page": "rebuild_report write_report",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cotinterp' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
