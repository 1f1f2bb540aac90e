"""Every script, run as a reader would run it, with --quick."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = sorted(
    path.stem for path in (REPOSITORY / "analyses").glob("*.py") if path.stem not in ("__init__", "publishing")
)


ABOUT = {"iteration_head": "parity", "tagging_groups": "s3", "tree_expressions": "expressions-mod11"}
"""A task of the answer of those scripts that are not about the reference models."""


def test_the_scripts_are_those_of_the_readme():
    assert SCRIPTS == [
        "accuracy_by_k",
        "answer_readiness",
        "claims",
        "compute",
        "depth_frontier",
        "errors",
        "head_attribution",
        "iteration_head",
        "knock_outs",
        "memorization",
        "patching",
        "path_patching",
        "probe_use",
        "running_total_probes",
        "serial_depth",
        "tagging_groups",
        "trace_edits",
        "tree_expressions",
    ]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_answers_and_leaves_tables_and_figures(script, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"analyses.{script}", "--quick", "--out", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = (tmp_path / "answer.txt").read_text()
    assert answer.strip() in done.stdout
    assert ABOUT.get(script, "digit-sum") in answer
    assert list((tmp_path / "tables").glob("*.csv"))
    assert list((tmp_path / "figures").glob("*.html"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_short_and_begins_with_its_question(script):
    lines = (REPOSITORY / "analyses" / f"{script}.py").read_text().splitlines()
    assert len(lines) <= 100
    assert lines[0].endswith("?")
