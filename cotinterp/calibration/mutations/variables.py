"""Mistakes about causal variables, accounts and the importance of steps: judged where learned, no other step."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cotinterp.behavior import step_importance as steps
from cotinterp.calibration.mutations.trial import TASK, K, Mutation, instead, random_model, reading_model, require
from cotinterp.mechanism.probing.subspaces import Subspace
from cotinterp.mechanism.sites import Site
from cotinterp.mechanism.variables import causal as variables
from cotinterp.mechanism.variables import rebuilding
from cotinterp.mechanism.variables.das import SubspaceSearch, interchange_accuracy
from cotinterp.models.handmade import reader_blueprint, recomputer
from cotinterp.tasks.task import Task
from cotinterp.transcripts import interchange_pairs as pairs
from cotinterp.transcripts.problems import Problem, sample_problems
from cotinterp.transcripts.roles import Role

READ = Site("resid_pre", 1)
PLACE, READOUT = (Role.TOTAL, 2), (Role.TOTAL, 3)


def problems(n: int, split: str) -> tuple[Problem, ...]:
    """Some of one side."""
    return sample_problems(TASK, K, n, split=split, rng=np.random.default_rng(0))


def made(n: int, split: str) -> pairs.InterchangePairs:
    """Pairs in which total 2 changes hands."""
    asked = {"variable": "s_2", "place": PLACE, "readout": READOUT}
    return pairs.interchange_pairs(TASK, problems(n, split), "totals", rng=np.random.default_rng([0, 1]), **asked)  # type: ignore[arg-type]


def check_held_out() -> None:
    """The pairs that an accuracy is of are those of the held-out problems."""
    few = SubspaceSearch(rank=2, steps=2, n_random=1)
    (cell,) = variables.causal_variables(
        random_model(),
        TASK,
        "totals",
        problems(30, "train"),
        problems(20, "heldout"),
        place=PLACE,
        readout=READOUT,
        variables={"s_2": "mapped"},
        sites=[READ],
        search=few,
    ).cells
    right = interchange_accuracy(random_model(), made(20, "heldout"), READ, cell.subspace)
    same = len(right) == len(cell.learned) and bool((right == cell.learned).all())
    require(same, f"{len(cell.learned)} pairs were judged, and {len(right)} others are held out")


def of_the_first(right: Callable[..., pairs.InterchangePairs]) -> Callable[..., pairs.InterchangePairs]:
    """Makes pairs of the problems that it was first given, whatever it is given later."""
    known: list[Sequence[Problem]] = []

    def make(task: Task, given: Sequence[Problem], regime: str, **options: Any) -> pairs.InterchangePairs:
        known.append(given)
        return right(task, known[0], regime, **options)

    return make


def check_nothing_exchanged() -> None:
    """A model that reads nothing of what it wrote never writes the counterfactual."""
    model = recomputer(TASK, "totals", (2, K))
    share = interchange_accuracy(model, made(60, "heldout"), READ, None).mean()
    require(bool(share == 0), f"a recomputer writes the counterfactual in {share:.0%} of the pairs")


def check_known_directions() -> None:
    """The directions in which a reader holds the total carry it."""
    token = Subspace(reader_blueprint(TASK, "totals", (2, K)).basis("token").T)
    share = interchange_accuracy(reading_model(), made(60, "heldout"), READ, token).mean()
    require(bool(share == 1), f"the known directions of a reader carry its total in {share:.0%} of the pairs")


def check_new_values() -> None:
    """An account with a vector for each problem has none for problems that it was not fitted on, and keeps nothing."""
    spot, by_heart = (Site("attn_out", 1), (Role.STEP_END, 2)), ",".join(f"x_{i}" for i in range(K))
    accounts: dict[str, rebuilding.Account] = {"by heart": {spot: (by_heart,)}}
    known, asked = problems(60, "train"), problems(60, "heldout")
    table = rebuilding.rebuilt(reading_model(), TASK, "totals", known, asked, accounts, readout=READOUT).frame()
    kept = table["kept"].item()
    require(bool(kept < 0.5), f"an account of other problems, by heart, keeps {kept:.0%} of the answers")


def fitted_on_itself(right: Callable[..., Any]) -> Callable[..., Any]:
    """Fits an account on the problems that it is judged on."""
    return lambda _, asked, spot, designs, *rest: right(asked, asked, spot, [(use, use) for _, use in designs], *rest)


def not_continued(task: Task, problem: Problem, step: int, total: int) -> Problem:
    """A total written in another's place, the later ones left as they were."""
    return replace(problem, totals=(*problem.totals[: step - 1], total, *problem.totals[step:]))


def check_read_step() -> None:
    """A step that a reader says otherwise has all of the importance."""
    warm = steps.Resampling(temperature=5.0, draws=48, least=2)
    result = steps.step_importance(
        reading_model(), TASK, "totals", problems(8, "heldout"), rng=np.random.default_rng(0), resampling=warm
    )
    found = result.frame().query("measure == 'resampled'")["importance"]
    require(bool((found > 0.9).all()), f"a step that a reader reads has an importance of {found.min():.2f}")


def any_step(task: Task, text: str, place: Any) -> bool:
    """Keeps every draw that is a step, the same one too."""
    return steps._formed(task, text, place)


def check_control_edit() -> None:
    """A total before the last one does not matter to a reader."""
    result = steps.step_importance(
        reading_model(), TASK, "totals", problems(8, "heldout"), rng=np.random.default_rng(0)
    )
    found = result.frame().query("measure == 'control' and step > 1")["importance"]
    require(
        bool((found == 0).all()), f"an edit of what a reader has left behind has an importance of {found.max():.2f}"
    )


VARIABLE_MUTATIONS = (
    Mutation(
        "interchange accuracy of the pairs that were trained on",
        "the pairs that are judged are those held out",
        instead(variables, "interchange_pairs", of_the_first(pairs.interchange_pairs)),
        check_held_out,
    ),
    Mutation(
        "pairs whose counterfactual is the base's own value",
        "a recomputer never writes a counterfactual",
        instead(pairs, "_symbols", lambda tokens: object()),
        check_nothing_exchanged,
    ),
    Mutation(
        "a counterfactual total from which nothing is continued",
        "the known directions of the handmade reader",
        instead(pairs, "substitute_total", not_continued),
        check_known_directions,
    ),
    Mutation(
        "an account fitted on the problems that it is judged on",
        "an account by heart keeps nothing of new problems",
        instead(rebuilding, "_fitted", fitted_on_itself(rebuilding._fitted)),
        check_new_values,
    ),
    Mutation(
        "importance of a step that need not differ",
        "each step of the handmade reader has all importance",
        instead(steps, "_says_another_total", any_step),
        check_read_step,
    ),
    Mutation(
        "the control edit is of the step itself",
        "what a reader has left behind has no importance",
        instead(steps, "_edits", lambda writer, place: (steps._replaced(writer, place, place.step),) * 2),
        check_control_edit,
    ),
)
