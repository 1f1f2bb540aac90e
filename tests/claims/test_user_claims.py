import pytest

from cotinterp.claims.catalog import CATALOG, get_claim
from cotinterp.claims.judge import judge
from tests.claims.worlds import accuracies, evidence

OWN = """
from cotinterp.claims import Claim, Criterion, Threshold


def accuracy(cells):
    return cells.mean("accuracy", regime="cot", k=4, condition="heldout")


EASY = Claim(
    name="easy",
    statement="It is easy.",
    source="nobody",
    criteria=(Criterion("accuracy", "accuracy of cot", accuracy, Threshold(0.5, "half")),),
    predicts={"accuracy": "above"},
)
NUMBER = 3
"""


def test_a_claim_of_the_catalog_by_its_name():
    assert get_claim("gap-widens") is CATALOG[0]
    assert get_claim(CATALOG[1]) is CATALOG[1]
    with pytest.raises(KeyError, match="unknown claim 'gap'. Known: gap-widens, .*path/to/file.py:NAME"):
        get_claim("gap")


def test_a_claim_of_ones_own_is_judged(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    claim = get_claim(f"{path}:EASY")
    assert judge(claim, evidence(accuracies("cot", [0.9, 0.92, 0.91, 0.9, 0.93]))).verdict == "supported"
    assert judge(claim, evidence(accuracies("cot", [0.1, 0.12, 0.11, 0.1, 0.13]))).verdict == "not supported"


def test_what_is_no_claim_is_refused(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    with pytest.raises(ValueError, match=r"has no claim 'NUMBER'; claims in it: \['EASY'\]"):
        get_claim(f"{path}:NUMBER")
    with pytest.raises(FileNotFoundError, match="no file 'nowhere.py'"):
        get_claim("nowhere.py:EASY")
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(ValueError, match="not a Python file"):
        get_claim(f"{tmp_path / 'text.txt'}:EASY")
