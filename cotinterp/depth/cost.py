"""What a response costs in operations and in serial steps, and shapes of models that cost the same.

The two ways to buy accuracy are parameters (a deeper or wider model that answers at once) and tokens (a small one that
writes first). These are their prices in one currency. They are counted from shapes and transcripts, not measured: they
hold no time and no memory, and say nothing about whether a model uses what it is given.

Written tokens cost operations, so a model that writes nothing has to be given as many in depth or in width before the
two are compared: `equal_flops` and `equal_parameters` give such shapes. What is matched is a count; equal counts need
not be equally easy to learn with.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Int
from pydantic import ValidationError

from cotinterp.models.flops import Cost
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks import Task, get_task
from cotinterp.training.spec import RunSpec
from cotinterp.transcripts.problems import EmptySplitError, Problem, sample_problems
from cotinterp.transcripts.regimes import Regime, get_regime
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

BUDGET_COLUMNS = "task regime k n_layers additions tree_levels response_tokens layer_operations slots_before_answer"
MOST_LAYERS, MOST_WIDTH = 64, 4096
"""Limits of ModelSpec."""
BACKWARD = 2
"""Operations of a backward pass for each of the forward pass: two products (by inputs and by weights) for one."""


@dataclass(frozen=True, eq=False)
class AnswerLengths:
    """How many tokens the right transcripts of one number of operands have, problem by problem.

    Attributes:
        operands: Their number of operands, K.
        prompt: Tokens that are given.
        response: Tokens that are written, END included.
        before_answer: Of these, how many are written before the answer's first symbol.
    """

    operands: int
    prompt: Int[np.ndarray, " problems"]
    response: Int[np.ndarray, " problems"]
    before_answer: Int[np.ndarray, " problems"]

    @property
    def read(self) -> Int[np.ndarray, " problems"]:
        """Tokens that a model reads to write the response: all but the last."""
        tokens: Int[np.ndarray, " problems"] = self.prompt + self.response - 1
        return tokens

    @property
    def pairs(self) -> Int[np.ndarray, " problems"]:
        """Queries and the keys they see, each token read once: itself and all before it."""
        pairs: Int[np.ndarray, " problems"] = self.read * (self.read + 1) // 2
        return pairs


@dataclass(frozen=True)
class AnswerCost:
    """The price of one answer, mean over problems of one length.

    Attributes:
        prompt_tokens: Tokens that are given.
        response_tokens: Tokens that are written, R, END included. Each is a pass through the model.
        layer_operations: R * L, the layers that those passes go through.
        slots_before_answer: Layers that can still serve the answer's first symbol: L, and L more for each token before.
        flops: Matrix products (a multiplication and an addition each) with a cache of keys and values: every token is
            read once, attends to itself and what stands before it, and logits are made only where a token is written.
        flops_without_cache: The same where every written token takes a pass over all that stands before it.
    """

    prompt_tokens: float
    response_tokens: float
    layer_operations: float
    slots_before_answer: float
    flops: float
    flops_without_cache: float

    @property
    def passes(self) -> float:
        """Passes through the model, one for each written token."""
        return self.response_tokens


def answer_lengths(task: str | Task, regime: str | Regime, k: int, *, n: int = 200, seed: int = 0) -> AnswerLengths:
    """The lengths of up to `n` right transcripts of `k` operands in that regime, of held-out problems.

    Where the split holds out none of so few problems (two bits have four), those of the training side.

    Raises:
        KeyError: No such task or regime. ValueError: The task has no problems of `k` operands.
    """
    task = get_task(task)
    transcripts = [render(task, problem, regime) for problem in _problems(task, k, n, seed)]
    roles = [[token.role for token in one.tokens[one.n_prompt :]] for one in transcripts]
    return AnswerLengths(
        operands=k,
        prompt=np.array([one.n_prompt for one in transcripts]),
        response=np.array([len(one) - one.n_prompt for one in transcripts]),
        before_answer=np.array([of_one.index(Role.ANSWER) for of_one in roles]),
    )


def answer_cost(
    task: str | Task, regime: str | Regime, model: ModelSpec, k: int, *, n: int = 200, seed: int = 0
) -> AnswerCost:
    """What a model of that shape spends on one right answer to a problem of `k` operands.

    Mean over up to `n` held-out problems drawn by `seed`; exact where all transcripts of that length are equally long,
    as they are wherever states take one symbol. What a model writes when it is wrong may be longer or shorter. Whether
    the transcript fits into `n_ctx` is not asked. Errors as in `answer_lengths`.
    """
    task = get_task(task)
    return cost_of(answer_lengths(task, regime, k, n=n, seed=seed), model, len(Vocabulary.of(task)))


def cost_of(lengths: AnswerLengths, model: ModelSpec, d_vocab: int) -> AnswerCost:
    """The price of transcripts of these lengths to a model with `d_vocab` symbols."""
    cost, problems = Cost(model, d_vocab), len(lengths.prompt)
    response = float(lengths.response.mean())
    return AnswerCost(
        prompt_tokens=float(lengths.prompt.mean()),
        response_tokens=response,
        layer_operations=response * model.depth,
        slots_before_answer=model.depth * (1 + float(lengths.before_answer.mean())),
        flops=cost.answer(lengths.prompt, lengths.response) / problems,
        flops_without_cache=cost.answer_without_cache(lengths.prompt, lengths.response) / problems,
    )


def training_flops(spec: RunSpec, *, task: Task | None = None, n: int = 200) -> float:
    """Matrix products of the whole training: forward, and twice that backward, over every transcript of every update.

    Reading a training transcript costs what writing it with a cache does (each token once, logits where there is a
    loss). A run that may end before its last update is counted to there. Padding, the optimizer and the recomputation
    that some loops do are not counted. The mean length is taken over up to `n` problems of each number of operands from
    k_min to k_max, which training draws equally often.

    Args:
        task: The task itself where its name alone does not find it.

    Source: the rule of three passes is that of Kaplan et al. 2020 (arXiv 2001.08361).
    """
    solved = task or get_task(spec.task)
    by_k = [answer_lengths(solved, spec.regime, k, n=n) for k in range(spec.k_min, spec.k_max + 1)]
    cost = Cost(spec.model, len(Vocabulary.of(solved)))
    tagged = get_regime(spec.regime).tags_operands
    return flops_of_training(cost, by_k, spec.optimizer.batch_size * spec.most_steps, tagged=tagged)


def flops_of_training(cost: Cost, by_k: Sequence[AnswerLengths], transcripts: int, *, tagged: bool = False) -> float:
    """Three passes over so many training transcripts, whose numbers of operands are those of `by_k` equally often.

    `tagged`: the state is asked for at every operand but the first as well, a logit more for each.
    """
    forward = []
    for lengths in by_k:
        problems = len(lengths.prompt)
        tags = float(lengths.operands - 1) * cost.logits if tagged else 0.0
        forward.append(cost.answer(lengths.prompt, lengths.response) / problems + tags)
    return (1 + BACKWARD) * float(np.mean(forward)) * transcripts


def _problems(task: Task, k: int, n: int, seed: int) -> tuple[Problem, ...]:
    for split in ("heldout", "train"):
        try:
            return sample_problems(task, k, n, split=split, rng=np.random.default_rng([seed, k]))
        except EmptySplitError:
            continue
    raise ValueError(f"task {task.name!r} has no problem of {k} operands on either side of the split")


def equal_flops(
    model: ModelSpec,
    task: str | Task,
    k: int,
    *,
    regime_from: str | Regime = "cot",
    regime_to: str | Regime = "direct",
    by: Literal["depth", "width"] = "depth",
    within: float = 0.25,
) -> ModelSpec:
    """The shape whose answer in `regime_to` costs most nearly as many operations as `model`'s answer in `regime_from`.

    Both answer problems of `k` operands, with a cache of keys (`answer_cost`). By depth, only n_layers changes; by
    width, d_model goes through the multiples of n_heads and d_mlp keeps its ratio to it. Everything else, n_ctx
    included, stays.

    Args:
        within: Largest difference that is let pass, as a fraction of what is to be matched.

    Raises:
        ValueError: No shape inside ModelSpec's limits comes that near; the nearest one and what it costs are named.
    """
    task = get_task(task)
    d_vocab = len(Vocabulary.of(task))
    wanted = cost_of(answer_lengths(task, regime_from, k), model, d_vocab).flops
    lengths = answer_lengths(task, regime_to, k)
    shapes = _deeper(model) if by == "depth" else _wider(model, model.n_layers)
    return _nearest(
        shapes, lambda shape: cost_of(lengths, shape, d_vocab).flops, wanted, within, "operations an answer"
    )


def equal_parameters(model: ModelSpec, n_layers: int, *, d_vocab: int = 0, within: float = 0.25) -> ModelSpec:
    """The shape of `n_layers` blocks with most nearly as many parameters as `model`: deeper and narrower, or reversed.

    d_model goes through the multiples of n_heads and d_mlp keeps its ratio to it. `d_vocab` symbols are embedded and
    unembedded; 0 leaves those parameters out of both counts. Position vectors are counted.

    Raises:
        ValueError: As in `equal_flops`.
    """
    wanted = float(model.n_parameters(d_vocab))
    shapes = _wider(model, n_layers)
    return _nearest(shapes, lambda shape: float(shape.n_parameters(d_vocab)), wanted, within, "parameters")


def _deeper(model: ModelSpec) -> Iterable[ModelSpec]:
    for n_layers in range(1, MOST_LAYERS // model.loops + 1):
        yield model.model_copy(update={"n_layers": n_layers})


def _wider(model: ModelSpec, n_layers: int) -> Iterable[ModelSpec]:
    """Every width, the narrowest first. Heads stay as many as they are; rotary positions need an even d_head."""
    step = model.n_heads * (2 if model.positions == "rotary" else 1)
    for d_model in range(step, MOST_WIDTH + 1, step):
        d_mlp = max(1, round(model.d_mlp * d_model / model.d_model))
        yield model.model_copy(update={"n_layers": n_layers, "d_model": d_model, "d_mlp": d_mlp})


def _nearest(
    shapes: Iterable[ModelSpec], count: Callable[[ModelSpec], float], wanted: float, within: float, unit: str
) -> ModelSpec:
    """The shape whose count is nearest; counts rise along `shapes`, so the search ends at the first one above."""
    best: tuple[float, ModelSpec] | None = None
    try:
        for shape in shapes:
            away = abs(count(shape) - wanted)
            if best is None or away < best[0]:
                best = (away, shape)
            if count(shape) >= wanted:
                break
    except ValidationError as error:
        if best is None:
            raise ValueError(f"no such shape: {error.errors()[0]['msg']}") from error
    assert best is not None, "every range of shapes has a first"
    away, shape = best
    if away > within * wanted:
        raise ValueError(
            f"no shape inside ModelSpec's limits has {wanted:,.0f} {unit} within {within:.0%}: the nearest, "
            f"n_layers {shape.n_layers}, d_model {shape.d_model}, d_mlp {shape.d_mlp}, has {count(shape):,.0f}. "
            "Change the other dimension, fewer operands, or a larger `within`"
        )
    return shape


def serial_budget(task: Task, regime: str, *, n_layers: int, ks: range, n: int = 200, seed: int = 0) -> pd.DataFrame:
    """One row a K: the additions of the serial fold, the levels of a tree, and what a regime offers for them.

    `additions` is K - 1; `tree_levels` is ceil(log2 K), enough for any associative fold. `response_tokens` is the mean
    length R of the right response over `n` held-out problems, END included; each token is one pass through `n_layers`
    layers, so `layer_operations` is R * L. `slots_before_answer` counts only what can still serve the answer's first
    symbol: L, and L more for every token that is written before it. These are capacities of the picture, not
    measurements of a model: nothing says that a model uses them so.
    """
    rows = []
    for k in ks:
        lengths = answer_lengths(task, regime, k, n=n, seed=seed)
        tokens, before = float(lengths.response.mean()), float(lengths.before_answer.mean())
        slots = n_layers * (1 + before)
        rows.append((task.name, regime, k, n_layers, k - 1, ceil(log2(k)), tokens, tokens * n_layers, slots))
    return pd.DataFrame(rows, columns=BUDGET_COLUMNS.split())
