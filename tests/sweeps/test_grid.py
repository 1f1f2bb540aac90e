"""Grids: products of axes, defaults, and errors from which one learns what to write."""

import random

import pytest

from cotinterp.sweeps.grid import Grid, parse_grid, read_grid
from tests.sweeps.tiny import MODEL, tiny

BLOCK = {"task": "s3", "regime": "direct"}
GRID = """
name = "depths"
problems_per_k = 30
[defaults]
k_max = 4
precision = "bf16"
model = { d_model = 16, n_heads = 2, d_mlp = 32, n_ctx = 40 }
optimizer.batch_size = 8
[[runs]]
task = ["z6", "s3"]
regime = "direct"
model.n_layers = [1, 2]
optimizer.steps = [100, 200]
[[runs]]
task = "s3"
regime = "cot"
model = { n_layers = 1, n_ctx = 48 }
optimizer = { lr = 1, betas = [0.9, 0.95] }
"""


def parsed(*blocks, **fields):
    return parse_grid({"name": "grid", "runs": list(blocks)} | fields)


@pytest.fixture
def written(tmp_path):
    def write(text, name="grid.toml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_a_block_is_the_product_of_its_axes_on_top_of_the_defaults(written):
    grid = read_grid(written(GRID))
    assert (grid.name, grid.problems_per_k, len(grid.specs)) == ("depths", 30, 9)
    varied = [(spec.task, spec.model.n_layers, spec.optimizer.steps) for spec in grid.specs[:8]]
    assert varied == [(task, layers, steps) for task in ("z6", "s3") for layers in (1, 2) for steps in (100, 200)]
    assert {(spec.k_max, spec.precision, spec.model.d_model, spec.optimizer.batch_size) for spec in grid.specs} == {
        (4, "bf16", 16, 8)
    }
    last = grid.specs[-1]
    assert (last.model.n_layers, last.model.n_ctx, last.model.d_mlp) == (1, 48, 32)
    assert (last.optimizer.lr, last.optimizer.betas) == (1.0, (0.9, 0.95))


def test_a_grid_has_the_name_of_its_file_unless_it_says_another(written):
    text = '[[runs]]\ntask = "s3"\nregime = "direct"\n'
    assert read_grid(written(text, "my-sweep.toml")).name == "my-sweep"
    assert read_grid(written('name = "other"\n' + text, "my-sweep.toml")).name == "other"


def test_pairs_that_are_values_make_an_axis_as_a_list_of_pairs():
    grid = parsed(BLOCK | {"optimizer": {"betas": [[0.9, 0.98], [0.9, 0.999]]}})
    assert [spec.optimizer.betas for spec in grid.specs] == [(0.9, 0.98), (0.9, 0.999)]


def test_runs_that_follow_start_from_the_run_of_the_same_axes_and_have_its_fields():
    mix = [[{"regime": "direct", "share": share}, {"regime": "cot", "share": 1 - share}] for share in (0.25, 0.5)]
    taught = {"mix": [], "rewards": {"method": "grpo", "kl": [0.0, 0.1]}, "optimizer": {"steps": 7}}
    twin = {"optimizer": {"steps": 7}, "then": [{"optimizer": {"lr": 0.5}}]}
    grid = parsed(BLOCK | {"mix": mix, "seed": [0, 1], "optimizer": {"steps": 50, "lr": 0.1}, "then": [taught, twin]})
    assert len(grid.specs) == 4 * 5
    for base, *rewarded, again, last in zip(*[iter(grid.specs)] * 5, strict=True):
        assert (base.start_from, base.optimizer.steps, len(base.mix)) == (None, 50, 2)
        assert [(one.start_from, one.mix, one.rewards.kl) for one in rewarded] == [
            (base.slug, (), 0.0),
            (base.slug, (), 0.1),
        ]
        assert (again.start_from, last.start_from) == (base.slug, again.slug)
        assert (again.mix, again.optimizer.lr, last.mix, last.optimizer.lr) == (base.mix, 0.1, base.mix, 0.5)
        assert {one.optimizer.steps for one in (*rewarded, again, last)} == {7}
        assert {one.seed for one in (*rewarded, again, last)} == {base.seed}


def test_equal_specs_count_once_in_the_order_of_the_first():
    grid = parsed(BLOCK | {"seed": [3, 1]}, BLOCK | {"seed": [1, 2]})
    assert [spec.seed for spec in grid.specs] == [3, 1, 2]
    assert Grid("grid", (tiny(seed=1), tiny(), tiny(seed=1))).specs == (tiny(seed=1), tiny())


def test_a_task_may_lie_in_a_file_relative_to_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.py").write_text(
        "from cotinterp.tasks import FoldTask\n"
        "class Mine(FoldTask):\n"
        "    name, operands, commutative = 'mine', '01', True\n"
        "    def step(self, total, operand):\n"
        "        return total & operand\n"
    )
    monkeypatch.chdir(tmp_path)
    (spec,) = parsed({"task": "tasks/mine.py:Mine", "regime": "direct"}).specs
    assert spec.slug.startswith("mine-direct-L4-s0-")
    with pytest.raises(ValueError, match="no task file 'tasks/yours.py'"):
        parsed({"task": "tasks/yours.py:Mine", "regime": "direct"})


