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
    from cotinterp.tasks import TreeTask as TreeTask
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
    from cotinterp.transcripts.pair_families import exchanged_pairs as exchanged_pairs
    from cotinterp.transcripts.pair_families import pair_families as pair_families
    from cotinterp.transcripts.pair_families import prompt_operand_pairs as prompt_operand_pairs
    from cotinterp.transcripts.pair_families import unrelated_pairs as unrelated_pairs
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

    # Models whose mechanism is known
    from cotinterp.models.handmade import lookup as lookup
    from cotinterp.models.handmade import parallel as parallel
    from cotinterp.models.handmade import reader as reader
    from cotinterp.models.handmade import recomputer as recomputer

    # What it does
    from cotinterp.behavior import accuracy_by_k as accuracy_by_k
    from cotinterp.behavior import classify as classify
    from cotinterp.behavior import error_taxonomy as error_taxonomy
    from cotinterp.behavior import evaluate_run as evaluate_run
    from cotinterp.behavior import verified_greedy as verified_greedy
    from cotinterp.behavior.sampling import SampledResponse as SampledResponse
    from cotinterp.behavior.sampling import Samples as Samples
    from cotinterp.behavior.sampling import sample_continuations as sample_continuations
    from cotinterp.behavior.sampling import sample_responses as sample_responses
    from cotinterp.behavior.edits import trace_edits as trace_edits
    from cotinterp.behavior.generalization import generalization_by_k as generalization_by_k
    from cotinterp.behavior.invariance import permutation_invariance as permutation_invariance
    from cotinterp.behavior.readiness import answer_readiness as answer_readiness
    from cotinterp.behavior.marginal import answer_marginal as answer_marginal
    from cotinterp.behavior.generalization import SizeCurve as SizeCurve
    from cotinterp.behavior.generalization import size_specs as size_specs
    from cotinterp.behavior.tagging import tag_accuracy as tag_accuracy

    # How it does it: reading and writing activations
    from cotinterp.mechanism.sites import Site as Site
    from cotinterp.mechanism.sites import head_sites as head_sites
    from cotinterp.mechanism.sites import residual_sites as residual_sites
    from cotinterp.mechanism.activations import activations as activations
    from cotinterp.mechanism.activations import stream_activations as stream_activations
    from cotinterp.mechanism.interventions import Edit as Edit
    from cotinterp.mechanism.interventions import run_with as run_with
    from cotinterp.mechanism.contrast import Contrast as Contrast
    from cotinterp.mechanism.model_check import check_model as check_model

    # How it does it: patching
    from cotinterp.mechanism.patching.sweep import patch_sweep as patch_sweep
    from cotinterp.mechanism.patching.sweep import patch_both_ways as patch_both_ways
    from cotinterp.mechanism.patching.run_predictions import run_predictions as run_predictions
    from cotinterp.mechanism.patching.run_predictions import source as source
    from cotinterp.mechanism.patching.paths import Path as Path
    from cotinterp.mechanism.patching.paths import head_paths as head_paths
    from cotinterp.mechanism.patching.path_patching import path_sweep as path_sweep
    from cotinterp.mechanism.patching.attribution_patching import attribution_patch as attribution_patch

    # How it does it: probing
    from cotinterp.mechanism.probing.totals import probe_totals as probe_totals
    from cotinterp.mechanism.probing.fit import fit_probes as fit_probes
    from cotinterp.mechanism.probing.linear_probe import LinearProbe as LinearProbe
    from cotinterp.mechanism.probing.linear_probe import fit_probe as fit_probe
    from cotinterp.mechanism.probing.coordinates import coordinates as coordinates
    from cotinterp.mechanism.probing.sample_size import sample_size_curve as sample_size_curve
    from cotinterp.mechanism.probing.subspaces import Subspace as Subspace
    from cotinterp.mechanism.probing.subspaces import interchange as interchange
    from cotinterp.mechanism.probing.use import probe_use as probe_use
    from cotinterp.mechanism.probing.transfer import transfer_matrix as transfer_matrix
    from cotinterp.mechanism.probing.transfer import transfer_totals as transfer_totals

    # How it does it: heads
    from cotinterp.mechanism.heads.attribution import logit_attribution as logit_attribution
    from cotinterp.mechanism.heads.attention import attention_by_role as attention_by_role
    from cotinterp.mechanism.heads.read_scores import iteration_scores as iteration_scores
    from cotinterp.mechanism.heads.table import head_table as head_table
    from cotinterp.mechanism.heads.ablation import compare_ablations as compare_ablations
    from cotinterp.mechanism.heads.knock_outs import knock_out_reads as knock_out_reads
    from cotinterp.mechanism.heads.backups import backup_heads as backup_heads

    # Many of it
    from cotinterp.sweeps.sweep import train_all as train_all
    from cotinterp.sweeps.grid import Grid as Grid
    from cotinterp.sweeps.grid import read_grid as read_grid
    from cotinterp.depth.grid import DepthDesign as DepthDesign
    from cotinterp.depth.grid import depth_grid as depth_grid
    from cotinterp.sweeps.executors import open_executor as open_executor
    from cotinterp.sweeps.sweep import run_sweep as run_sweep
    from cotinterp.sweeps.sweep import sweep_status as sweep_status
    from cotinterp.sweeps.table import sweep_table as sweep_table
    from cotinterp.sweeps.table import read_sweep_table as read_sweep_table
    from cotinterp.sweeps.table import write_sweep_table as write_sweep_table
    from cotinterp.depth.frontier import depth_frontier as depth_frontier
    from cotinterp.depth.cost import answer_cost as answer_cost
    from cotinterp.depth.cost import training_flops as training_flops
    from cotinterp.depth.cost import equal_flops as equal_flops
    from cotinterp.depth.cost import equal_parameters as equal_parameters
    from cotinterp.depth.compute import accuracy_against_compute as accuracy_against_compute

    # What follows
    from cotinterp.claims.claim import Claim as Claim
    from cotinterp.claims.claim import Control as Control
    from cotinterp.claims.claim import Criterion as Criterion
    from cotinterp.claims.claim import Rival as Rival
    from cotinterp.claims.claim import Threshold as Threshold
    from cotinterp.studies.evidence import Evidence as Evidence
    from cotinterp.studies.evidence import read_evidence as read_evidence
    from cotinterp.claims.judge import judge as judge
    from cotinterp.claims.judge import judge_all as judge_all
    from cotinterp.studies.subject import Subject as Subject
    from cotinterp.sweeps.replication import gather_subjects as gather_subjects
    from cotinterp.sweeps.replication import replicate as replicate
    from cotinterp.sweeps.replication import joint_plan as joint_plan
    from cotinterp.claims.depth_law import depth_verdicts as depth_verdicts
    from cotinterp.claims.depth_law import judge_depth as judge_depth

    # What people see
    from cotinterp.results import Result as Result
    from cotinterp.results import bootstrap as bootstrap
    from cotinterp.results import holm as holm
    from cotinterp.results import max_statistic as max_statistic
    from cotinterp.results import wilson as wilson
    from cotinterp.report.reproduce import reproduce as reproduce
    from cotinterp.report.page import rebuild_report as rebuild_report
    from cotinterp.report.page import write_report as write_report
    from cotinterp.report.simulator import build_simulator as build_simulator

    # Whether to believe it
    from cotinterp.calibration.calibrate import calibrate as calibrate
    from cotinterp.calibration.untrained import false_positives as false_positives

