"""Damaged files, specs and grids, drawn at random: what `benchmarks.drill` gives to everything that reads."""

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from cotinterp.models.spec import ModelSpec
from cotinterp.training.spec import OptimizerSpec, RunSpec


def _flip(content: bytearray, draw: Random) -> None:
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def _zero(content: bytearray, draw: Random) -> None:
    at = draw.randrange(len(content))
    content[at : at + 16] = bytes(len(content[at : at + 16]))


def _swap(content: bytearray, draw: Random) -> None:
    one, other = draw.randrange(len(content)), draw.randrange(len(content))
    content[one], content[other] = content[other], content[one]


def _cut(content: bytearray, draw: Random) -> None:
    del content[draw.randrange(len(content)) :]


def _append(content: bytearray, draw: Random) -> None:
    content += draw.randbytes(draw.randint(1, 64))


DAMAGE: Mapping[str, Callable[[bytearray, Random], None]] = {
    "a flipped bit": _flip,
    "16 zeroed bytes": _zero,
    "two swapped bytes": _swap,
    "a cut end": _cut,
    "appended bytes": _append,
}


def damaged(content: bytes, kind: str, draw: Random) -> bytes:
    """The content after one damage of a kind in `DAMAGE`; now and then what it was, where it hits equal bytes."""
    changed = bytearray(content)
    DAMAGE[kind](changed, draw)
    return bytes(changed)


JSON_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 2**31, 2**63, 10**40, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf")),
    *(
        "",
        "s3",
        "cot",
        "no-such",
        "../../etc/passwd",
        "a\0b",
        "\ud800",
        "é" * 300,
        "file.py:Task",
        ":",
        "[bold]",
        "<b>",
    ),
    *([], [1], [0.9, 0.98], [[]], [None], {}, {"a": 1}, {"n_layers": 1}, {"lr": "fast"}),
)
TINY = RunSpec(
    task="s3",
    regime="cot",
    k_max=3,
    n_train=20,
    model=ModelSpec(n_layers=1, d_model=16, n_heads=2, d_mlp=32, n_ctx=32),
    optimizer=OptimizerSpec(steps=20, batch_size=4, warmup=5),
)
"""One layer of 16 dimensions on s3 with written totals."""


def fuzzed_spec(draw: Random) -> bytes:
    """A spec.json with one to three faults, or none by luck: values, keys, types, bytes."""
    fields = TINY.model_dump(mode="json")
    for _ in range(draw.randint(1, 3)):
        _spoil(draw.choice([fields, fields, fields.get("model"), fields.get("optimizer")]), draw)
    value = draw.choice(JSON_VALUES) if draw.random() < 0.05 else fields
    content = json.dumps(value, indent=draw.choice([None, 2])).encode()
    return damaged(content, draw.choice(list(DAMAGE)), draw) if draw.random() < 0.2 and content else content


def _spoil(fields: Any, draw: Random) -> None:
    if not isinstance(fields, dict) or not fields:
        return
    key = draw.choice(list(fields))
    action = draw.randrange(4)
    if action == 0:
        fields[key] = draw.choice(JSON_VALUES)
    elif action == 1:
        del fields[key]
    elif action == 2:
        fields[key + draw.choice("sx_ \n")] = fields.pop(key)
    else:
        fields[key] = _near(fields[key], draw)


def _near(value: Any, draw: Random) -> Any:
    """A value of the same type that may or may not be allowed."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return draw.choice([value * 10, -value, value + 1, float(value), value * 10**6, value // 2])
    return value[::-1] if isinstance(value, str | list) else value


TOML_VALUES = (
    *("0", "1", "-1", "2.5", "nan", "inf", "1e400", "9" * 30, "true", '""', '"s3"', "'cot'", '"a\\u0000b"', '"../x"'),
    *(
        "[]",
        "[1, 2]",
        '["s3", "z6"]',
        '["cot", 3]',
        "[[0.9, 0.98]]",
        "[[]]",
        "{}",
        "{ n_layers = [1, 2] }",
        "{ a = 1 }",
    ),
    *("1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", '"""two\nlines"""', "hello", "", "[1,", "{ x = }"),
)
GRID = (
    ("", "name", '"g"'),
    ("", "problems_per_k", "5"),
    ("[defaults]", "task", '"s3"'),
    ("[defaults]", "k_max", "3"),
    ("[defaults]", "model", "{ n_layers = 1, d_model = 16, n_heads = 2, d_mlp = 32, n_ctx = 32 }"),
    ("[defaults]", "optimizer", "{ steps = 20, batch_size = 4 }"),
    ("[[runs]]", "regime", '["cot", "direct"]'),
    ("[[runs]]", "seed", "[0, 1]"),
    ("[[runs]]", "model.d_mlp", "[16, 32]"),
)
TABLES = ("[runs]", "[[defaults]]", "[model]", "[[runs.model]]", "[", "[[runs]", "[[runs]]")


def fuzzed_grid(draw: Random) -> bytes:
    """A grid's TOML with one to three faults, or none by luck."""
    lines = [list(line) for line in GRID]
    for _ in range(draw.randint(1, 3)):
        line = draw.choice(lines)
        action = draw.randrange(5)
        if action == 0:
            line[2] = draw.choice(TOML_VALUES)
        elif action == 1 and len(lines) > 1:
            lines.remove(line)
        elif action == 2:
            line[1] += draw.choice(["s", "x", ".y", " z", "\n"])
        elif action == 3:
            line[0] = draw.choice(TABLES)
        else:
            lines.insert(draw.randrange(len(lines)), list(line))
    text, table = "", ""
    for header, key, value in lines:
        text += f"{header}\n" * (header != table) + f"{key} = {value}\n"
        table = header
    content = text.encode()
    return damaged(content, draw.choice(list(DAMAGE)), draw) if draw.random() < 0.2 else content
