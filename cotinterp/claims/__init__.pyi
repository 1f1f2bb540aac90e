"""The public names of `cotinterp.claims`, for type checkers and for the lazy import in `__init__.py`."""

from .catalog import CATALOG as CATALOG
from .catalog import get_claim as get_claim
from .cells import Cells as Cells
from .cells import MissingEvidence as MissingEvidence
from .cells import Values as Values
from .claim import Claim as Claim
from .claim import Control as Control
from .claim import Criterion as Criterion
from .claim import Rival as Rival
from .claim import Threshold as Threshold
from .depth_law import depth_verdicts as depth_verdicts
from .depth_law import judge_depth as judge_depth
from .depth_verdict import DepthVerdict as DepthVerdict
from .depth_verdict import DepthVerdicts as DepthVerdicts
from .judge import judge_all as judge_all
from .verdict import JudgedRival as JudgedRival
from .verdict import MeasuredCriterion as MeasuredCriterion
from .verdict import Verdict as Verdict
from .verdict import Verdicts as Verdicts
