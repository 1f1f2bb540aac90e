from dataclasses import replace

import pytest

from benchmarks.probes import probe_sweeps

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[0, 1], ids=["default", "tight"])
def comparison(request, workload, amounts):
    """Its own calls are costly enough to be made once."""
    built = list(probe_sweeps(workload, amounts))[request.param]
    ours, theirs = built.ours(), built.theirs()
    return replace(built, ours=lambda: ours, theirs=lambda: theirs)


def test_the_peer_reads_as_much(comparison, once):
    row = once(comparison)
    assert row.equal, row.note
    assert f"in {len(comparison.theirs())} cells" in row.note
    assert row.work.endswith("180 + 60 rows of 16")
    assert 0 < comparison.their_share < 1


def test_the_cells_of_the_peer_are_spread_over_sites_and_layers(comparison):
    assert len({(site, layer) for site, layer, *_ in comparison.theirs()}) > 2


def test_an_accuracy_that_is_two_rows_off_is_seen(comparison, once):
    found = comparison.theirs()
    cell = next(iter(found))
    assert not once(replace(comparison, theirs=lambda: found | {cell: found[cell] + 2.1 / 60})).equal
