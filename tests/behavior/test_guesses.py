"""What becomes of a guess, by hand. Token 9 is the stop symbol."""

import pytest
import torch

from cotinterp.behavior.decoding import Guesses, not_nan

STOP = 9


def guesses(row, *, accepted, guessed, limit):
    buffer = torch.tensor([[*row, *[0] * (limit - len(row))]])
    one = [torch.tensor([n]) for n in (accepted, guessed, limit)]
    return Guesses(buffer, *one, torch.tensor([True]), STOP)


def accept(of, argmax, first=None):
    of.accept(torch.tensor([0]), torch.tensor([argmax]), None if first is None else torch.tensor([first]))
    state = (of.accepted[0], of.guessed[0], of.running[0])
    return of.buffer[0, : int(of.accepted[0])].tolist(), *(number.item() for number in state)


def test_a_right_guess_is_kept_to_its_stop_symbol_and_that_is_not_read():
    of = guesses([1, 2, 3, 9], accepted=1, guessed=4, limit=8)
    assert of.to_read(torch.tensor([0])).tolist() == [3]
    assert accept(of, [2, 3, 9]) == ([1, 2, 3, 9], 4, 4, False)


def test_the_first_departure_is_corrected_and_what_follows_is_the_next_guess():
    of = guesses([1, 2, 3, 4], accepted=1, guessed=4, limit=8)
    assert accept(of, [2, 5, 6, 7]) == ([1, 2, 5], 3, 5, True)
    assert of.buffer[0, :5].tolist() == [1, 2, 5, 6, 7]


def test_a_guess_without_an_end_is_written_on():
    assert accept(guesses([1, 2, 3], accepted=1, guessed=3, limit=8), [2, 3, 4]) == ([1, 2, 3, 4], 4, 4, True)


def test_a_correction_may_be_the_stop_symbol():
    assert accept(guesses([1, 2, 3], accepted=1, guessed=3, limit=8), [2, 9, 4]) == ([1, 2, 9], 3, 4, False)


def test_nothing_is_written_beyond_the_limit():
    assert accept(guesses([1, 2, 3], accepted=1, guessed=3, limit=3), [2, 3, 4]) == ([1, 2, 3], 3, 3, False)
    assert accept(guesses([1, 2, 3], accepted=1, guessed=3, limit=3), [2, 7, 9]) == ([1, 2, 7], 3, 3, False)


def test_a_window_accepts_what_it_shows():
    of = guesses([1, 2, 3, 4, 5, 6], accepted=3, guessed=6, limit=8)
    assert accept(of, [4, 5], first=2) == ([1, 2, 3, 4, 5], 5, 6, True)
    assert accept(of, [7, 8], first=4) == ([1, 2, 3, 4, 5, 7], 6, 7, True)


def test_what_is_given_is_not_judged():
    """The argmaxes within the given symbols are nothing of the model's writing, a stop symbol among them."""
    assert accept(guesses([1, 9, 3], accepted=3, guessed=3, limit=5), [9, 8, 4]) == ([1, 9, 3, 4], 4, 4, True)
    assert accept(guesses([1, 9], accepted=2, guessed=2, limit=5), [9, 4]) == ([1, 9, 4], 3, 3, True)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN logits"):
        not_nan(torch.tensor([0.0, float("nan")]))
