"""What follows from evidence: claims with their rivals and thresholds, and verdicts with their reasons.

`catalog` holds the claims on trial. `Cells` are the numbers that the statistics of a claim are functions of, `estimate`
gives them an interval over trained models and problems, and `judge` the verdict. `depth_law` judges which law of depth
the frontiers of a sweep follow. `session` is what the command does. Nothing here runs a model.
"""

from cotinterp.claims.catalog import CATALOG as CATALOG
from cotinterp.claims.catalog import get_claim as get_claim
from cotinterp.claims.cells import Cells as Cells
from cotinterp.claims.cells import MissingEvidence as MissingEvidence
from cotinterp.claims.cells import Values as Values
from cotinterp.claims.claim import Claim as Claim
from cotinterp.claims.claim import Control as Control
from cotinterp.claims.claim import Criterion as Criterion
from cotinterp.claims.claim import Rival as Rival
from cotinterp.claims.claim import Threshold as Threshold
from cotinterp.claims.depth_law import depth_verdicts as depth_verdicts
from cotinterp.claims.depth_law import judge_depth as judge_depth
from cotinterp.claims.depth_verdict import DepthVerdict as DepthVerdict
from cotinterp.claims.depth_verdict import DepthVerdicts as DepthVerdicts
from cotinterp.claims.judge import judge as judge
from cotinterp.claims.judge import judge_all as judge_all
from cotinterp.claims.verdict import JudgedRival as JudgedRival
from cotinterp.claims.verdict import MeasuredCriterion as MeasuredCriterion
from cotinterp.claims.verdict import Verdict as Verdict
from cotinterp.claims.verdict import Verdicts as Verdicts
from cotinterp.studies.evidence import Evidence as Evidence
from cotinterp.studies.evidence import read_evidence as read_evidence
from cotinterp.studies.evidence import tally as tally
