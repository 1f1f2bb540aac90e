"""What tokens at inference buy, whether a model knows its wrong steps, and which heads carry a written total.

The measures behind `claims.inference`, each of one model, on held-out problems of its most operands. Responses are
drawn at temperature 1. What a vote and a verifier choose from are the first of the same responses, so that they are
compared on what was written, and at equal tokens.
"""

from collections.abc import Sequence
from math import inf

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from cotinterp.behavior.answer_given_trace import OPEN
from cotinterp.behavior.search.labeled_steps import LabeledSteps, label_steps
from cotinterp.behavior.search.methods import METHODS, elected
from cotinterp.behavior.search.scoring import SCORERS, WorstStep
from cotinterp.behavior.search.spent import Spent, cost_of, writing
from cotinterp.behavior.search.verification import ScoredSteps
from cotinterp.behavior.search.writer import Draft, Search, Writer
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import Edit, run_with
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.sites import head_sites
from cotinterp.models.flops import Cost
from cotinterp.studies.evidence import (
    CHOSEN_FROM,
    SEARCH_DRAWS,
    SearchCondition,
    VerifierCondition,
    joined,
    tally,
)
from cotinterp.studies.protocol import head_pairs
from cotinterp.studies.subject import Effort, Subject
from cotinterp.studies.verifier_use import verifier_use
from cotinterp.studies.verifiers import fitted_probe, fitted_reward, verify_steps
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.parsing import final_answer
from cotinterp.transcripts.problems import sample_problems

GREEDY = SearchCondition("greedy")
TRACES = 4
"""Responses to each problem whose steps are labeled."""
UPDATES = 1000
"""Of the process reward model, which has the shape of the model that it judges."""
EXCHANGED = 200
"""Most prefixes of either kind, right and wrong, in which what the probe reads is exchanged."""


