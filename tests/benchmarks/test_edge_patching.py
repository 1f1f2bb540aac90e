from dataclasses import replace

from benchmarks.edge_patching import edge_flops, edge_patchings
from cotinterp.mechanism.circuits import Graph


def test_all_edges_agree_with_the_hooks_and_one_off_is_seen(workload, amounts, once):
    (comparison,) = edge_patchings(workload, amounts)
    row = once(comparison)
    assert row.equal, row.note
    assert f"{len(Graph.of(workload.model).edges)} edges, batch 3" in row.work
    found = comparison.theirs().copy()
    found[0, 0] += 1e-2
    assert not once(replace(comparison, theirs=lambda: found)).equal


def test_earlier_edges_and_longer_sequences_cost_more(workload):
    edges = Graph.of(workload.model).edges
    assert edge_flops(workload, edges, [9]) < edge_flops(workload, edges, [10])
    assert edge_flops(workload, edges[-1:], [9]) < edge_flops(workload, edges[:1], [9])
