"""The doctor finds what was planted, in a checkpoint and in a model of one's own."""

import json
import shutil

import pytest

from cotinterp.cli import main
from cotinterp.results.shipped import shipped

pytestmark = pytest.mark.slow

SLUG = "s3-cot-L4-s0-42df236d"
BRIDGES = """
from contextlib import contextmanager

import torch

from cotinterp import load_run


def sound():
    return load_run("s3-cot-L4-s0-42df236d").model


def altered():
    model = sound()
    with torch.no_grad():
        model.blocks[2].mlp.out.weight[3, 5] += 1
    return model


class Deaf:
    \"\"\"Its hooks fire, and what they return for one name is thrown away.\"\"\"

    def __init__(self, model, name):
        self.model, self.name, self.cfg, self.W_O, self.b_O = model, name, model.cfg, model.W_O, model.b_O
        self.run_with_cache = model.run_with_cache

    def __call__(self, tokens):
        return self.model(tokens)

    @contextmanager
    def hooks(self, fwd_hooks):
        def deaf(function):
            return lambda now, hook: (function(now, hook=hook), None)[1]

        with self.model.hooks(fwd_hooks=[(n, deaf(f) if n == self.name else f) for n, f in fwd_hooks]):
            yield


def deaf():
    return Deaf(sound(), "blocks.1.hook_mlp_out")


def leaky():
    \"\"\"The stream loses a tenth on its way to the next block, behind the hooks.\"\"\"
    model = sound()
    model.blocks[1].register_forward_hook(lambda module, given, out: (0.9 * out[0], *out[1:]))
    return model


def broken():
    raise RuntimeError("no such file")


number = 3
"""


@pytest.fixture
def desk(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(BRIDGES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(capsys, *words):
    """Exit status, the one object on standard output, and what was said of it."""
    code = 0
    try:
        main(["doctor", *map(str, words), "--json"])
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else None, said.err


def test_a_checkpoint_and_a_bridge_that_are_sound(desk, capsys):
    file = shipped("checkpoints") / SLUG / "model.safetensors"
    for words in ([SLUG], ["mine.py:sound", "--weights", file]):
        code, told, said = asked(capsys, *words)
        (one,) = told["models"]
        assert (code, said, one["faults"], one["name"]) == (0, "", [], words[0])
        assert (one["stream_adds_up"], one["every_site_acts"], one["weights_of_file"]) == (True, True, True)
        assert max(one["laws"].values()) < 1e-5
    assert told["facts"]["bfloat16"].startswith(("in hardware", "emulated"))
    main(["doctor", "mine.py:sound"])
    assert "every site acts; --weights compares the weights with a file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("function", "wrong", "fault"),
    [
        ("altered", "weights_of_file", "'blocks.2.mlp.out.weight' is not that of the file: off by up to 1"),
        ("deaf", "every_site_acts", "L1.mlp_out: the edit fired and moved no logit"),
        ("leaky", "stream_adds_up", "L1.resid_post: in the run in which it is written, resid_pre of the next layer"),
    ],
)
def test_what_was_planted_in_a_bridge_is_found(function, wrong, fault, desk, capsys):
    weights = ["--weights", shipped("checkpoints") / SLUG / "model.safetensors"] if function == "altered" else []
    code, told, said = asked(capsys, f"mine.py:{function}", *weights)
    (one,) = told["models"]
    assert code == 2
    assert f"1 of 1 models cannot be used: mine.py:{function}" in said
    assert one[wrong] is False
    assert any(line.startswith(fault) for line in one["faults"]), one["faults"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.py:bridge"], "no model file 'nowhere.py'"),
        (["mine.py:number"], "has no function 'number'"),
        (["mine.py:broken"], "broken() in 'mine.py', line"),
    ],
)
def test_a_reference_that_gives_no_model_is_answered_in_one_line(words, said, desk, capsys):
    code, told, shown = asked(capsys, *words)
    assert (code, told, len(shown.splitlines())) == (2, None, 1)
    assert said in shown


def test_an_evaluation_of_other_weights_and_a_damaged_log_are_found(desk, capsys):
    from cotinterp.training.checkpoints import write_evaluation

    shutil.copytree(shipped("checkpoints") / SLUG, desk / SLUG)
    write_evaluation(desk / SLUG, {"weight_hash": "0" * 64, "accuracy": []})
    code, told, _ = asked(capsys, desk / SLUG)
    assert (code, told["models"][0]["faults"][0][:15]) == (2, "evaluation.json")
    log = desk / SLUG / "metrics.jsonl"
    log.write_text(log.read_text().replace("0.", "1.", 1))
    code, told, said = asked(capsys, desk / SLUG)
    assert (code, "sound" in told["models"][0]) == (2, False)
    assert "line 1 is damaged" in told["models"][0]["faults"][0]
    assert "1 of 1 checkpoints cannot be used" in said
