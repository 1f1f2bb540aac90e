"""A model that an explorer holds, and how a text is written and named by it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cotinterp.explore.python_calls import setup_of
from cotinterp.mechanism.interventions import Edit, run_with, watch
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.sites import Site
from cotinterp.studies.subject import Subject
from cotinterp.tasks.task import Task
from cotinterp.training.checkpoints import Run, read_run
from cotinterp.transcripts.parsing import parse_response
from cotinterp.transcripts.problems import Problem, continued
from cotinterp.transcripts.regimes import Token, get_regime
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Held:
    """A model that can be asked; `setup` defines it in Python, `again` makes another of the same weights."""

    name: str
    model: HookedModel
    task: Task
    regime: str
    k_trained: tuple[int, int]
    setup: str
    again: Callable[[], HookedModel] | None = None

    @classmethod
    def of(cls, source: Run | Subject) -> "Held":
        if isinstance(source, Subject):
            name = source.variant or type(source.model).__name__
            return cls(name, source.model, source.task, source.regime, source.k_range, setup_of(None))
        spec = source.spec

        def again() -> HookedModel:
            return read_run(source.directory, device=str(device_of(source.model)), task=source.task).model

        k_trained = (spec.k_min, spec.k_max)
        return cls(spec.slug, source.model, source.task, spec.regime, k_trained, setup_of(source), again)

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.of(self.task)

    @property
    def n_layers(self) -> int:
        return int(self.model.cfg.n_layers)


def likeliest_of(p: Float[Tensor, " d_vocab"], symbols: Sequence[str]) -> list[tuple[str, float]]:
    found = p.topk(min(3, len(p)))
    return [(symbols[token], value) for token, value in zip(found.indices.tolist(), found.values.tolist(), strict=True)]


def read(run: Held, tokens: Tensor, edits: Sequence[Edit], sites: Sequence[Site]) -> dict[Site, Tensor]:
    """What stands at these sites in the run with these edits."""
    seen: dict[Site, Tensor] = {}
    run_with(run.model, tokens, [*edits, *(watch(site, seen) for site in sites)])
    return seen


def continued_by(
    run: Held, guess: str, given: int, limit: int, edits: Callable[[int], list[Edit]]
) -> tuple[str, Float[Tensor, "pos d_vocab"]]:
    """What the model writes after the first `given` symbols of `guess`, greedily, and the logits of that whole text.

    As `decoding.verified`, with edits: a pass over the guess accepts it as far as each symbol is the likeliest one, and
    takes the likeliest symbols behind it as the next guess.
    """
    vocabulary, text, sure = run.vocabulary, guess, given
    stop = vocabulary.symbols[vocabulary.end]
    while True:
        logits = run_with(run.model, token_ids(run, text), edits(len(text)))[0]
        likeliest = [vocabulary.symbols[token] for token in logits.argmax(-1).tolist()]
        while sure < len(text) and text[sure] == likeliest[sure - 1] and (sure == given or text[sure - 1] != stop):
            sure += 1
        ended = sure > given and text[sure - 1] == stop
        if ended or sure >= limit:
            return text[:sure], logits[:sure]
        text = text[:sure] + "".join(likeliest[sure - 1 : limit - 1])


def tokens_named(run: Held, problem: Problem, text: str, n_prompt: int) -> list[Token | None]:
    """Role, step and value of every symbol, by the transcript that says the same; None where there is none like it.

    A response with other totals than the task's is the transcript of those. Of one that is no transcript (a miscopied
    operand, a step too many) the symbols have the roles of the one of its length, and none beyond where their structure
    parts; a symbol that is another one there has no value.
    """
    task, regime = run.task, get_regime(run.regime)
    parsed = parse_response(task, text[n_prompt:], separator=regime.separator)
    totals = [step.total for step in parsed.steps if step.total is not None][: problem.k - 1]
    reader = continued(task, problem, totals) if totals and len(totals) == len(parsed.steps) else problem
    tokens = render(task, reader, regime).tokens
    found: list[Token | None] = []
    signs = set("{}=;#.") | set(task.operators)
    apart = False
    for place, symbol in enumerate(text):
        token = tokens[place] if place < len(tokens) else None
        apart = apart or token is None or (token.symbol != symbol and (token.symbol in signs or symbol in signs))
        if apart or token is None:
            found.append(None)
        else:
            found.append(token if token.symbol == symbol else token._replace(symbol=symbol, value=-1))
    return found


def device_of(model: HookedModel) -> torch.device:
    return next(model.parameters()).device if isinstance(model, nn.Module) else torch.device("cpu")


def token_ids(run: Held, text: str) -> Tensor:
    return torch.tensor([run.vocabulary.encode(text)], device=device_of(run.model))
