"""The claims on trial, each with its rivals, criteria and controls. Thresholds stand in `claims.claim.THRESHOLDS`."""

import difflib
from dataclasses import replace

from cotinterp.claims import statistics
from cotinterp.claims.circuits import CIRCUITS
from cotinterp.claims.claim import LEAST_ERRORS, SOLVED, Claim, Control, Rival, control, criterion
from cotinterp.claims.designs import DESIGNS
from cotinterp.claims.inference import INFERENCE
from cotinterp.claims.size import SIZE
from cotinterp.claims.teaching import TEACHING
from cotinterp.tasks.loading import is_reference, load

SHARE = (0.0, 1.0)
GPT_MINI = "gpt_mini, lesson 4 (chain of thought as a change of the data)"
READER_POST = "a reader's post on Wei et al. 2022 (arXiv 2201.11903) and attention"


_COT_WORKS = Control("cot-solves-it", "held-out accuracy of cot, mean over K", statistics.cot_accuracy, SOLVED, "above")
_LEARNED = control(
    "learned", "accuracy of direct on its training problems, above guessing", statistics.learned, "above"
)

GAP_WIDENS = Claim(
    name="gap-widens",
    statement="At equal updates the advantage of writing the running totals grows with the number of operands.",
    source=GPT_MINI,
    criteria=(
        criterion("slope", "what an operand more adds to the advantage of cot over direct", statistics.advantage_slope),
        criterion("advantage", "held-out accuracy of cot minus that of direct at the largest K", statistics.advantage),
    ),
    predicts={"slope": "above", "advantage": "above"},
    rivals=(
        Rival("constant gap", "cot helps alike at every length", {"slope": "below", "advantage": "above"}),
        Rival("no gap", "direct does as well at the largest K", {"advantage": "below"}),
    ),
    evidence=("accuracy",),
    limits="Five lengths, all trained on; a gap says nothing about why.",
)

GAP_REMAINS = replace(
    GAP_WIDENS,
    name="gap-remains-when-learned",
    statement="Where both regimes are trained until they have learned, the advantage still grows with the operands.",
    source=f"{GPT_MINI}, without its budget",
    criteria=(
        replace(GAP_WIDENS.criteria[0], statistic=statistics.advantage_slope_when_learned),
        replace(GAP_WIDENS.criteria[1], statistic=statistics.advantage_when_learned),
    ),
    controls=(
        Control(
            "cot-solves-it",
            "held-out accuracy of cot, mean over K",
            statistics.cot_accuracy_when_learned,
            SOLVED,
            "above",
        ),
    ),
    limits="Two layers, 100,000 problems, five lengths; where a depth is short, longer problems would show it.",
)

DIRECT_IS_LOOKUP = Claim(
    name="direct-is-lookup",
    statement="Without a written trace the model stores its training problems instead of computing.",
    source=GPT_MINI,
    criteria=(
        criterion("ratio", "generalization ratio of direct", statistics.generalization_ratio, ""),
        criterion(
            "beyond-memory",
            "accuracy of direct beyond the best guess of memory",
            statistics.beyond_memory,
            optional=True,
        ),
        criterion(
            "agreement",
            "same answer in an untrained order, beyond chance",
            statistics.net_agreement,
            "",
            optional=True,
        ),
        criterion(
            "size-gain", "accuracy gained by ten times the training problems", statistics.size_gain, optional=True
        ),
        criterion("cliff", "accuracy at K = L + 1 minus that at K = L + 2", statistics.cliff, optional=True),
    ),
    predicts={"ratio": "below", "beyond-memory": "below", "agreement": "below", "size-gain": "below"},
    rivals=(
        Rival(
            "parallel or algebraic algorithm",
            "the answer is computed from all operands at once",
            {"ratio": "above", "beyond-memory": "above", "agreement": "above", "cliff": "below"},
        ),
        Rival(
            "serial simulation",
            "the running totals are computed layer by layer",
            {"beyond-memory": "above", "cliff": "above"},
        ),
    ),
    controls=(
        _LEARNED,
        control("memory", "generalization ratio of random labels", statistics.memory_ratio, "below", "", optional=True),
    ),
    decisive=frozenset({"ratio"}),
    evidence=("accuracy",),
    limits="A table and too little data look alike here: neither answers what was not shown.",
)

