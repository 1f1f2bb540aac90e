"""Claims about the circuit that reads a written total, how it forms, what two seeds share, and what is a variable.

They are judged on the part `circuits` of a plan (`sweeps.designs`), as `studies.circuits` measures it. Thresholds stand
in `claims.claim.THRESHOLDS`.
"""

from functools import partial
from itertools import product

import numpy as np

from cotinterp.claims.cells import Cells, Values
from cotinterp.claims.claim import Claim, Rival, control, criterion
from cotinterp.claims.statistics import accuracy, difference
from cotinterp.studies.evidence import CIRCUITS_VARIANT

WRITES = "cot"
VARIABLES, SITES = ("previous", "next"), ("resid_pre", "attn_out")


def of(cells: Cells, measure: str, what: str) -> Values:
    """One number of the model that is looked at."""
    return cells.mean(measure, regime=WRITES, variant=CIRCUITS_VARIANT, condition=what)


def beyond(cells: Cells, measure: str, what: str, other: str) -> Values:
    """One number minus another of the same measure."""
    return difference(of(cells, measure, what), of(cells, measure, other))


def moved(cells: Cells, what: tuple[str, ...], variables: tuple[str, ...] = VARIABLES) -> Values:
    """Interchanges that move the model as the task says: of all variables and sites the most, whichever it is."""
    every = [of(cells, "interchange", ":".join(one)) for one in product(variables, SITES, what)]
    found: Values = np.max(np.broadcast_arrays(*every), axis=0)
    return found


def moved_beyond_unmapped(cells: Cells) -> Values:
    """The same minus those of a variable that nothing needs there, at the better of the two sites as well."""
    return difference(moved(cells, ("total",)), moved(cells, ("total",), ("unmapped",)))


def carrying(cells: Cells) -> str:
    """The site at which the model's own states of other problems decide most: what carries, and nothing of others."""
    return max(SITES, key=lambda site: float(of(cells, "states_carry", f"{site}:own").mean()))


def at_carrying(cells: Cells, measure: str, what: str) -> Values:
    """One number at that site."""
    return of(cells, measure, f"{carrying(cells)}:{what}")


def gained(cells: Cells, measure: str) -> Values:
    """There, that of another seed minus that of an untrained model."""
    return difference(at_carrying(cells, measure, "seed"), at_carrying(cells, measure, "untrained"))


WRITES_IT = control(
    "writes-the-trace",
    "held-out accuracy, mean over K",
    partial(accuracy, regime=WRITES, variant=CIRCUITS_VARIANT),
    "above",
)

ONE_CIRCUIT = Claim(
    name="one-circuit-reads-every-step",
    statement="The edges that carry a written total to the next one are the same at every step of the trace.",
    source="the bench's own question; tests of circuits: Shi et al. 2024 (arXiv 2410.13032)",
    criteria=(
        criterion(
            "kept-elsewhere",
            "of the logit difference, what circuits found at other steps keep",
            partial(of, measure="circuit_kept", what="other"),
            unit="",
        ),
        criterion(
            "lost-elsewhere",
            "what the circuit found at the step itself keeps minus that",
            partial(beyond, measure="circuit_kept", what="own", other="other"),
            unit="",
        ),
    ),
    predicts={"kept-elsewhere": "above", "lost-elsewhere": "below"},
    rivals=(
        Rival("a circuit for each step", "other edges read other steps", {"kept-elsewhere": "below"}),
        Rival(
            "a core and additions",
            "the same edges carry most of it, and each step has some of its own",
            {"kept-elsewhere": "above", "lost-elsewhere": "above"},
        ),
    ),
    controls=(
        WRITES_IT,
        control(
            "kept-at-home",
            "what a circuit keeps at its own step, of other pairs",
            partial(of, measure="circuit_kept", what="own"),
            "above",
            "",
        ),
        control(
            "kept-by-random",
            "what as many random edges keep",
            partial(of, measure="circuit_kept", what="random"),
            "below",
            "",
        ),
        control(
            "beyond-kept-untrained",
            "what a circuit keeps at its own step minus what as many first edges of the untrained model do",
            partial(beyond, measure="circuit_kept", what="own", other="untrained"),
            "above",
            "",
        ),
    ),
    decisive=frozenset({"kept-elsewhere"}),
    evidence=("patching",),
    limits="Edges have no places: that the same heads read each step does not show that they find it in the same way. "
    "Two layers, pairs in which one written total is changed; the copy of the last total is not asked about.",
)

READER_FIRST = Claim(
    name="reader-appears-before-accuracy",
    statement="In training the read of the written total is there before steps are right.",
    source="Forner et al. 2026 (arXiv 2606.18164): MLP, attention, accuracy; arXiv 2510.25791: written, then read",
    criteria=(
        criterion(
            "attention-ahead",
            "doublings of updates from attention to the total before, halfway, to steps right, halfway",
            partial(beyond, measure="event", what="next_total", other="attention"),
            unit="doublings",
        ),
        criterion(
            "effect-ahead",
            "the same from the effect of what heads read there",
            partial(beyond, measure="event", what="next_total", other="read_effect"),
            unit="doublings",
        ),
        criterion(
            "table-ahead",
            "the same from steps that are right once the final patterns are lent",
            partial(beyond, measure="event", what="next_total", other="step_table"),
            unit="doublings",
        ),
    ),
    predicts={"attention-ahead": "above", "effect-ahead": "above"},
    rivals=(
        Rival(
            "the table first",
            "what to make of a total is known before it is looked at, and looking at it makes steps right",
            {"table-ahead": "above", "attention-ahead": "below"},
        ),
        Rival(
            "all at once",
            "nothing comes before anything",
            {"attention-ahead": "below", "table-ahead": "below"},
        ),
        Rival(
            "looked at, and not used yet",
            "attention is there first, and what it brings moves nothing until steps are right",
            {"attention-ahead": "above", "effect-ahead": "below"},
        ),
    ),
    controls=(WRITES_IT,),
    decisive=frozenset({"attention-ahead"}),
    evidence=("patching",),
    limits="Halfway marks of a moment's measures, interpolated between kept weights; a steep curve may pass its mark "
    "before a flat one that began earlier. That one is first does not show that the other needed it.",
)

