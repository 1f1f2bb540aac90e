"""The table of contents, for type checkers and for the lazy import in `__init__.py`: each name stands here once."""

__version__: str

# What is computed
from .tasks.task import FoldTask as FoldTask
from .tasks.trees import TreeTask as TreeTask
from .tasks.check import check_task as check_task
from .tasks.registry import get_task as get_task

# What is written
from .transcripts.problems import Problem as Problem
from .transcripts.roles import Role as Role
from .transcripts.batch import collate as collate
from .transcripts.pair_families import pair_families as pair_families
from .transcripts.render import render as render
from .transcripts.problems import sample_problems as sample_problems
from .transcripts.pairs import written_total_pairs as written_total_pairs

# Who learns it, and how
from .models.spec import ModelSpec as ModelSpec
from .training.spec import RunSpec as RunSpec
from .models.build import build_model as build_model
from .training.checkpoints import load_run as load_run
from .training.loop import train as train

# What it does
from .behavior.accuracy import accuracy_by_k as accuracy_by_k
from .behavior.readiness import answer_readiness as answer_readiness
from .behavior.errors import error_taxonomy as error_taxonomy
from .behavior.accuracy import evaluate_run as evaluate_run
from .behavior.generalization import generalization_by_k as generalization_by_k
from .behavior.invariance import permutation_invariance as permutation_invariance
from .behavior.edits import trace_edits as trace_edits

# How it does it: reading and writing activations
from .mechanism.contrast import Contrast as Contrast
from .mechanism.sites import Site as Site
from .mechanism.activations import activations as activations
from .mechanism.model_check import check_model as check_model
from .mechanism.interventions import knock_out as knock_out
from .mechanism.metrics import logit_diff as logit_diff
from .mechanism.sites import residual_sites as residual_sites
from .mechanism.interventions import run_with as run_with

# How it does it: patching
from .mechanism.patching.attribution_patching import attribution_patch as attribution_patch
from .mechanism.patching.paths import head_paths as head_paths
from .mechanism.patching.sweep import patch_sweep as patch_sweep
from .mechanism.patching.path_patching import path_sweep as path_sweep
from .mechanism.patching.run_predictions import run_predictions as run_predictions

# How it does it: probing
from .mechanism.probing.linear_probe import fit_probe as fit_probe
from .mechanism.probing.fit import fit_probes as fit_probes
from .mechanism.probing.totals import probe_totals as probe_totals
from .mechanism.probing.use import probe_use as probe_use
from .mechanism.probing.totals import running_total as running_total

# How it does it: heads
from .mechanism.heads.attention import attention as attention
from .mechanism.heads.backups import backup_heads as backup_heads
from .mechanism.heads.ablation import compare_ablations as compare_ablations
from .mechanism.heads.table import head_table as head_table
from .mechanism.heads.knock_outs import knock_out_reads as knock_out_reads
from .mechanism.heads.attribution import logit_attribution as logit_attribution

# One model measured, and many
from .studies.subject import Effort as Effort
from .studies.subject import Subject as Subject
from .studies.instruments import study as study
from .sweeps.sweep import run_sweep as run_sweep
from .sweeps.table import sweep_table as sweep_table

# What they say of depth
from .depth.compute import accuracy_against_compute as accuracy_against_compute
from .depth.frontier import depth_frontier as depth_frontier
from .claims.depth_law import depth_verdicts as depth_verdicts

# What follows, and whether to believe it
from .claims.claim import Claim as Claim
from .calibration.calibrate import calibrate as calibrate
from .claims.judge import judge as judge
from .claims.judge import judge_all as judge_all
from .studies.evidence import read_evidence as read_evidence