_FEW = criterion(
    "few", "generalization ratio of direct, trained on few problems", statistics.ratio_of_few, "", optional=True
)
_MANY = criterion("many", "generalization ratio of direct, trained on many problems", statistics.ratio_of_many, "")
_LEARNED_MANY = control(
    "learned", "accuracy on the many training problems, above guessing", statistics.learned_many, "above"
)
_AT_ANY_SIZE = Rival("a table at any size", "more problems are stored, too", {"few": "below", "many": "below"})
_AT_ONCE = Rival("an algorithm at any size", "few problems are enough", {"few": "above", "many": "above"})
_LEARNED_LIMITS = "Two sizes, 1,000 and 100,000 problems, and two layers; where between them it turns is not asked."

TABLE_AT_ANY_SIZE = Claim(
    name="direct-is-lookup-at-any-size",
    statement="Trained until it has learned, direct stores its training problems, however many it is shown.",
    source=f"{GPT_MINI}, without its budget",
    criteria=(_MANY, _FEW),
    predicts={"few": "below", "many": "below"},
    rivals=(
        Rival("a table of few, an algorithm for many", "enough problems do", {"few": "below", "many": "above"}),
        _AT_ONCE,
    ),
    controls=(_LEARNED_MANY,),
    decisive=frozenset({"many"}),
    evidence=("accuracy",),
    limits=_LEARNED_LIMITS,
)

TABLE_OF_FEW = Claim(
    name="direct-is-lookup-of-few",
    statement="Trained until it has learned, direct stores few problems, and computes where it is shown many.",
    source="Varma et al. 2023 (arXiv 2309.02390), of whom this would be a case: a table costs more the more it holds",
    criteria=(replace(_FEW, optional=False), _MANY),
    predicts={"few": "below", "many": "above"},
    rivals=(_AT_ANY_SIZE, _AT_ONCE),
    controls=(_LEARNED_MANY,),
    decisive=frozenset({"few", "many"}),
    evidence=("accuracy",),
    limits=_LEARNED_LIMITS,
)

COT_READS = Claim(
    name="cot-reads-written-totals",
    statement="Each step of the trace is computed from the running total that was written, not from the prompt again.",
    source=f"{GPT_MINI}; {READER_POST}",
    criteria=(
        criterion(
            "margin", "edited totals that the answer follows minus those that it ignores", statistics.follow_margin
        ),
        criterion(
            "ignored", "edited totals that the answer ignores minus those that it follows", statistics.ignore_margin
        ),
        criterion(
            "patch-margin",
            "patching effect of the written total minus that of its operand",
            statistics.patch_margin,
            "",
        ),
        criterion(
            "read-margin",
            "loss without reads of the total minus that of earlier operands",
            statistics.read_margin,
            "",
        ),
    ),
    predicts={"margin": "above", "patch-margin": "above", "read-margin": "above"},
    rivals=(
        Rival(
            "recomputes from the prompt",
            "the trace is written, but every total is computed from the operands",
            {"patch-margin": "below", "read-margin": "below", "margin": "below"},
        ),
        Rival(
            "ignores the trace",
            "totals are computed from written totals, and the answer does not depend on them",
            {"ignored": "above", "patch-margin": "above", "read-margin": "above"},
        ),
    ),
    controls=(
        _COT_WORKS,
        control("clean-trace", "right answers after the true total was written back", statistics.clean_trace, "above"),
        control("by-chance", "the margin, judged by another problem's edit", statistics.margin_by_chance, "below"),
        control("unrelated", "effect of an operand that cannot matter", statistics.unrelated_effect, "below", ""),
        control("random-cut", "loss without reads of as many random tokens", statistics.random_cut, "below", ""),
    ),
    evidence=("trace_edits", "pair_families", "patching", "heads"),
    limits="Edited traces are off the training distribution; four operands for patching and knock-outs.",
)

TOTALS_ARE_LINEAR = Claim(
    name="running-totals-are-linear",
    statement="Running totals are linearly decodable before they are written, in both regimes, and are used.",
    source=f"{GPT_MINI}, where direct would have to hold them between its layers",
    criteria=(
        criterion(
            "cot-decodable",
            "probe for s_j at the equals sign, beyond its controls",
            statistics.decodable_in_cot,
        ),
        criterion("cot-used", "share of the gap that exchanging it closes in cot", statistics.used_in_cot, ""),
        criterion(
            "direct-decodable",
            "probe for s_j at operand j, beyond its controls",
            statistics.decodable_in_direct,
        ),
        criterion("direct-used", "share of the gap that exchanging it closes in direct", statistics.used_in_direct, ""),
    ),
    predicts={"cot-decodable": "above", "cot-used": "above", "direct-decodable": "above", "direct-used": "above"},
    rivals=(
        Rival(
            "only where it is about to be written",
            "cot holds and uses the next total; direct holds no running totals",
            {"cot-decodable": "above", "cot-used": "above", "direct-decodable": "below"},
        ),
        Rival(
            "present but not used", "decodable, and nothing reads it", {"cot-decodable": "above", "cot-used": "below"}
        ),
    ),
    controls=(_COT_WORKS,),
    evidence=("probes",),
    limits="One site, the input of the last layer; a total may be present in another form, or elsewhere.",
)

