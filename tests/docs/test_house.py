"""The map of the house is the one that the imports give, and a circle of folders is refused."""

import runpy

import pytest

from tests.docs.pages import REPOSITORY

HOUSE = runpy.run_path(str(REPOSITORY / "docs" / "draw_house.py"))


def test_rooms_lie_under_those_that_import_them_and_arrows_that_follow_are_left_out():
    imports = {"cli": {"report", "tasks"}, "report": {"tasks"}, "tasks": set()}
    assert HOUSE["floors"](imports) == [["cli"], ["report"], ["tasks"]]
    assert HOUSE["arrows"](imports) == [("cli", "report"), ("report", "tasks")]
    with pytest.raises(ValueError, match=r"in a circle: \['report', 'tasks'\]"):
        HOUSE["floors"](imports | {"tasks": {"report"}})


def test_the_committed_map_has_the_arrows_of_today():
    """Sizes may lag behind, arrows may not: `make house` draws it anew."""

    def arrows(picture):
        return [line for line in picture.splitlines() if line.startswith("<path d=")]

    assert arrows(HOUSE["PICTURE"].read_text()) == arrows(HOUSE["draw"](HOUSE["rooms"]()))
