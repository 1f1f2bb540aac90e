"""The documentation does what it says: its code runs, its commands parse, its names and tables are the library's."""

import contextlib
import io
import re
import shlex
from itertools import zip_longest
from pathlib import Path

import pandas as pd
import pytest
import yaml

from cotinterp import cli
from cotinterp.training.loop import train
from cotinterp.training.spec import RunSpec, reference_specs
from tests.docs.pages import PAGES, REPOSITORY, WITH_README, blocks, commands, prose
from tests.docs.tiny import tiny

pytestmark = pytest.mark.slow

SLUG = re.compile(r"\b[a-z0-9]+(?:-[a-z0-9]+)*-L\d+-s\d+-[0-9a-f]{8}\b")
WRITTEN = {"evaluate": "accuracy.csv", "probe": "probes.csv"}
NEW_TASK = REPOSITORY / "docs" / "new-task.md"


def ids(path: Path) -> str:
    return path.name


@pytest.fixture
def no_progress(monkeypatch):
    """A progress bar is no part of parsing a command."""
    monkeypatch.setattr("cotinterp.training.progress.rich_progress", lambda _: contextlib.nullcontext())


@pytest.fixture
def parsed(monkeypatch, no_progress):
    """Runs a command line up to the work that it would do, and returns what it asked for."""
    asked = []

    class Reached(SystemExit):
        """The command has parsed, and what follows is its work. The gate lets no other exception through."""

    def note(*given, **named):
        asked.append((given, named))
        raise Reached

    monkeypatch.setattr("cotinterp.training.loop.train", note)
    monkeypatch.setattr("cotinterp.report.reproduce.reproduce", note)
    monkeypatch.setattr("cotinterp.report.rebuild_report", note)
    monkeypatch.setattr("cotinterp.report.depth.depth_report", note)
    monkeypatch.setattr("cotinterp.calibration.session.calibration_session", note)
    monkeypatch.setattr("cotinterp.claims.session.gather_evidence", note)
    monkeypatch.setattr("cotinterp.claims.session.claims_session", note)
    monkeypatch.setattr("cotinterp.cli.instruments._study", note)
    monkeypatch.setattr("cotinterp.sweeps.grid.read_grid", note)
    monkeypatch.setattr("cotinterp.training.checkpoints.load_run", note)
    monkeypatch.setattr("cotinterp.cli.instruments.own_model", note)
    monkeypatch.setattr("cotinterp.training.export.export_run", note)

    def parse(words):
        asked.clear()
        with contextlib.suppress(Reached):
            cli.main(words)
        return asked[0] if asked else None

    return parse


def write_files(page, directory):
    """The files that a page tells its reader to save."""
    for block in blocks(page):
        if block.language == "python" and block.title:
            (directory / block.title).write_text(block.text)


def trained_on(page, parse) -> list[RunSpec]:
    """The specs of the trainings that a page asks for."""
    return [parse(words[1:])[0][0] for _, words in commands(page) if words[:2] == ["cotinterp", "train"]]


@pytest.mark.parametrize("page", WITH_README, ids=ids)
def test_code_runs_in_order_and_prints_what_the_page_says(page, desk):
    directory = desk(*dict.fromkeys(SLUG.findall(page.read_text())))
    write_files(page, directory)
    names, everything = {"__name__": "__main__"}, blocks(page)
    for block, following in zip_longest(everything, everything[1:]):
        if not block.is_run or block.title:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
        if following is not None and following.title == "output":
            assert printed.getvalue().strip() == following.text.strip(), following.where


@pytest.mark.parametrize("page", WITH_README, ids=ids)
def test_every_command_exists_and_parses(page, desk, parsed):
    directory = desk()
    for other in WITH_README:
        write_files(other, directory)
    targets = re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.M)
    for block, words in commands(page):
        if words[0] == "cotinterp":
            parsed(words[1:])
        elif words[0] == "make":
            assert words[1] in targets, block.where
        elif words[:2] == ["python", "-m"]:
            assert (REPOSITORY / Path(*words[2].split("."))).with_suffix(".py").exists(), block.where


