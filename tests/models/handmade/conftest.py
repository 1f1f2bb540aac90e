"""All problems of a task, and what a model does with them.

cotinterp is imported inside the fixtures: pytest may load this file before the shape checks are hooked in.
"""

from itertools import product

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def batch_of():
    """`batch_of(task, regime, ks, n=None, seed=0)`: the transcripts of every problem of these lengths, or of n each."""
    from cotinterp.tasks import get_task
    from cotinterp.transcripts.batch import collate
    from cotinterp.transcripts.problems import solve
    from cotinterp.transcripts.render import render
    from cotinterp.transcripts.vocabulary import Vocabulary

    def build(name, regime, ks, n=None, seed=0):
        task, rng = get_task(name), np.random.default_rng(seed)
        rows = [
            np.array(list(product(range(task.n_operands), repeat=k)))
            if n is None
            else rng.integers(task.n_operands, size=(n, k))
            for k in ks
        ]
        problems = [problem for operands in rows for problem in solve(task, operands)]
        return collate([render(task, problem, regime) for problem in problems], Vocabulary.of(task))

    return build


@pytest.fixture(scope="session")
def share_right():
    """`share_right(model, batch)`: share of the problems whose greedy output is the whole true response."""
    from cotinterp.models.decoding import verified_greedy

    def share(model, batch):
        written = verified_greedy(model, batch, batch_size=2048)
        truth = [transcript.response for transcript in batch.transcripts]
        return sum(a == b for a, b in zip(written, truth, strict=True)) / len(truth)

    return share


@pytest.fixture(scope="session")
def logits_of():
    """`logits_of(model, tokens)`: without gradients."""

    def logits(model, tokens):
        with torch.inference_mode():
            return model(tokens)

    return logits


@pytest.fixture(scope="session")
def stored():
    """`stored(model, blueprint, tokens, subspace, hook)`: what a residual hook holds in one subspace."""

    def read(model, blueprint, tokens, subspace, hook):
        with torch.inference_mode():
            _, cache = model.run_with_cache(tokens, names_filter=[hook])
        return cache[hook] @ blueprint.basis(subspace).T

    return read


@pytest.fixture(scope="session")
def scrambled():
    """`scrambled(batch, roles)`: the tokens with every value of these roles replaced by another random operand."""

    def scramble(batch, roles, seed=1):
        generator = torch.Generator().manual_seed(seed)
        values = {token.symbol for x in batch.transcripts for token in x.tokens if token.value >= 0}
        symbols = batch.vocabulary.encode(sorted(values))
        places = torch.stack([batch.mask(role) for role in roles]).any(0)
        shift = torch.randint(1, len(symbols), batch.tokens.shape, generator=generator)
        order = torch.tensor(symbols)
        index = (batch.tokens[..., None] == order).int().argmax(-1)
        return torch.where(places, order[(index + shift) % len(symbols)], batch.tokens)

    return scramble