@pytest.mark.parametrize(("fields", "message"), [
    ({"problem_per_k": 3}, "the grid: unknown key 'problem_per_k'; did you mean 'problems_per_k'"),
    ({"zebra": 3}, "unknown key 'zebra'; there are name, problems_per_k, defaults, runs"),
    ({"runs": [BLOCK | {"sed": 1}]}, "runs 1: unknown key 'sed'; did you mean 'seed'"),
    ({"runs": [BLOCK, BLOCK | {"model": {"n_layer": 1}}]}, "runs 2: model: unknown key 'n_layer'; did you mean 'n_lay"),
    ({"defaults": {"optimiser": {}}}, "defaults: unknown key 'optimiser'; did you mean 'optimizer'"),
    ({"defaults": {"seed": [1, 2]}}, "defaults: seed is a list. Axes stand in the blocks"),
    ({"defaults": 3}, "defaults must be a table"),
    ({"runs": [BLOCK | {"model": 4}]}, "runs 1: model must be a table, such as model = { ... }, not 4"),
    ({"runs": [BLOCK | {"seed": []}]}, "runs 1: the axis seed has no values"),
    ({"runs": []}, r"there are no runs: each block of them begins with \[\[runs\]\]"),
    ({"runs": {"task": "s3"}}, r"in two pairs of brackets"),
    ({"runs": [BLOCK | {"seed": [0, "one"]}]}, "runs 1: seed = 'one' is no run: seed: .*, not 'one'"),
    ({"runs": [BLOCK | {"k_max": 9, "model": {"n_ctx": [64, 8]}}]}, "model.n_ctx = 8 is no run: .*model.n_ctx is 8"),
    ({"runs": [{"task": "s4", "regime": "direct"}]}, "its one combination is no run: spec: unknown task 's4'"),
    ({"runs": [{"task": "s3"}]}, "regime: Field required"),
    ({"name": "a/b"}, "name 'a/b' cannot name a folder"),
    ({"name": "../../x"}, "name '../../x' cannot name a folder"),
    ({"name": 3}, "name must be a text"),
    ({"runs": [BLOCK | {"then": 3}]}, r"runs 1: then must be blocks, each of which begins with \[\[runs.then\]\]"),
    ({"runs": [BLOCK | {"then": [{"start_from": "a"}]}]}, "runs 1: runs that start from those of .* name start_from"),
    ({"runs": [BLOCK | {"then": [{"sed": 1}]}]}, "runs 1: then 1: unknown key 'sed'; did you mean 'seed'"),
    ({"problems_per_k": 0}, "problems_per_k must be 1 or more and at most 100,000, got 0"),
    ({"problems_per_k": 2.5}, "problems_per_k must be a whole number, not 2.5"),
])  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(fields, message):
    with pytest.raises(ValueError, match=message):
        parse_grid({"name": "grid", "runs": [BLOCK]} | fields)


def test_a_file_that_is_no_grid_is_named(written, tmp_path):
    with pytest.raises(ValueError, match="broken.toml is no TOML"):
        read_grid(written("name = ", "broken.toml"))
    with pytest.raises(ValueError, match="grid.toml: runs 1: unknown key"):
        read_grid(written('[[runs]]\ntask = "s3"\nregime = "direct"\nseeds = 1\n'))
    with pytest.raises(FileNotFoundError, match="no grid file"):
        read_grid(tmp_path / "absent.toml")


