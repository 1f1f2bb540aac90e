"""The picture of one transcript is the one that the library's own data give."""

import runpy

import numpy as np

from cotinterp.tasks import get_task
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from tests.docs.pages import REPOSITORY

DRAWING = runpy.run_path(str(REPOSITORY / "docs" / "draw_transcript.py"))


def test_the_committed_picture_is_the_one_of_today():
    assert DRAWING["PICTURE"].read_text() == DRAWING["draw"](), "`make house` draws it anew"


def test_every_symbol_has_its_role_beneath_it():
    task = get_task("digit-sum")
    (problem,) = solve(task, np.array([DRAWING["OPERANDS"]]))
    picture = DRAWING["PICTURE"].read_text()
    for token in render(task, problem, "cot").tokens:
        assert f">{token.role}</text>" in picture
    assert "blocks.0.attn.hook_z" in picture
    assert "head 4" in picture
