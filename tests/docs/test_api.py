"""The API page names modules and members that exist."""

import importlib
import re

import yaml

from tests.docs.pages import REPOSITORY


def entries():
    """Every module of the page with the members that it shows; None for all of them."""
    for entry in (REPOSITORY / "docs" / "api.md").read_text().split("\n::: ")[1:]:
        module, _, rest = entry.partition("\n")
        indented = "\n".join(line for line in rest.splitlines() if line.startswith("    "))
        options = (yaml.safe_load(indented) or {}).get("options", {})
        yield module.strip(), options.get("members")


def test_modules_and_members_exist():
    for name, members in entries():
        module = importlib.import_module(name)
        assert module.__doc__, name
        assert [member for member in members or () if not hasattr(module, member)] == [], name


def test_every_module_stands_under_its_folder_and_every_folder_has_a_heading():
    page = (REPOSITORY / "docs" / "api.md").read_text()
    sections = dict(part.split("/\n", 1) for part in page.split("\n## ")[1:])
    for folder, text in sections.items():
        for module in re.findall(r"^::: ([\w.]+)$", text, re.M):
            inside = module.replace(".", "/").removeprefix("cotinterp/")
            assert inside == folder or inside.startswith(f"{folder}/"), module
    folders = {path.parent.name for path in (REPOSITORY / "cotinterp").glob("*/__init__.py")}
    assert folders - set(sections) == {"cli"}


def test_no_module_stands_twice():
    names = [name for name, _ in entries()]
    assert sorted(set(names)) == sorted(names)
