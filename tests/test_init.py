"""The table of contents: every name is there and in use, and asking for none of them loads nothing heavy."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import cotinterp

REPOSITORY = Path(__file__).parents[1]


def test_every_name_is_there_once():
    names = re.findall(r" as (\w+)$", (REPOSITORY / "cotinterp" / "__init__.pyi").read_text(), re.MULTILINE)
    assert sorted(names) == sorted(set(names)) == sorted(cotinterp.__all__)
    assert [name for name in names if getattr(cotinterp, name).__name__ != name] == []


def test_every_name_is_used_by_a_page_or_a_script():
    pages = [*REPOSITORY.glob("docs/*.md"), REPOSITORY / "README.md", *REPOSITORY.glob("analyses/*.py")]
    imports = re.compile(r"from cotinterp import (\([^)]*\)|[^\n]*)")
    used = {name for page in pages for block in imports.findall(page.read_text()) for name in re.findall(r"\w+", block)}
    assert [name for name in cotinterp.__all__ if name not in used] == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="prob_totals"):
        cotinterp.prob_totals  # noqa: B018


def test_import_and_help_load_neither_torch_nor_transformer_lens():
    program = (
        "import sys, cotinterp\n"
        "from cotinterp.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformer_lens', 'plotly', 'pandas', 'numpy', 'pydantic'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
