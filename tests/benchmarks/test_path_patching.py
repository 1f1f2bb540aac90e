from dataclasses import replace

from benchmarks.path_patching import path_flops, path_sweeps
from cotinterp.mechanism.patching.paths import head_paths


def test_all_paths_agree_with_the_hooks(workload, amounts, once):
    (comparison,) = path_sweeps(workload, amounts)
    row = once(comparison)
    assert row.equal, row.note
    assert f"{len(head_paths(workload.model))} paths, batch 3" in row.work


def test_one_path_off_is_seen(workload, amounts, once):
    (comparison,) = path_sweeps(workload, amounts)
    found = comparison.theirs().copy()
    found[0, 0] += 1e-2
    assert not once(replace(comparison, theirs=lambda: found)).equal


def test_no_hook_is_left_behind(workload, amounts):
    (comparison,) = path_sweeps(workload, amounts)
    comparison.theirs()
    assert not any(point.fwd_hooks for point in workload.model.hook_dict.values())


def test_more_paths_and_longer_sequences_cost_more(workload):
    paths = head_paths(workload.model)
    assert path_flops(workload, paths, [9]) < path_flops(workload, paths, [10])
    assert path_flops(workload, paths[:4], [9]) < path_flops(workload, paths, [9])