_NAMES = {
    "cotinterp.tasks": "FoldTask Steps Task TreeTask check_task get_task register task_names",
    "cotinterp.transcripts.roles": "Role",
    "cotinterp.transcripts.vocabulary": "Vocabulary",
    "cotinterp.transcripts.problems": "Problem sample_problems solve split_of substitute_total training_problems",
    "cotinterp.transcripts.regimes": "Regime get_regime regime_names",
    "cotinterp.transcripts.render": "Transcript render",
    "cotinterp.transcripts.batch": "Batch collate",
    "cotinterp.transcripts.pairs": "Pairs operand_pairs written_total_pairs",
    "cotinterp.transcripts.pair_families": "exchanged_pairs pair_families prompt_operand_pairs unrelated_pairs",
    "cotinterp.transcripts.parsing": "parse_response",
    "cotinterp.models.spec": "ModelSpec",
    "cotinterp.models.build": "build_model",
    "cotinterp.training.spec": "OptimizerSpec RunSpec",
    "cotinterp.training.loop": "train",
    "cotinterp.training.checkpoints": "Run list_runs load_run",
    "cotinterp.models.handmade": "lookup parallel reader recomputer",
    "cotinterp.behavior": "accuracy_by_k classify error_taxonomy evaluate_run verified_greedy",
    "cotinterp.behavior.sampling": "SampledResponse Samples sample_continuations sample_responses",
    "cotinterp.behavior.edits": "trace_edits",
    "cotinterp.behavior.generalization": "generalization_by_k SizeCurve size_specs",
    "cotinterp.behavior.invariance": "permutation_invariance",
    "cotinterp.behavior.readiness": "answer_readiness",
    "cotinterp.behavior.marginal": "answer_marginal",
    "cotinterp.behavior.tagging": "tag_accuracy",
    "cotinterp.mechanism.sites": "Site head_sites residual_sites",
    "cotinterp.mechanism.activations": "activations stream_activations",
    "cotinterp.mechanism.interventions": "Edit run_with",
    "cotinterp.mechanism.contrast": "Contrast",
    "cotinterp.mechanism.model_check": "check_model",
    "cotinterp.mechanism.patching.sweep": "patch_sweep patch_both_ways",
    "cotinterp.mechanism.patching.run_predictions": "run_predictions source",
    "cotinterp.mechanism.patching.paths": "Path head_paths",
    "cotinterp.mechanism.patching.path_patching": "path_sweep",
    "cotinterp.mechanism.patching.attribution_patching": "attribution_patch",
    "cotinterp.mechanism.probing.totals": "probe_totals",
    "cotinterp.mechanism.probing.fit": "fit_probes",
    "cotinterp.mechanism.probing.linear_probe": "LinearProbe fit_probe",
    "cotinterp.mechanism.probing.coordinates": "coordinates",
    "cotinterp.mechanism.probing.sample_size": "sample_size_curve",
    "cotinterp.mechanism.probing.subspaces": "Subspace interchange",
    "cotinterp.mechanism.probing.use": "probe_use",
    "cotinterp.mechanism.probing.transfer": "transfer_matrix transfer_totals",
    "cotinterp.mechanism.heads.attribution": "logit_attribution",
    "cotinterp.mechanism.heads.attention": "attention_by_role",
    "cotinterp.mechanism.heads.read_scores": "iteration_scores",
    "cotinterp.mechanism.heads.table": "head_table",
    "cotinterp.mechanism.heads.ablation": "compare_ablations",
    "cotinterp.mechanism.heads.knock_outs": "knock_out_reads",
    "cotinterp.mechanism.heads.backups": "backup_heads",
    "cotinterp.sweeps.grid": "Grid read_grid",
    "cotinterp.depth.grid": "DepthDesign depth_grid",
    "cotinterp.sweeps.executors": "open_executor",
    "cotinterp.sweeps.sweep": "train_all run_sweep sweep_status",
    "cotinterp.sweeps.table": "sweep_table read_sweep_table write_sweep_table",
    "cotinterp.depth.frontier": "depth_frontier",
    "cotinterp.depth.cost": "answer_cost training_flops equal_flops equal_parameters",
    "cotinterp.depth.compute": "accuracy_against_compute",
    "cotinterp.claims.claim": "Claim Control Criterion Rival Threshold",
    "cotinterp.studies.evidence": "Evidence read_evidence",
    "cotinterp.claims.judge": "judge judge_all",
    "cotinterp.studies.subject": "Subject",
    "cotinterp.sweeps.replication": "gather_subjects joint_plan replicate",
    "cotinterp.claims.depth_law": "depth_verdicts judge_depth",
    "cotinterp.results": "Result bootstrap holm max_statistic wilson",
    "cotinterp.report.reproduce": "reproduce",
    "cotinterp.report.page": "rebuild_report write_report",
    "cotinterp.report.simulator": "build_simulator",
    "cotinterp.calibration.calibrate": "calibrate",
    "cotinterp.calibration.untrained": "false_positives",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cotinterp' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
