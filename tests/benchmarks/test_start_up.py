import pytest

from benchmarks.start_up import STARTS, bare_start, nothing_heavy, run_python, start_ups


@pytest.mark.parametrize("work", STARTS)
def test_nothing_heavy_is_loaded(work):
    agreement = nothing_heavy(run_python(STARTS[work]))
    assert agreement.equal, agreement.note


def test_a_start_that_loads_torch_is_seen():
    code = STARTS["import cotinterp"].replace("import cotinterp", "sys.modules['torch'] = sys")
    assert nothing_heavy(run_python(code)).note == "loads torch"


def test_a_start_that_fails_is_no_start():
    with pytest.raises(RuntimeError, match="no_such_module"):
        run_python("import no_such_module")


def test_the_floor_is_a_bare_process(workload, amounts):
    assert [x.work for x in start_ups(workload, amounts)] == list(STARTS)
    assert bare_start(repeats=1) > 0
