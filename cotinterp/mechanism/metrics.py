"""What a run is asked for, one number per example; means and intervals come later, in the table.

`at` is the position whose logits are read: they predict the token at `at + 1`. Logit differences are the primary
metric (Zhang & Nanda 2023, arXiv:2309.16042; Heimersheim & Nanda 2024, arXiv:2404.15255): linear in the final residual
stream up to its norm, and not saturated. They cannot tell a raised answer from a lowered foil; `correct_logit` and
`wrong_logit` can.
"""

import difflib
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cotinterp.mechanism.activations import at_positions

Logits = Float[Tensor, "batch pos d_vocab"]
MetricName = Literal["logit_diff", "correct_logit", "wrong_logit", "log_prob", "probability", "accuracy", "kl"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)


def logit_diff(
    logits: Logits, at: Int[Tensor, " batch"], answer: Int[Tensor, " batch"], foil: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Logit of the answer minus logit of the foil, in nats: positive where the model prefers the answer.

    ValueError where answer and foil are one token: the difference would be 0 whatever the model does.
    """
    require_different(answer, foil)
    return correct_logit(logits, at, answer) - wrong_logit(logits, at, foil)


def correct_logit(logits: Logits, at: Int[Tensor, " batch"], answer: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Logit of the answer alone. Comparable between runs only as far as the other logits stay put."""
    return _pick(at_positions(logits, at), answer)


def wrong_logit(logits: Logits, at: Int[Tensor, " batch"], foil: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Logit of the foil alone."""
    return _pick(at_positions(logits, at), foil)


def log_prob(logits: Logits, at: Int[Tensor, " batch"], token: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Log probability of `token`, in nats (at most 0)."""
    return _pick(at_positions(logits, at).log_softmax(dim=-1), token)


def probability(logits: Logits, at: Int[Tensor, " batch"], token: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Probability of `token`. Saturates near 0 and 1, where real changes of the logits do not show."""
    return log_prob(logits, at, token).exp()


def accuracy(logits: Logits, at: Int[Tensor, " batch"], answer: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """1 where the answer has the highest logit of the vocabulary, else 0."""
    return (at_positions(logits, at).argmax(dim=-1) == answer).to(logits.dtype)


def kl(logits: Logits, reference: Logits, at: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """KL(reference || logits) at `at`, in nats: 0 where the run predicts just what the reference run predicts."""
    here = at_positions(logits, at).log_softmax(dim=-1)
    there = at_positions(reference, at).log_softmax(dim=-1)
    return (there.exp() * (there - here)).sum(dim=-1)


def require_different(answer: Int[Tensor, " batch"], foil: Int[Tensor, " batch"]) -> None:
    """ValueError if answer and foil are one token anywhere: such a pair asks nothing."""
    same = int((answer == foil).sum())
    if same:
        raise ValueError(
            f"answer and foil are the same token in {same} of {len(answer)} pairs: their logit difference is 0 "
            "whatever the model does. Leave these pairs out, or read where clean and corrupted differ (Pairs.at does)."
        )


def _pick(scores: Float[Tensor, "batch d_vocab"], token: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    return scores.gather(-1, token.to(scores.device)[:, None])[:, 0]


def metric_name(name: str) -> MetricName:
    """The metric of this name. ValueError with the nearest names."""
    if name not in METRICS:
        near = difflib.get_close_matches(name, METRICS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"unknown metric {name!r}{hint} Metrics: {list(METRICS)}.")
    return name


def measure(
    name: MetricName,
    readout: Float[Tensor, "batch d_vocab"],
    *,
    answer: Int[Tensor, " batch"],
    foil: Int[Tensor, " batch"],
    reference: Float[Tensor, "batch d_vocab"],
) -> Float[Tensor, " batch"]:
    """One metric, by name, of logits that were already read at `at`; kl is against `reference`."""
    logits, at = readout[:, None], torch.zeros_like(answer)
    if name == "logit_diff":
        return logit_diff(logits, at, answer, foil)
    if name == "kl":
        return kl(logits, reference[:, None], at)
    if name == "wrong_logit":
        return wrong_logit(logits, at, foil)
    of_answer = {
        "correct_logit": correct_logit,
        "log_prob": log_prob,
        "probability": probability,
        "accuracy": accuracy,
    }
    return of_answer[name](logits, at, answer)