@pytest.mark.parametrize("page", WITH_README, ids=ids)
def test_commands_and_flags_named_in_prose_exist(page, desk, capsys):
    desk()
    for words in map(shlex.split, re.findall(r"(?<!`)`cotinterp ([a-z][^`]*)`", prose(page))):
        with pytest.raises(SystemExit) as ended:
            cli.main([words[0], "--help"])
        assert ended.value.code == 0, words
        there = re.findall(r"--[\w.-]+", capsys.readouterr().out)
        assert [flag for flag in words if flag.startswith("-") and flag not in there] == []


def test_a_command_that_does_not_parse_is_noticed(desk, parsed, capsys):
    desk()
    for words in (["train", "--tasks", "s3"], ["measure"], ["train", "--task", "digit-sun", "--regime", "cot"]):
        with pytest.raises(SystemExit):
            parsed(words)
    assert "digit-sum" in capsys.readouterr().err


@pytest.mark.parametrize("page", WITH_README, ids=ids)
def test_runs_that_a_page_names_are_runs_that_it_trains_or_reference_runs(page, desk, parsed):
    write_files(page, desk())
    known = {spec.slug for spec in (*trained_on(page, parsed), *reference_specs())}
    assert set(SLUG.findall(page.read_text())) <= known


@pytest.mark.parametrize("verb", list(WRITTEN))
def test_the_task_of_the_page_trains_and_the_instruments_take_it(verb, desk, parsed, monkeypatch, capsys):
    write_files(NEW_TASK, desk())
    specs = {spec.slug: spec for spec in trained_on(NEW_TASK, parsed)}
    monkeypatch.undo()  # from here on commands do their work
    desk()
    (words,) = [words[1:] for _, words in commands(NEW_TASK) if words[:2] == ["cotinterp", verb]]
    spec = tiny(specs[words[1]]).model_copy(update={"k_max": 3})
    train(spec, directory=Path("checkpoints") / words[1], device="cpu", threads=1)
    cli.main([*words, *(["--quick"] if "--quick" not in words else [])])
    table = pd.read_csv(Path("out") / words[1] / verb / "tables" / WRITTEN[verb])
    assert set(table["task"]) == {"remainder-mod7"}
    assert table["accuracy"].between(0, 1).all()
    with pytest.raises(SystemExit):
        cli.main([verb, words[1]])
    assert "pass task=" in capsys.readouterr().err


@pytest.mark.parametrize("page", WITH_README, ids=ids)
def test_functions_named_in_prose_exist(page, public_names):
    named = re.findall(r"(?<!`)`(?:[\w.]+\.)?(\w+)\([^`]*\)`", prose(page))
    assert [name for name in named if name not in public_names] == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", prose(there), re.M)
            assert anchor in {slugify(heading) for heading in headings}, target


@pytest.mark.parametrize("page", WITH_README, ids=ids)
def test_no_line_is_taken_for_a_heading(page):
    """A number of an issue at the beginning of a line is one to Markdown."""
    assert re.findall(r"^#+[^#\s].*$", prose(page), re.M) == []


def test_the_citation_is_that_of_the_file():
    cited = (REPOSITORY / "docs" / "faq.md").read_text()
    file = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    for field in (file["title"], file["version"], str(file["date-released"]), file["authors"][0]["name"]):
        assert f"{{{field}}}" in cited


def slugify(heading: str) -> str:
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page():
    config = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())
    assert len(config["nav"]) <= 7

    def paths(entries):
        for entry in entries:
            for inside in entry.values():
                yield from [inside] if isinstance(inside, str) else paths(inside)

    notebooks = [f"notebooks/{path.stem}.md" for path in (REPOSITORY / "docs" / "notebooks").glob("*.py")]
    assert sorted(paths(config["nav"])) == sorted([*(page.name for page in PAGES), *notebooks])


def test_the_site_asks_the_network_for_nothing():
    config = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())
    assert config["theme"]["font"] is False
    assert "extra_javascript" not in config
    for name in config["extra_css"]:
        assert not re.search(r"url\(|@import", (REPOSITORY / "docs" / name).read_text())
    assert not [block.where for page in PAGES for block in blocks(page) if block.language == "mermaid"]
