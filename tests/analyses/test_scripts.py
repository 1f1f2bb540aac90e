"""Every script, run with --quick, warnings being errors."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = sorted(
    path.stem for path in (REPOSITORY / "analyses").glob("*.py") if path.stem not in ("__init__", "publishing")
)


ABOUT = {
    "across_seeds": "s3",
    "circuit_seeds": "s3",
    "circuit_validity": "s3",
    "claims": "a5",
    "curricula": "z6",
    "depth_converged": "s3",
    "direct_algorithms": "s3",
    "encoder_control": "z6",
    "few_shot": "z6",
    "forgetting": "z6",
    "iteration_head": "parity",
    "length_generalization": "z6",
    "loops": "s3",
    "lora": "s3",
    "quotients": "s3",
    "rewards": "parity",
    "settled_longer": "runs that had settled",
    "setups": "z6",
    "tagging_groups": "s3",
    "taken_apart": "z6",
    "training_dynamics": "z6",
    "tree_expressions": "expressions-mod11",
    "widths": "z6",
}
"""A task of the answer of those scripts that are not about the reference models."""


def test_the_scripts_are_those_of_the_readme():
    assert SCRIPTS == [
        "accuracy_by_k",
        "across_seeds",
        "answer_readiness",
        "attention_routes",
        "causal_variables",
        "circuit_seeds",
        "circuit_validity",
        "claims",
        "compute",
        "curricula",
        "depth_converged",
        "depth_frontier",
        "direct_algorithms",
        "edge_circuits",
        "encoder_control",
        "error_law",
        "errors",
        "few_shot",
        "forgetting",
        "head_attribution",
        "inference_compute",
        "iteration_head",
        "knock_outs",
        "length_generalization",
        "loops",
        "lora",
        "memorization",
        "memory_or_algorithm",
        "patching",
        "path_patching",
        "probe_use",
        "quotients",
        "rewards",
        "running_total_probes",
        "serial_depth",
        "settled_longer",
        "setups",
        "step_importance",
        "tagging_groups",
        "taken_apart",
        "trace_edits",
        "training_dynamics",
        "tree_expressions",
        "verifiers",
        "widths",
    ]


PROGRAM = """
import runpy, sys

out, *scripts = sys.argv[1:]
for script in scripts:
    sys.argv = [script, "--quick", "--out", f"{out}/{script}"]
    runpy.run_module(f"analyses.{script}", run_name="__main__", alter_sys=False)
    print(f"end of {script}", flush=True)
"""
"""Runs scripts one after the other, so that torch is loaded once for several."""


@pytest.mark.slow
@pytest.mark.parametrize("scripts", [SCRIPTS[start::4] for start in range(4)], ids=lambda scripts: scripts[0])
def test_a_script_answers_and_leaves_tables_and_figures(scripts, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path), *scripts],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for script in scripts:
        printed, _, done.stdout = done.stdout.partition(f"end of {script}\n")
        answer = (tmp_path / script / "answer.txt").read_text()
        assert answer.strip() in printed
        assert ABOUT.get(script, "digit-sum") in answer
        assert list((tmp_path / script / "tables").glob("*.csv"))
        assert list((tmp_path / script / "figures").glob("*.html"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_short_and_begins_with_its_question(script):
    lines = (REPOSITORY / "analyses" / f"{script}.py").read_text().splitlines()
    assert len(lines) <= 100
    assert lines[0].endswith("?")
