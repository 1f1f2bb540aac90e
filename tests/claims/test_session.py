import json

import pandas as pd
import pytest

from cotinterp.claims.session import claims_session
from tests.claims.claims import ACCURATE, BOTH
from tests.claims.worlds import accuracies, evidence

HIGH, LOW = [0.53, 0.54, 0.53, 0.54, 0.53], [0.1, 0.12, 0.09, 0.1, 0.11]
RUNS = [
    {"task": "toy", "status": "finished", "slug": "a"},
    {"task": "toy", "status": "failed", "slug": "b", "note": "the loss is not finite"},
]
MADE = evidence([*accuracies("cot", HIGH), *accuracies("direct", LOW)], RUNS)


def test_everything_is_said_and_written(tmp_path):
    said = []
    verdicts = claims_session(MADE, out=tmp_path, claims=(ACCURATE, BOTH), say=said.append)
    text = "\n".join(said)
    assert "toy, cot-is-accurate: supported. Every prediction holds" in text
    assert "toy, both-are-accurate: partly supported." in text
    assert "rivals: cot alone: stands; neither: contradicted" in text
    assert "runs: 1 finished, 1 failed" in text
    assert "failed: b: the loss is not finite" in text
    assert "toy, cot-is-accurate: accuracy times 1.1: supported becomes" in text
    assert json.loads((tmp_path / "verdicts.json").read_text())[0]["verdict"] == "supported"
    for name in ("verdicts", "claim_criteria", "claim_seeds", "claim_runs", "claim_thresholds"):
        assert len(pd.read_csv(tmp_path / "tables" / f"{name}.csv")), name
    assert (tmp_path / "figures" / "verdicts.html").exists()
    assert verdicts.of("both-are-accurate", "toy").verdict == "partly supported"


def test_a_task_without_evidence_says_how_to_get_some(tmp_path):
    with pytest.raises(ValueError, match=r"no evidence on \['parity'\]; there is some on \['toy'\].*--train --task"):
        claims_session(MADE, out=tmp_path, tasks=["parity"], claims=(ACCURATE,), say=lambda _: None)