ERRORS_ARE_BOOKKEEPING = Claim(
    name="errors-are-bookkeeping",
    statement="What cot still gets wrong is the format (steps miscounted, braces, separators), not the arithmetic.",
    source=GPT_MINI,
    criteria=(
        criterion(
            "bookkeeping",
            "share of bookkeeping among wrong held-out outputs of cot",
            statistics.bookkeeping_share,
            bounds=SHARE,
            pool=True,
            optional=True,
            least=LEAST_ERRORS,
        ),
        criterion(
            "early",
            "share of bookkeeping among wrong held-out outputs of cot that was stopped early",
            statistics.early_bookkeeping_share,
            bounds=SHARE,
            pool=True,
            optional=True,
            least=LEAST_ERRORS,
        ),
    ),
    predicts={"bookkeeping": "above", "early": "above"},
    rivals=(
        Rival(
            "wrong steps",
            "a total or a copy is wrong in a well-formed trace",
            {"bookkeeping": "below", "early": "below"},
        ),
    ),
    controls=(_COT_WORKS,),
    evidence=("errors",),
    limits="The first fault of an output decides its kind; models of this size and training alone.",
)

TOKENS_CARRY_CONTENT = Claim(
    name="tokens-carry-content",
    statement="What helps is what the written tokens say, not the extra passes that writing them takes.",
    source=f"{GPT_MINI}; the rival after Pfau, Merrill & Bowman 2024 (arXiv 2404.15758)",
    criteria=(
        criterion("content", "held-out accuracy of cot minus that of as many filler dots", statistics.content),
        criterion("passes", "held-out accuracy of filler dots minus that of direct", statistics.passes),
    ),
    predicts={"content": "above"},
    rivals=(
        Rival("extra passes suffice", "dots help as much as totals", {"content": "below", "passes": "above"}),
        Rival("nothing to gain", "direct does as well as either", {"content": "below", "passes": "below"}),
    ),
    controls=(_COT_WORKS,),
    evidence=("accuracy",),
    limits="Equal problems, updates and optimizer; filler may need more training than totals, which are supervised.",
)

DEPTH_LIMITS_DIRECT = Claim(
    name="depth-limits-direct",
    statement="L layers solve a fold directly as long as its K - 1 steps fit, K - 1 <= L, and no further.",
    source=GPT_MINI,
    criteria=(
        criterion("beyond-budget", "accuracy of direct where K - 1 > L", statistics.beyond_budget, bounds=SHARE),
        criterion("within-budget", "accuracy of direct where K - 1 <= L", statistics.within_budget, bounds=SHARE),
        criterion(
            "depth-gain",
            "accuracy of the deepest direct minus the shallowest, where its chain ends",
            statistics.depth_gain,
        ),
        criterion(
            "log-budget",
            "accuracy where a tree fits and a chain does not",
            statistics.tree_budget,
            optional=True,
            bounds=SHARE,
        ),
    ),
    predicts={"beyond-budget": "below", "within-budget": "above", "depth-gain": "above", "log-budget": "below"},
    rivals=(
        Rival(
            "logarithmic",
            "a tree of depth ceil(log2 K) fits",
            {"within-budget": "above", "depth-gain": "above", "log-budget": "above"},
        ),
        Rival("constant", "one layer does as well as four", {"depth-gain": "below", "within-budget": "above"}),
        Rival("not depth", "no depth solves it: something else is short", {"within-budget": "below"}),
    ),
    controls=(_LEARNED,),
    decisive=frozenset({"beyond-budget", "within-budget"}),
    evidence=("accuracy", "budget"),
    limits="Depths 1, 2 and 4 at one training budget: what was not learned may still be expressible.",
)

