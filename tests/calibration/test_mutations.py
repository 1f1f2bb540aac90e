"""Every control notices the bug that it stands guard against, and is silent without it."""

import pytest

from cotinterp.calibration.mutations import MUTATIONS, Mutation, trials_table, try_mutation
from cotinterp.calibration.mutations.trial import instead, require

pytestmark = pytest.mark.slow

NAMED = ("leaked split", "at the written total", "b_O dropped", "wrong head axis", "does not fire", "off-by-one role")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.bug)
def test_the_control_passes_without_the_bug_and_fails_with_it(mutation):
    trial = try_mutation(mutation)
    assert trial.sound, f"the check fails without the bug: {trial.noticed}"
    assert trial.caught, f"nothing notices: {mutation.bug}"


@pytest.mark.parametrize("name", NAMED)
def test_the_known_mistakes_of_the_field_are_among_them(name):
    assert any(name in mutation.bug for mutation in MUTATIONS)


class Sum:
    """Something that a bug can be planted in."""

    @staticmethod
    def of(a, b):
        return a + b


def check_sum():
    require(Sum.of(2, 2) == 4, "2 + 2 is not 4")


def trial(plant, check=check_sum):
    return try_mutation(Mutation("a bug", "a control", plant, check))


def test_a_bug_that_the_check_sees_is_caught():
    found = trial(instead(Sum, "of", staticmethod(lambda a, b: a - b)))
    assert (found.sound, found.caught, found.proven) == (True, True, True)
    assert found.noticed == "ControlFailed: 2 + 2 is not 4"


def test_a_check_that_cannot_fail_proves_nothing():
    found = trial(instead(Sum, "of", staticmethod(lambda a, b: a - b)), check=lambda: None)
    assert (found.sound, found.caught, found.proven) == (True, False, False)


def test_a_bug_that_changes_nothing_here_is_not_caught():
    # 2 * 2 is 2 + 2: the check is blind to this bug, and the trial says so.
    found = trial(instead(Sum, "of", staticmethod(lambda a, b: a * b)))
    assert not found.caught


def test_a_check_that_always_fails_is_not_sound():
    found = trial(instead(Sum, "of", Sum.of), check=lambda: require(False, "always"))
    assert (found.sound, found.proven) == (False, False)


def test_the_library_is_whole_again_afterwards():
    trial(instead(Sum, "of", staticmethod(lambda a, b: a - b)))
    assert Sum.of(2, 2) == 4


def test_the_table_has_a_row_for_each():
    table = trials_table([trial(instead(Sum, "of", staticmethod(lambda a, b: 0)))])
    assert table.to_dict("records") == [
        {
            "bug": "a bug",
            "control": "a control",
            "sound": True,
            "caught": True,
            "noticed": "ControlFailed: 2 + 2 is not 4",
        }
    ]
