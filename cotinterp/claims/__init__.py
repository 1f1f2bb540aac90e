"""From measurements to judgments: claims as values, evidence as tables, verdicts with their reasons."""

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
from cotinterp.claims.judge import judge as judge
from cotinterp.claims.judge import judge_all as judge_all
from cotinterp.claims.verdict import MeasuredCriterion as MeasuredCriterion
from cotinterp.claims.verdict import Verdict as Verdict
from cotinterp.claims.verdict import Verdicts as Verdicts
from cotinterp.studies.evidence import Evidence as Evidence
from cotinterp.studies.evidence import read_evidence as read_evidence
from cotinterp.studies.evidence import tally as tally