WRONG_STEPS_ANCHOR = Claim(
    name="wrong-steps-anchor-wrong-answers",
    statement="A wrong written step takes the answer with it, and the answer becomes likely only as totals appear.",
    source=READER_POST,
    criteria=(
        criterion(
            "lost", "P(true answer) writing on from a true total minus from a wrong one", statistics.lost_to_the_edit
        ),
        criterion(
            "anchored",
            "P(the answer that follows from it) writing on from a wrong total",
            statistics.anchored,
            bounds=SHARE,
        ),
        criterion(
            "copied",
            "P(the answer that follows from it) once all totals after a wrong one are written",
            statistics.copied,
            bounds=SHARE,
        ),
        criterion(
            "margin",
            "wrong totals at any step that the answer follows minus those that it ignores",
            statistics.follow_margin,
        ),
        criterion("ready", "P(true answer) with the trace closed at its end minus at its start", statistics.readiness),
        criterion(
            "own-wrong",
            "the model's own wrong totals that its answer follows",
            statistics.own_wrong_followed,
            bounds=SHARE,
            pool=True,
            optional=True,
            least=LEAST_ERRORS,
        ),
        criterion(
            "carried", "log P(true answer) given its own trace minus given the problem", statistics.carried, "nats"
        ),
    ),
    predicts={
        "lost": "above",
        "anchored": "above",
        "copied": "above",
        "margin": "above",
        "ready": "above",
        "own-wrong": "above",
    },
    rivals=(
        Rival(
            "decoration",
            "the answer does not depend on the trace",
            {"lost": "below", "anchored": "below", "copied": "below"},
        ),
        Rival(
            "only the last total counts",
            "the answer is copied from the last total, and a wrong one before it is put right",
            {"anchored": "below", "copied": "above"},
        ),
        Rival(
            "only some totals count",
            "the answer follows from some written totals, and others are read by nothing",
            {"anchored": "above", "margin": "below"},
        ),
        Rival(
            "known beforehand",
            "the answer is there before the trace, which can overrule it",
            {"ready": "below", "anchored": "above", "margin": "above"},
        ),
    ),
    controls=(_COT_WORKS,),
    decisive=frozenset({"lost", "anchored"}),
    evidence=("trace_edits",),
    limits="Where the model writes on, the first total is the wrong one. A trace closed early is off the training "
    "distribution; see the free-running curve beside it.",
)

CATALOG = (
    GAP_WIDENS,
    GAP_REMAINS,
    DIRECT_IS_LOOKUP,
    TABLE_AT_ANY_SIZE,
    TABLE_OF_FEW,
    COT_READS,
    TOTALS_ARE_LINEAR,
    ERRORS_ARE_BOOKKEEPING,
    TOKENS_CARRY_CONTENT,
    DEPTH_LIMITS_DIRECT,
    WRONG_STEPS_ANCHOR,
)
"""The claims about the reference design, in the order of the report."""
EVERY = (*CATALOG, *TEACHING, *SIZE, *DESIGNS, *INFERENCE, *CIRCUITS)
GROUPS = {
    "catalog": CATALOG,
    "teaching": TEACHING,
    "size": SIZE,
    "designs": DESIGNS,
    "inference": INFERENCE,
    "circuits": CIRCUITS,
}


def get_claims(ref: str | Claim) -> tuple[Claim, ...]:
    """Those of a group (a name of `GROUPS`), or the one of that name, with the errors of `get_claim`."""
    return GROUPS[ref] if isinstance(ref, str) and ref in GROUPS else (get_claim(ref),)


def get_claim(ref: str | Claim) -> Claim:
    """The claim that `ref` denotes: a name of the catalog, `path/to/file.py:NAME` or `package.module:NAME`, or one.

    A file that is named is run.

    Raises:
        KeyError: No such name; those that exist are given.
        FileNotFoundError: No such file or module.
        ValueError: The file has no claim of that name. Where the file itself fails, a UserCodeError that names line and
            its own error.
    """
    if isinstance(ref, Claim):
        return ref
    if is_reference(ref):
        return _from_reference(ref)
    known = {claim.name: claim for claim in EVERY}
    if ref not in known:
        near = difflib.get_close_matches(ref, known, n=3)
        raise KeyError(
            f"unknown claim {ref!r}. {f'Nearest: {near}. ' if near else ''}Known: {', '.join(known)}; groups: "
            f"{', '.join(GROUPS)}. For a claim of your own give path/to/file.py:NAME"
        )
    return known[ref]


def _from_reference(ref: str) -> Claim:
    module, name, place = load(ref, "claim", "NAME")
    claim = vars(module).get(name)
    if not isinstance(claim, Claim):
        found = [key for key, value in vars(module).items() if isinstance(value, Claim)]
        what = "" if claim is None else f". {name} is of the class {type(claim).__qualname__}"
        raise ValueError(f"{place} has no claim {name!r}; claims in it: {found or 'none'}{what}")
    return claim
