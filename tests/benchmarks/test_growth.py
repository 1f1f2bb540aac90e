import json

import pytest
import torch

from benchmarks.comparison import Rates
from benchmarks.growth import KINDS, Axis, Size, axes, growth, growth_figure, write_growth

TINY = Size(k=2, layers=1, d_model=8, batch=8, rows=80)


def test_one_size_is_changed_at_a_time():
    base = Size()
    for axis in axes(base):
        differ = [
            sum(a != b for a, b in zip(vars(size).values(), vars(base).values(), strict=True)) for size in axis.sizes
        ]
        assert differ == ([2, 0, 2] if axis.name == "batch" else [1, 0, 1])


def test_the_batch_of_probes_are_their_rows():
    (batch,) = (axis for axis in axes(Size()) if axis.name == "batch")
    assert batch.of(Size(batch=7, rows=9), "probes") == 9
    assert batch.of(Size(batch=7, rows=9), "training") == 7


@pytest.fixture(scope="module")
def points():
    """Decoding and patching at two sizes that stand on two axes."""
    sizes = (TINY, Size(**{**vars(TINY), "k": 3}))
    twice = [Axis(name=name, sizes=sizes, of=lambda size, _: size.k) for name in ("K", "layers")]
    found = growth(twice, Rates(1e9, 1e9), torch.device("cpu"), repeats=1, kinds=("greedy", "resid_pre"))
    return list(found)


def test_every_size_is_measured_once_and_agrees(points):
    assert [(x.kind, x.axis, x.size) for x in points[:4]] == [
        ("greedy", "K", 2), ("greedy", "K", 3), ("greedy", "layers", 2), ("greedy", "layers", 3)
    ]  # fmt: skip
    assert points[0].measurement is points[2].measurement
    assert all(x.measurement.equal for x in points)


def test_points_are_written_with_the_fields_of_a_measurement(points, tmp_path):
    rows = json.loads(write_growth(tmp_path / "growth.json", points).read_text())
    assert len(rows) == 8
    assert {"kind", "axis", "size", "work", "ratio", "floor"} <= set(rows[0])


def test_the_figure_has_a_panel_for_each_work_and_axis(points):
    figure = growth_figure(points)
    assert len(figure.data) == 2 * 2 * 3
    assert sum(bool(trace.showlegend) for trace in figure.data) == 3
    assert figure.data[0].y[0] == points[0].measurement.ours


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no points"):
        growth_figure([])


def test_works_that_grow_are_the_first_ones():
    assert list(KINDS) == ["training", "greedy", "resid_pre", "probes"]
