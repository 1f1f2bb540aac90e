import math

import pytest
import torch

from cotinterp.mechanism.metrics import accuracy, correct_logit, kl, log_prob, logit_diff, probability, wrong_logit


@pytest.fixture
def logits():
    """Two examples, two positions, four tokens; read at positions 1 and 0."""
    return torch.tensor(
        [
            [[9.0, 9.0, 9.0, 9.0], [0.0, math.log(2), math.log(4), 0.0]],
            [[1.0, 5.0, 2.0, 5.0], [9.0, 9.0, 9.0, 9.0]],
        ]
    )


AT, ANSWER, FOIL = torch.tensor([1, 0]), torch.tensor([2, 0]), torch.tensor([1, 3])


def test_worked_by_hand(logits):
    torch.testing.assert_close(logit_diff(logits, AT, ANSWER, FOIL), torch.tensor([math.log(2), -4.0]))
    torch.testing.assert_close(correct_logit(logits, AT, ANSWER), torch.tensor([math.log(4), 1.0]))
    torch.testing.assert_close(wrong_logit(logits, AT, FOIL), torch.tensor([math.log(2), 5.0]))
    first = torch.tensor([4 / 8, math.exp(1) / (math.exp(1) + 2 * math.exp(5) + math.exp(2))])
    torch.testing.assert_close(probability(logits, AT, ANSWER), first)
    torch.testing.assert_close(log_prob(logits, AT, ANSWER), first.log())
    assert accuracy(logits, AT, ANSWER).tolist() == [1.0, 0.0]


def test_divergence_worked_by_hand():
    fair, skewed = torch.zeros(1, 1, 2), torch.tensor([[[math.log(3), 0.0]]])
    at = torch.tensor([0])
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    torch.testing.assert_close(kl(skewed, fair, at), torch.tensor([expected]))
    assert not torch.isclose(kl(fair, skewed, at), torch.tensor([expected])), "the direction matters"
    assert kl(skewed, skewed, at).item() == 0.0


def test_probability_does_not_underflow_in_the_log(logits):
    assert log_prob(logits * 100, AT, FOIL)[0].item() == pytest.approx(-100 * math.log(2), rel=1e-5)


def test_equal_answer_and_foil_are_refused_with_their_count(logits):
    with pytest.raises(ValueError, match="same token in 1 of 2 pairs"):
        logit_diff(logits, AT, ANSWER, torch.tensor([1, 0]))
