"""Does a model know that its step is wrong? Verifiers read from its own states, beside verifiers that read the text.

A linear probe of the generator's residual stream at the end of a step is a process reward model that costs no second
model (Sun & Stolfo 2025, arXiv 2507.12379; Afzal et al. 2025, ReProbe, arXiv 2511.06209). Its rivals here are the
surface baseline, a classifier of the symbols of the step alone, fitted by the same solver: what it tells, no state is
needed for; an untrained model's states; and shuffled labels. A published classifier of the text reached an AUROC of
0.59 where probes reached 0.95 (arXiv 2605.09502), and what probes read was hardly used: `verifier_use`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cotinterp.behavior.search.labeled_steps import LabeledSteps, LabelName, written_steps
from cotinterp.behavior.search.reward_models import RewardModel, train_reward_model
from cotinterp.behavior.search.scoring import Likelihood, Scorer, Texts
from cotinterp.behavior.search.spent import Spent, cost_of, reading_of
from cotinterp.behavior.search.verification import ScoredSteps, Verification
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.probing.linear_probe import LinearProbe, ProbedAt, fit_probe
from cotinterp.mechanism.sites import Site, residual_sites, site_columns
from cotinterp.models.decoding import LanguageModel
from cotinterp.studies.subject import Subject
from cotinterp.training.spec import OptimizerSpec, RunSpec

BATCH = 256


@dataclass(frozen=True, eq=False)
class ProbeScorer:
    """A linear probe of the model's own states at the last symbol of a text: its probability that no step is wrong.

    Costs one read of the text. The model must be one with hooks.
    """

    probe: LinearProbe
    site: Site
    name: str = "probe"

    @classmethod
    def fit(
        cls, model: HookedModel, steps: LabeledSteps, site: Site, *, labels: LabelName = "right", penalty: float = 1.0
    ) -> "ProbeScorer":
        """Fitted on all of these steps: hold problems out beforehand. ValueError for steps of one label alone."""
        held = _at_the_end(model, steps.texts, [site])[site]
        return cls(_fitted(held, steps.labels(labels), ProbedAt(site=site), penalty), site)

    def __call__(self, model: LanguageModel, texts: Texts) -> Float[Tensor, " texts"]:
        return self.at(model, texts, texts.length[:, None] - 1)[:, 0]

    def at(self, model: LanguageModel, texts: Texts, places: Int[Tensor, "text place"]) -> Float[Tensor, "text place"]:
        """The same of what is written up to each place, in one read of the text."""
        held = _states(model, texts, [self.site], places)[self.site]
        return good_probability(self.probe, held.flatten(0, 1)).reshape(places.shape)

    def cost(self, model: LanguageModel, texts: Texts) -> tuple[Spent, ...]:
        own = cost_of(model)
        return tuple(reading_of(own, length) for length in texts.length.tolist())


@dataclass(frozen=True, eq=False)
class SurfaceScorer:
    """A linear classifier of the last step's text: which short runs of symbols stand in it, and its number.

    It asks no model and costs nothing. What it tells apart can be told without any state, by arithmetic slips that
    are easy to see, or because later steps are more often wrong.

    Attributes:
        grams: Runs of symbols that are counted, those of the steps that it was fitted on.
        n_steps: Largest number of a step among these; later ones count as that.
    """

    probe: LinearProbe
    grams: tuple[str, ...]
    n_steps: int
    name: str = "surface"

    @classmethod
    def fit(
        cls, steps: LabeledSteps, *, n_grams: int = 3, labels: LabelName = "right", penalty: float = 1.0
    ) -> "SurfaceScorer":
        """Fitted on all of these steps, on runs of up to `n_grams` symbols. ValueError for steps of one label alone."""
        if n_grams < 1:
            raise ValueError(f"n_grams={n_grams}: 1 or more symbols are counted together")
        last = [written_steps(text)[-1] for text in steps.texts.responses]
        grams = tuple(sorted(set(chain.from_iterable(_grams(text, n_grams) for text in last))))
        n_steps = int(steps.step.max(initial=1))
        features = _surface(steps.texts, grams, n_steps)
        return cls(_fitted(features, steps.labels(labels), ProbedAt(site="surface"), penalty), grams, n_steps)

    def __call__(self, model: LanguageModel, texts: Texts) -> Float[Tensor, " texts"]:  # noqa: ARG002
        return good_probability(self.probe, _surface(texts, self.grams, self.n_steps))

    def cost(self, model: LanguageModel, texts: Texts) -> tuple[Spent, ...]:  # noqa: ARG002
        return (Spent(),) * len(texts)


def fitted_probe(subject: Subject, steps: LabeledSteps) -> ProbeScorer:
    """A probe of the residual stream before the subject's middle layer, which is chosen beforehand."""
    return ProbeScorer.fit(subject.model, steps, Site("resid_pre", int(subject.model.cfg.n_layers) // 2))


def fitted_reward(subject: Subject, steps: LabeledSteps, *, updates: int, labels: LabelName = "right") -> RewardModel:
    """A reward model of the subject's own shape and seed. ValueError for a subject that is no native model."""
    if (cost := cost_of(subject.model)) is None:
        raise ValueError("a reward model of the shape of this model cannot be built: it is no native one")
    spec = RunSpec(
        task="parity",
        regime="direct",
        model=cost.spec.model_copy(update={"n_ctx": int(subject.model.cfg.n_ctx)}),
        optimizer=OptimizerSpec(steps=updates, warmup=min(100, updates // 10)),
        seed=subject.run_seed,
    )
    return train_reward_model(spec, subject.task, steps, labels=labels)


def good_probability(probe: LinearProbe, features: Float[Tensor, "n d_feature"]) -> Float[Tensor, " n"]:
    """What a probe of two classes, 0 for bad and 1 for good, gives the second."""
    found: Tensor = probe.logits(features).double().softmax(1)[:, probe.classes.tolist().index(1)].cpu()
    return found


def verify_steps(
    model: HookedModel,
    train: LabeledSteps,
    test: LabeledSteps,
    *,
    sites: Sequence[Site] | None = None,
    untrained: HookedModel | None = None,
    scorers: Sequence[Scorer] = (Likelihood(),),
    n_grams: int = 3,
    penalty: float = 1.0,
    n_shuffles: int = 1,
    seed: int = 0,
    facts: Mapping[str, str | int] | None = None,
) -> Verification:
    """Probes of every site and the surface baseline, fitted on `train`; they and other scorers judged on `test`.

    Truth is the oracle's (`LabeledSteps.right`). To ask about first errors, hand over `until_first_error()` of both.
    The site that does best on `test` does so partly by luck: choose one beforehand, or on other steps.

    Args:
        sites: Where the model is read, at the last symbol of each step; by default the residual stream before each
            layer and after the last.
        untrained: A model of the same shape at its initialization, probed alike.
        scorers: Others, which need no fitting: likelihood, reward models.
        n_shuffles: Controls of each fitted scorer, fitted and judged on labels that were dealt out anew among steps.

    Raises:
        ValueError: A problem in both `train` and `test`, and steps of one label alone in either.
    """
    prompts = [{one.texts.batch.transcripts[row].prompt for row in one.texts.row.tolist()} for one in (train, test)]
    if both := prompts[0] & prompts[1]:
        raise ValueError(
            f"{len(both)} problems are in both train and test, such as {min(both)!r}: give steps of other problems"
        )
    if len(set(test.right.tolist())) < 2:
        raise ValueError(
            f"all {len(test)} steps of test are {'right' if test.right.all() else 'wrong'}: give both kinds"
        )
    if sites is None:
        sites = (*residual_sites(model), Site("resid_post", int(model.cfg.n_layers) - 1))
    rng = np.random.default_rng(seed)
    dealt = [("true", train.right, test.right)]
    dealt += [("shuffled", rng.permutation(train.right), rng.permutation(test.right)) for _ in range(n_shuffles)]
    read = [_Features.of_surface(train, test, n_grams)]
    for name, one in (("trained", model), ("untrained", untrained)):
        read += [] if one is None else _Features.of_states(one, name, train, test, sites)
    found = [one.scored(*labels, penalty=penalty) for one in read for labels in dealt]
    for scorer in scorers:
        where = {"model": "trained", **site_columns(scorer.name)}
        found.append(ScoredSteps(scorer.name, scorer(model, test.texts).numpy(), test.right, where=where))
    return Verification(tuple(found), test.problem, test.step, dict(facts or {}), seed=seed)


@dataclass(frozen=True, eq=False)
class _Features:
    """What one fitted scorer reads of the steps to fit on and of those to judge."""

    scorer: str
    at: ProbedAt
    train: Float[Tensor, "n d_feature"]
    test: Float[Tensor, "m d_feature"]
    where: Mapping[str, str | int] = field(default_factory=dict)

    @classmethod
    def of_surface(cls, train: LabeledSteps, test: LabeledSteps, n_grams: int) -> "_Features":
        """The text of the last step."""
        fitted = SurfaceScorer.fit(train, n_grams=n_grams)
        first, second = (_surface(one.texts, fitted.grams, fitted.n_steps) for one in (train, test))
        where = {"model": "trained", **site_columns(fitted.name)}
        return cls(fitted.name, ProbedAt(site="surface"), first, second, where)

    @classmethod
    def of_states(
        cls, model: HookedModel, name: str, train: LabeledSteps, test: LabeledSteps, sites: Sequence[Site]
    ) -> "list[_Features]":
        """Each site of a model."""
        first, second = (_at_the_end(model, one.texts, sites) for one in (train, test))
        return [
            cls(
                "probe",
                ProbedAt(site=site, model=name),
                first[site],
                second[site],
                {"model": name, **site_columns(site)},
            )
            for site in dict.fromkeys(sites)
        ]

    def scored(
        self, labels: str, train: Bool[np.ndarray, " n"], test: Bool[np.ndarray, " m"], *, penalty: float
    ) -> ScoredSteps:
        """What it makes of the steps to judge, fitted on these labels."""
        scores = good_probability(_fitted(self.train, train, self.at, penalty), self.test).numpy()
        return ScoredSteps(self.scorer, scores, test, labels, self.where)


def _fitted(
    features: Float[Tensor, "n d_feature"], good: Bool[np.ndarray, " n"], at: ProbedAt, penalty: float
) -> LinearProbe:
    return fit_probe(features, good, at=at, target="right", penalty=penalty)


def _states(
    model: LanguageModel, texts: Texts, sites: Sequence[Site], places: Int[Tensor, "text place"]
) -> dict[Site, Float[Tensor, "text place d_site"]]:
    """What the model holds at these places of each text."""
    held = activations(model, texts.tokens, sites, positions=places, batch_size=BATCH)  # type: ignore[arg-type]
    return {site: state.flatten(2).cpu() for site, state in held.items()}


def _at_the_end(model: LanguageModel, texts: Texts, sites: Sequence[Site]) -> dict[Site, Float[Tensor, "text d_site"]]:
    """What it holds at the last symbol of each text."""
    return {site: held[:, 0] for site, held in _states(model, texts, sites, texts.length[:, None] - 1).items()}


def _grams(text: str, n: int) -> list[str]:
    return [text[first : first + size] for size in range(1, n + 1) for first in range(len(text) - size + 1)]


def _surface(texts: Texts, grams: tuple[str, ...], n_steps: int) -> Float[Tensor, "text feature"]:
    """How often each run of symbols stands in the last step, and one feature for each number of a step."""
    column = {gram: number for number, gram in enumerate(grams)}
    longest = max(map(len, grams), default=1)
    features = np.zeros((len(texts), len(grams) + n_steps), dtype=np.float32)
    known: dict[str, Int[np.ndarray, " gram"]] = {}
    for row, text in enumerate(texts.responses):
        steps = written_steps(text) or [""]
        if steps[-1] not in known:
            known[steps[-1]] = np.array([column[gram] for gram in _grams(steps[-1], longest) if gram in column], int)
        np.add.at(features[row], known[steps[-1]], 1)
        features[row, len(grams) + min(len(steps), n_steps) - 1] = 1
    return torch.from_numpy(features)