def searched(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of `chosen_right`, `beyond_greedy`, `flops` and `parameters`, on up to `effort.searched` problems.

    - `chosen_right`, condition `greedy|1`, `vote|8`: whether the answer of the chosen response is right. Votes are
      taken among the first 1, 2, 3, ... responses (`SEARCH_DRAWS`).
    - `beyond_greedy`, condition `vote|8`: the same minus that of the greedy response, problem by problem.
    - `flops`, condition `greedy|1`, `vote|8`: operations that it takes to write what is chosen from
      (`behavior.search.spent`), counted and no time.
    - `parameters`: learned values of the model; one row, which is of no problem.

    A model that writes no totals is asked once, greedily. ValueError for a model whose shape is not known.
    """
    if (cost := cost_of(subject.model)) is None:
        raise ValueError("operations are counted for native models alone: this one has another shape")
    batch = _asked(subject, effort)
    k = batch.transcripts[0].problem.k
    budget, rng = int(subject.model.cfg.n_ctx), np.random.default_rng(subject.draw)
    found = METHODS["greedy"](subject.model, subject.task, batch, None, budget, rng=rng).examples()
    once, flops = (found[name].to_numpy(dtype=float) for name in ("correct", "flops"))
    rows = [tally("parameters", np.array([cost.spec.n_parameters(cost.d_vocab)]), k=k)]
    rows += [tally("chosen_right", once, k=k, condition=GREEDY), tally("flops", flops, k=k, condition=GREEDY)]
    if not subject.writes_totals:
        return joined(rows)
    writer, drafts = _responses(subject, batch, max(SEARCH_DRAWS))
    for n in SEARCH_DRAWS:
        at = SearchCondition("vote", n)
        voted = _vote(writer, [of_row[:n] for of_row in drafts])
        works = [_writing(cost, of_row[:n]).flops for of_row in drafts]
        of = {"chosen_right": voted, "beyond_greedy": voted - once, "flops": np.array(works)}
        rows += [tally(measure, values, k=k, condition=at) for measure, values in of.items()]
    return joined(rows)


def verified(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of `chosen_right`, `beyond_vote` and `beyond_likelihood` of verifiers, and of `auroc`.

    Verifiers are fitted on the steps of responses to `effort.searched` other problems: a process reward model, labels
    by the oracle, and a linear probe of the input of the middle layer at the end of each step (chosen beforehand).

    - `chosen_right`, condition `best-of-n|oracle|8`, and `likelihood`, `process reward` or `probe` in its place: of the
      first responses of `searched` (`CHOSEN_FROM`), the one that scores highest: by its worst step where steps are
      scored. `beyond_vote`, `beyond_likelihood`: the same minus that of the vote among these responses, or of the
      likeliest of them, problem by problem.
    - `auroc`, step by step up to the first error of each response: value, over the wrong steps of a problem, the share
      of all right steps that score higher, a tie counting half; trials, how many wrong steps there are. Conditions:
      `probe`, `surface` (the text of the step), `likelihood`, `process reward`; `probe|untrained`; with labels that
      were dealt out anew `probe|shuffled` and `surface|shuffled`.

    What is told apart need not be used (`exchanged`). ValueError where no step is wrong.
    """
    train, test = _steps(subject, effort)
    reward, probe = fitted_reward(subject, train, updates=UPDATES), fitted_probe(subject, train)
    early, judged = train.until_first_error(), test.until_first_error()
    told = verify_steps(
        subject.model,
        early,
        judged,
        sites=[probe.site],
        untrained=subject.untrained,
        scorers=(SCORERS["likelihood"], reward),
        seed=subject.draw,
    )
    k = int(judged.texts.problems[0].k)
    rows = [_auroc(one, told.problem, k) for one in told.scored]
    writer, drafts = _responses(subject, _asked(subject, effort), CHOSEN_FROM)
    texts = writer.texts([draft for of_row in drafts for draft in of_row])
    scores = {name: scorer(subject.model, texts).numpy() for name, scorer in SCORERS.items()}
    for verifier in (reward, probe):
        scores[verifier.name] = WorstStep(verifier)(subject.model, texts).numpy()
    right = {name: _best_of(writer, drafts, of) for name, of in scores.items()}
    voted, likely = _vote(writer, drafts), right["likelihood"]
    for name, chosen in right.items():
        at = SearchCondition("best-of-n", CHOSEN_FROM, name)
        of_verifier = {"chosen_right": chosen, "beyond_vote": chosen - voted, "beyond_likelihood": chosen - likely}
        rows += [tally(measure, values, k=k, condition=at) for measure, values in of_verifier.items()]
    return joined(rows)


def exchanged(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of `verifier_use` and `verifier_use_whole`: does the next step change with what the probe reads?

    The probe of `verified`, fitted up to first errors. Condition `wrong:changed`: at the end of a wrong step the
    probe's component of a right one is put in; value, over the prefixes of a problem, how many next steps change beyond
    the mean of random directions that move as far, trials how many there are. `wrong:right`: the same of next steps
    whose total is the task's. `right:changed`, `right:right`: the other way around. `..._whole`: the whole state.

    ValueError where no step is wrong, or no prefix has a partner.
    """
    train, test = (steps.until_first_error() for steps in _steps(subject, effort))
    scorer = fitted_probe(subject, train)
    rng = np.random.default_rng(subject.draw)
    kept = np.zeros(len(test), dtype=bool)
    for of_kind in (test.right, ~test.right):
        places = np.flatnonzero(of_kind & ~test.texts.ended.numpy())
        kept[rng.permutation(places)[:EXCHANGED]] = True
    found = verifier_use(subject.model, subject.task, test.select(kept), scorer, seed=subject.draw)
    k = int(test.texts.problems[0].k)
    rows = []
    for measure, arm in (("verifier_use", 0), ("verifier_use_whole", 1)):
        for what, values in (("changed", found.changed), ("right", found.right)):
            beyond = values[arm] - values[2:].mean(0)
            for kind in (True, False):
                at = f"{'wrong' if kind else 'right'}:{what}"
                own = found.wrong == kind
                rows.append(_by_problem(measure, beyond[own], found.problem[own], k, at))
    return joined(rows)


def rewarded(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of `trace_begun` and `trace_right`, of up to `effort.searched` problems; asked greedily or drawn once.

    `trace_begun`, condition `greedy` or `sample`: whether the response begins a trace. `trace_right`: over those that
    do, whether their answer is right; no rows where none does.
    """
    batch = _asked(subject, effort)
    k, rows = batch.transcripts[0].problem.k, []
    for name in ("greedy", "sample"):
        rng, budget = np.random.default_rng(subject.draw), int(subject.model.cfg.n_ctx)
        found = METHODS[name](subject.model, subject.task, batch, None, budget, rng=rng).examples()
        begun = found["text"].str.startswith(OPEN).to_numpy()
        rows.append(tally("trace_begun", begun.astype(float), k=k, condition=name))
        rows.append(tally("trace_right", found["correct"].to_numpy()[begun].astype(float), k=k, condition=name))
    return joined(rows)


def head_effects(subject: Subject, effort: Effort) -> pd.DataFrame:
    """Rows of `head_effect`: what each head carries of a changed written total to the next one.

    On up to `effort.paired` held-out problems, the pairs of the head table: the total before the last is changed in the
    trace, and the last one read. z of one head, at all places, is that of the changed run in the clean one (activation
    patching, noising). Value: how far the logit difference falls, in logits; trials: twice the clean one, so that 1 is
    a head that turns it around, and 0 one that is not needed, also where nothing is read. Condition: the head, `L0H1`.

    Heads that stand in for one another share an effect, or show none. NoPairsError where there are no pairs.
    """
    k = subject.length(effort)
    contrast = Contrast.from_pairs(head_pairs(subject, effort.paired, k=k)).until_readout(subject.model)

    def told(edits: Sequence[Edit]) -> Float[np.ndarray, " pairs"]:
        logits = run_with(subject.model, contrast.clean, edits)
        return logit_diff(logits, contrast.at, contrast.answer, contrast.foil).double().cpu().numpy()

    clean, sites, rows = told([]), head_sites(subject.model), []
    states = activations(subject.model, contrast.corrupted, sites)
    for site in sites:
        lost = clean - told([Edit(site, states[site], expect_change=False)])
        rows.append(tally("head_effect", lost, trials=2 * clean, k=k, condition=f"L{site.layer}H{site.head}"))
    return joined(rows)


def _asked(subject: Subject, effort: Effort) -> Batch:
    """The held-out problems of its most operands."""
    return subject.batch(subject.heldout(effort.searched))


def _responses(subject: Subject, batch: Batch, n: int) -> tuple[Writer, list[list[Draft]]]:
    """So many responses to each problem; the first of more are those of fewer (`METHODS` draws the same)."""
    budget, rng = n * int(subject.model.cfg.n_ctx), np.random.default_rng(subject.draw)
    writer = Writer(subject.model, subject.task, batch, None, budget, rng, Search(draws=n))
    roots = writer.roots()
    drafts = writer.write([(root, writer.limit[root.row] - len(root.tokens)) for root in roots for _ in range(n)])
    return writer, [drafts[first : first + n] for first in range(0, len(drafts), n)]


def _writing(cost: Cost, drafts: Sequence[Draft]) -> Spent:
    """What it took to write the responses to one problem, whose prompt is read once."""
    n_prompt = drafts[0].n_prompt
    return writing(cost, n_prompt, n_prompt, [len(draft.written) for draft in drafts])


def _vote(writer: Writer, drafts: Sequence[Sequence[Draft]]) -> Float[np.ndarray, " problem"]:
    return _right(writer, [elected(writer, of_row)[0] for of_row in drafts])


def _best_of(
    writer: Writer, drafts: Sequence[Sequence[Draft]], scores: Float[np.ndarray, " text"]
) -> Float[np.ndarray, " problem"]:
    """Whether the complete response of each problem that scores highest is right, the first of them if several do."""
    ended = np.array([[writer.ended(draft) for draft in of_row] for of_row in drafts])
    picked = np.where(ended, scores.reshape(ended.shape), -inf).argmax(1)
    return _right(writer, [of_row[int(best)] for of_row, best in zip(drafts, picked, strict=True)])


def _right(writer: Writer, chosen: Sequence[Draft]) -> Float[np.ndarray, " problem"]:
    """1 where the answer is the task's, else 0."""
    answers = [final_answer(writer.task, writer.text(draft)) for draft in chosen]
    expected = (one.problem.answer for one in writer.batch.transcripts)
    return np.array([float(one == other) for one, other in zip(answers, expected, strict=True)])


def _steps(subject: Subject, effort: Effort) -> tuple[LabeledSteps, LabeledSteps]:
    """Labeled steps to fit on and to judge by: of the training side of the split, and of held-out problems."""
    rng = np.random.default_rng([1, subject.draw])
    asked = _asked(subject, effort)
    k = asked.transcripts[0].problem.k
    other = subject.batch(sample_problems(subject.task, k, effort.searched, split="train", rng=rng))
    found = [label_steps(subject.model, subject.task, one, rng=rng, n_samples=TRACES) for one in (other, asked)]
    return found[0], found[1]


def _auroc(one: ScoredSteps, problem: Int[np.ndarray, " step"], k: int) -> pd.DataFrame:
    control = "shuffled" if one.labels == "shuffled" else ""
    if one.where.get("model") == "untrained":
        control = "-".join(filter(None, ("untrained", control)))
    right = np.sort(one.scores[one.right])
    wrong = ~one.right
    below, up_to = (np.searchsorted(right, one.scores[wrong], side=side) for side in ("left", "right"))
    share = 1 - (below + up_to) / (2 * len(right))
    return _by_problem("auroc", share, problem[wrong], k, VerifierCondition(one.scorer, control))


def _by_problem(
    measure: str,
    values: Float[np.ndarray, " step"],
    problem: Int[np.ndarray, " step"],
    k: int,
    condition: str | VerifierCondition,
) -> pd.DataFrame:
    """A cell whose problems are drawn as wholes: the sum of the values of each over how many it has."""
    number = np.unique(problem, return_inverse=True)[1]
    sums, counts = np.bincount(number, weights=values), np.bincount(number)
    return tally(measure, sums, trials=counts, k=k, condition=condition)
