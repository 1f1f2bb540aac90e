"""A task whose symbols are made to break pages, tables and paths: what is shown of it is text, inside its folder."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cotinterp.behavior.accuracy import accuracy_by_k
from cotinterp.behavior.edits import PooledEdits, trace_edits
from cotinterp.behavior.errors import error_taxonomy
from cotinterp.models.build import build_model
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import FoldTask, check_task
from cotinterp.tasks.check import LONGEST_NAME
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems, solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary

pytestmark = pytest.mark.slow

TAGS = {"html", "head", "meta", "title", "body", "div", "script", "style"}


class Hostile(FoldTask):
    """Addition modulo 8 in markup, quotes, path separators, an emoji and a letter written from right to left."""

    name = "x-" * (LONGEST_NAME // 2 - 1) + "ab"
    operands = "&\"'/\\%🙂א"
    states = ("&amp", "\"'x", "'b'", "/etc", "\\..\\".replace(".", "!"), "%s%d", "🙂🙂", "אבג")
    operator = "`"
    commutative = True

    def step(self, total, operand):
        return (total + operand) % 8


TASK = Hostile()


class Seen(HTMLParser):
    """The tags of a page, and the text outside its scripts."""

    def __init__(self, page):
        super().__init__()
        self.tags = set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]


def test_it_is_a_task_like_any_other():
    check_task(TASK)
    (problem,) = solve(TASK, np.array([[0, 1, 2]]))
    transcript = render(TASK, problem, "cot")
    assert transcript.text == "<&`\"`'>{&amp`\"=\"'x;\"'x`'=/etc}/etc#"
    batch = collate([transcript], Vocabulary.of(TASK))
    assert Vocabulary.of(TASK).decode(batch.tokens[0].tolist()) == transcript.text
    assert [TASK.parse_state(text) for text in TASK.states] == list(range(8))


def test_markup_itself_is_taken():
    for symbols in ("<>", "ab<", "a>"):
        broken = type("Broken", (Hostile,), {"operands": symbols, "states": ("a", "b", "c")[: len(symbols)]})
        with pytest.raises(ValueError, match="which the transcript needs"):
            check_task(broken())
    for name in ("../up", "a/b", "<b>", "a b", "A", "-a", "a-", "a--b", "é", ""):
        with pytest.raises(ValueError, match="not kebab-case"):
            check_task(type("Named", (Hostile,), {"name": name})())


def test_tables_and_figures_say_it_as_it_is(tmp_path):
    spec = ModelSpec(n_layers=1, d_model=16, n_heads=2, d_mlp=32, n_ctx=64)
    model = build_model(spec, len(Vocabulary.of(TASK)), seed=0)
    rng = np.random.default_rng(0)
    problems = [
        *(sample_problems(TASK, 2, 6, split="heldout", rng=rng)),
        *(sample_problems(TASK, 3, 6, split="heldout", rng=rng)),
    ]
    accuracy = accuracy_by_k(model, TASK, "cot", {"heldout": problems, "train": problems[:4]})
    errors = error_taxonomy(TASK, "cot", accuracy.of_split("heldout"))
    edits = trace_edits(model, TASK, "cot", problems, rng=rng)
    results = {"accuracy": accuracy, "errors": errors, "edits": edits, "pooled": PooledEdits(edits)}
    for name, result in results.items():
        for path in result.save(tmp_path / TASK.name, name):
            assert path.resolve().is_relative_to(tmp_path / TASK.name)
        page = (tmp_path / TASK.name / "figures" / f"{name}.html").read_text(encoding="utf-8")
        assert Seen(page).tags <= TAGS
        assert set(pd.read_csv(tmp_path / TASK.name / "tables" / f"{name}.csv")["task"]) == {TASK.name}
    examples = accuracy.examples()
    examples.to_csv(tmp_path / "examples.csv", index=False)
    read = pd.read_csv(tmp_path / "examples.csv", keep_default_na=False)
    assert read["text"].tolist() == examples["text"].tolist()
    html = errors._repr_html_()
    assert Seen(html).tags <= {"p", "b", "i", "div", "script", "table", "thead", "tbody", "tr", "th", "td"}
    drawn = html.rpartition("<script>")[2].removesuffix("</script>").strip()
    assert TASK.name in drawn
    assert "</" not in drawn
    assert "<!--" not in drawn
