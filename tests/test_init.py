"""The table of contents: every name is there, and asking for none of them loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cotinterp

SOURCE = Path(cotinterp.__file__)


@pytest.mark.parametrize("name", cotinterp.__all__)
def test_every_name_is_there_and_documented(name):
    assert getattr(cotinterp, name).__doc__


def test_type_checkers_and_the_running_program_see_the_same_names():
    tree = ast.parse(SOURCE.read_text())
    declared = [(node.module, alias.name) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                for alias in node.names if (node.module or "").startswith("cotinterp")]  # fmt: skip
    assert sorted(declared) == sorted((module, name) for name, module in cotinterp._HOME.items())


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'prob_totals'"):
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