SEEDS_SHARE = Claim(
    name="seeds-share-one-mechanism",
    statement="Two models that differ in their seed alone are one up to a rotation, and their heads correspond.",
    source="2026, 'Polymorphism is Rotation' (arXiv 2605.24577), of residual streams; heads are the bench's own",
    criteria=(
        criterion(
            "rotation-gain",
            "of what is held there, what another seed's explains by rotation, minus what an untrained one's does",
            partial(gained, measure="stream_shared"),
            unit="",
        ),
        criterion(
            "states-gain",
            "states of another seed, turned, that decide the next total, minus those of an untrained model",
            partial(gained, measure="states_carry"),
        ),
        criterion(
            "heads-gain",
            "attention shared by heads that were matched one to one, minus that with an untrained model's",
            partial(beyond, measure="heads_shared", what="seed", other="untrained"),
            unit="",
        ),
    ),
    predicts={"rotation-gain": "above", "states-gain": "above", "heads-gain": "above"},
    rivals=(
        Rival("each its own", "the streams have no more in common than their input", {"rotation-gain": "below"}),
        Rival(
            "the same states by other heads",
            "what is held is the same, and the work is divided in another way",
            {"rotation-gain": "above", "states-gain": "above", "heads-gain": "below"},
        ),
        Rival(
            "alike to look at",
            "one stream explains the other, and its states mean nothing there",
            {"rotation-gain": "above", "states-gain": "below"},
        ),
    ),
    controls=(
        WRITES_IT,
        control(
            "dealt-out-anew",
            "what a rotation explains that was fitted on problems dealt out anew",
            partial(at_carrying, measure="stream_shared", what="shuffled"),
            "below",
            "",
        ),
        control(
            "own-states",
            "the model's own states of other problems that decide the next total there",
            partial(at_carrying, measure="states_carry", what="own"),
            "above",
        ),
    ),
    decisive=frozenset({"rotation-gain"}),
    evidence=("probes",),
    limits="Pairs of seeds on the same task, two layers, at the equals sign: what enters the last layer, or what its "
    "attention brings, whichever decides more in the model itself. Linear maps alone; what holds the same classes as "
    "far apart is one up to a rotation whatever put it there.",
)

CAUSAL_VARIABLES = Claim(
    name="totals-are-causal-variables",
    statement="A running total is a variable of the model: where the next step is computed there is a subspace, of the "
    "total before or of the one to be written, whose exchange makes the model go on as the task does from the other "
    "value.",
    source="Geiger et al. 2023 (arXiv 2303.02536)",
    criteria=(
        criterion(
            "moves-as-the-task",
            "interchanges of a fitted subspace after which the model writes what the task says, the best of two totals "
            "and two sites",
            partial(moved, what=("total",)),
            bounds=(0.0, 1.0),
        ),
        criterion(
            "beyond-unmapped",
            "the same minus those of a variable that nothing needs there, fitted alike, at the better site",
            moved_beyond_unmapped,
        ),
        criterion(
            "moves-whole",
            "the same of the whole activation",
            partial(moved, what=("whole",)),
            bounds=(0.0, 1.0),
        ),
    ),
    predicts={"moves-as-the-task": "above", "beyond-unmapped": "above"},
    rivals=(
        Rival(
            "not there",
            "the place does not hold the total: no exchange moves it, not even of all that it holds",
            {"moves-as-the-task": "below", "moves-whole": "below"},
        ),
        Rival(
            "not in one subspace",
            "it is there, and no linear part of it moves as the task says",
            {"moves-as-the-task": "below", "moves-whole": "above"},
        ),
        Rival(
            "anything can be fitted",
            "a variable that is not there moves as well",
            {"moves-as-the-task": "above", "beyond-unmapped": "below"},
        ),
    ),
    controls=(
        WRITES_IT,
        control(
            "moved-by-nothing",
            "interchanges by random subspaces, or fitted to shuffled outcomes, the most of all",
            partial(moved, what=("random", "shuffled")),
            "below",
        ),
        control(
            "moved-untrained",
            "interchanges of subspaces fitted in the untrained model, the most of all",
            partial(moved, what=("untrained",)),
            "below",
        ),
    ),
    decisive=frozenset({"moves-as-the-task"}),
    evidence=("probes",),
    limits="The last step of a trace, at its equals sign, at the input and the attention of the last layer; linear "
    "subspaces of one rank; the best of four is taken, of the controls as well. "
    "That an exchange works does not show that the model uses that subspace by itself (Makelov et al. 2023, arXiv "
    "2311.17030).",
)

CIRCUITS = (ONE_CIRCUIT, READER_FIRST, SEEDS_SHARE, CAUSAL_VARIABLES)
"""`cotinterp claims --claim circuits --from checkpoints --train --part circuits --task TASK`."""
