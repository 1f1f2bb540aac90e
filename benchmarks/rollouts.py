"""Rollouts, as an update of learning by rewards draws them: some responses to each of some problems, at temperature 1.

Timed: from the rendered prompts to drawn responses. The peer is `generate` of Hugging Face, with its cache, on a GPT-2
that has the same weights; it draws in a logits processor, by the same inversion at the same uniform numbers. Equal: the
same symbols. Floor: one pass over transcripts as long as the right ones, what a problem's have in common read once.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from benchmarks.comparison import Comparison, matmul_floor
from benchmarks.decoding import SEED, same_texts, until
from benchmarks.workload import Amounts, Workload
from cotinterp.calibration.peers import gpt2_of
from cotinterp.models.decoding import prefixes, text_of
from cotinterp.models.sampling import sample_continuations
from cotinterp.transcripts.batch import Batch


def rollouts(workload: Workload, amounts: Amounts) -> Iterator[Comparison]:
    """So many responses to each of so many held-out problems, all of the longest kind."""
    n, group = amounts.rollouts
    batch = workload.batch(workload.heldout(n, k=workload.spec.k_max))
    new = int((prefixes(workload.model, batch).limit - batch.n_prompt.cpu()).max())
    uniform = np.random.default_rng(SEED).random((len(batch) * group, new))
    length, given = batch.length.cpu().numpy(), batch.n_prompt.cpu().numpy()
    flops = group * workload.cost.forward(length) - (group - 1) * workload.cost.forward(given)
    yield Comparison(
        work=f"{group} sampled responses to each of {len(batch)} held-out problems",
        peer="Hugging Face generate, with its cache",
        ours=partial(_rolled_out, workload, batch, group, uniform),
        theirs=partial(_generated_by_gpt2, gpt2_of(workload.model, end=workload.vocabulary.end), batch, group, uniform),
        agree=same_texts,
        floor=matmul_floor(flops),
    )


def _rolled_out(workload: Workload, batch: Batch, group: int, uniform: Float[np.ndarray, "row new"]) -> tuple[str, ...]:
    start, end = prefixes(workload.model, batch), batch.vocabulary.end
    found = sample_continuations(workload.model, start, stop=end, rng=uniform, n_samples=group)
    rows = zip(found.tokens.flatten(0, 1), found.length.flatten().tolist(), strict=True)
    return tuple(text_of(batch.vocabulary, tuple(tokens[:n].tolist())) for tokens, n in rows)


class _Inversion(LogitsProcessor):
    """Leaves the one symbol that inverting the cumulative distribution at a uniform number draws."""

    def __init__(self, given: int, uniform: Float[Tensor, "row new"]) -> None:
        self.given, self.uniform = given, uniform

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        edges = scores.double().log_softmax(-1).exp().cumsum(-1)
        at = self.uniform[:, input_ids.shape[1] - self.given, None] * edges[:, -1:]
        symbol = (edges[:, :-1] <= at).sum(-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, symbol, 0.0)


def _generated_by_gpt2(model: Any, batch: Batch, group: int, uniform: Float[np.ndarray, "row new"]) -> tuple[str, ...]:
    (given,), end = batch.n_prompt.unique().tolist(), batch.vocabulary.end
    draws = _Inversion(given, torch.from_numpy(uniform).to(batch.tokens.device))
    asked = batch.tokens[:, :given].repeat_interleave(group, dim=0)
    written = model.generate(
        asked,
        attention_mask=torch.ones_like(asked),
        max_new_tokens=uniform.shape[1],
        do_sample=False,
        use_cache=True,
        eos_token_id=end,
        pad_token_id=end,
        logits_processor=LogitsProcessorList([draws]),
    )
    return tuple(text_of(batch.vocabulary, until(tokens, end)) for tokens in written[:, given:].cpu())
