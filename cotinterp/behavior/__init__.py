"""What a model does: exact decoding and sampling, accuracy, where outputs go wrong, edits of the trace, memorization.

Each instrument is called as `(model, task, regime, problems, *, ...)` and returns a frozen result. `Decoding` says how
much a model may write. Nothing here looks inside the model.
"""

from cotinterp.behavior.accuracy import AccuracyResult as AccuracyResult
from cotinterp.behavior.accuracy import Output as Output
from cotinterp.behavior.accuracy import accuracy_by_k as accuracy_by_k
from cotinterp.behavior.accuracy import evaluate_run as evaluate_run
from cotinterp.behavior.accuracy import evaluation_problems as evaluation_problems
from cotinterp.behavior.accuracy import store_evaluation as store_evaluation
from cotinterp.behavior.decoding import Decoding as Decoding
from cotinterp.behavior.decoding import LanguageModel as LanguageModel
from cotinterp.behavior.decoding import greedy as greedy
from cotinterp.behavior.decoding import prefixes as prefixes
from cotinterp.behavior.decoding import verified as verified
from cotinterp.behavior.decoding import verified_greedy as verified_greedy
from cotinterp.behavior.edit_kinds import ALL_EDITS as ALL_EDITS
from cotinterp.behavior.edit_kinds import EditKind as EditKind
from cotinterp.behavior.edit_kinds import SubstituteTotal as SubstituteTotal
from cotinterp.behavior.edit_kinds import all_edits as all_edits
from cotinterp.behavior.edits import EditAnswer as EditAnswer
from cotinterp.behavior.edits import EditResult as EditResult
from cotinterp.behavior.edits import Outcome as Outcome
from cotinterp.behavior.edits import trace_edits as trace_edits
from cotinterp.behavior.errors import CORRECT_ANSWER as CORRECT_ANSWER
from cotinterp.behavior.errors import Category as Category
from cotinterp.behavior.errors import ErrorResult as ErrorResult
from cotinterp.behavior.errors import categories as categories
from cotinterp.behavior.errors import classify as classify
from cotinterp.behavior.errors import diagnose as diagnose
from cotinterp.behavior.errors import error_taxonomy as error_taxonomy
from cotinterp.behavior.generalization import GeneralizationResult as GeneralizationResult
from cotinterp.behavior.generalization import SizeCurve as SizeCurve
from cotinterp.behavior.generalization import generalization_by_k as generalization_by_k
from cotinterp.behavior.generalization import size_specs as size_specs
from cotinterp.behavior.invariance import InvarianceResult as InvarianceResult
from cotinterp.behavior.invariance import permutation_invariance as permutation_invariance
from cotinterp.behavior.marginal import MarginalResult as MarginalResult
from cotinterp.behavior.marginal import answer_marginal as answer_marginal
from cotinterp.behavior.readiness import ReadinessResult as ReadinessResult
from cotinterp.behavior.readiness import answer_readiness as answer_readiness
from cotinterp.behavior.sampling import SampledResponse as SampledResponse
from cotinterp.behavior.sampling import Samples as Samples
from cotinterp.behavior.sampling import sample_continuations as sample_continuations
from cotinterp.behavior.sampling import sample_responses as sample_responses
from cotinterp.behavior.tagging import TagResult as TagResult
from cotinterp.behavior.tagging import tag_accuracy as tag_accuracy