def test_a_grid_without_runs_or_with_two_runs_of_one_name_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="'empty' has no runs"):
        Grid("empty", ())
    monkeypatch.setattr("cotinterp.training.spec.RunSpec.slug", property(lambda spec: "same"))
    with pytest.raises(ValueError, match="two different runs have the slug same"):
        Grid("twins", (tiny(), tiny(seed=1)))


def test_values_in_a_notebook_are_read_as_in_a_file():
    assert parsed({"task": "s3", "regime": "direct", "model": MODEL.model_dump()}).specs[0].model == MODEL


VALUES = ["", "-1", "0", "2.5", "nan", "-inf", "1e400", '""', '"z6"', '"no.py:Task"', "'x/../y'", "true", "[]", "[[]]",
          "[1, 'a']", "{}", "{ a = 1 }", "1979-05-27", "9" * 5000, "[" * 3000, '"""' + "k" * 300, "\\u0000", "= =",
          "[[runs]]", str(list(range(3000))), "[0.9, 0.95]", '["cot", "direct"]']  # fmt: skip


def fuzzed_grid(seed):
    """`GRID` with some of its lines dropped, doubled, cut, or given another key or value; bytes of it turned over."""
    rng = random.Random(seed)
    lines = GRID.splitlines()
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(lines))
        key, equals, value = lines[place].partition("=")
        lines[place] = rng.choice(
            [
                "",
                f"{lines[place]}\n{lines[place]}",
                lines[place][: rng.randint(0, len(lines[place]))],
                f"{rng.choice(['k_max', 'seed', 'model', 'task', 'zebra', 'name', key])} {equals} {value}",
                *[f"{key}= {rng.choice(VALUES)}"] * 4,
            ]
        )
    content = bytearray("\n".join(lines).encode())
    if rng.random() < 0.1 and content:
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def test_a_grid_that_is_garbage_has_one_clear_error(tmp_path):
    """It names the file, in a few lines at most; or the change was harmless and it is a grid."""
    said = {}
    for seed in range(200):
        path = tmp_path / f"grid-{seed}.toml"
        path.write_bytes(fuzzed_grid(seed))
        try:
            read_grid(path)
        except ValueError as error:
            said[path] = str(error)
    assert len(said) > 100
    assert all(str(path) in text for path, text in said.items())
    assert max(map(len, said.values())) < 2000


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda path: path.mkdir(), FileNotFoundError, "it is a folder"),
        (lambda path: None, FileNotFoundError, "No such file"),
        (lambda path: path.write_bytes(b"\xff\xfe"), ValueError, "is no TOML"),
        (lambda path: path.write_text("a = " + "[" * 5000), ValueError, "is no TOML"),
        (lambda path: path.write_text("a = " + "1" * 5000), ValueError, "is no TOML"),
        (lambda path: path.write_text("[[runs]]\nseed = []"), ValueError, "runs 1: the axis seed has no values"),
    ],
)
def test_what_is_no_grid_file_is_named(tmp_path, make, error, said):
    path = tmp_path / "some.toml"
    make(path)
    with pytest.raises(error, match=said) as caught:
        read_grid(path)
    assert "some.toml" in str(caught.value)


def test_axes_that_make_too_many_runs_are_counted_not_made():
    many = {"seed": list(range(1000)), "n_train": list(range(1, 1001))}
    with pytest.raises(ValueError, match=r"runs 1: the axes \(seed 1000, n_train 1000\) make 1,000,000 runs"):
        parsed(BLOCK | many)


@pytest.mark.parametrize("problems", [-1, 0, 100_001, 10**30])
def test_so_few_or_many_problems_are_refused(problems):
    with pytest.raises(ValueError, match="problems_per_k must be 1 or more and at most 100,000"):
        parsed(BLOCK, problems_per_k=problems)


def test_lengths_that_could_not_be_evaluated_are_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match="'parity' has no held-out problem with 3 to 3 operands.*raise k_max"):
        parsed({"task": "parity", "regime": "direct", "k_min": 3, "k_max": 3})
