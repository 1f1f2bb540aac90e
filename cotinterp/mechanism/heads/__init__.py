"""What single attention heads write, read, and are needed for, at the readout of a contrast.

`head_table` sets the evidence side by side and labels each head. Its parts are instruments of their own:
`logit_attribution`, what each component writes; `compare_ablations`, what is lost without a set of heads;
`knock_out_reads`, what is lost without one of their reads (`ReadPattern`); `backup_heads`, which heads stand in for
which; `attention_by_role`, `iteration_scores` and `peakiness`, where heads look; `attention_routes`, what makes them
look there; `ov_circuits`, what they write to the logits when they read a symbol; `composition_scores`, which heads
could listen to which. Ablations and knock-outs share the modules `losses` and `attention_edits`. All take `(model,
contrast, *, ...)`, with `Draws` and `Cuts` where that is not enough; `peakiness` and `attention_routes`, which need
transcripts and no readout, take a batch.
"""

from cotinterp.mechanism.heads.ablation import AblationResult as AblationResult
from cotinterp.mechanism.heads.ablation import compare_ablations as compare_ablations
from cotinterp.mechanism.heads.attention import AttentionResult as AttentionResult
from cotinterp.mechanism.heads.attention import attention_by_role as attention_by_role
from cotinterp.mechanism.heads.attribution import AttributionMismatch as AttributionMismatch
from cotinterp.mechanism.heads.attribution import AttributionResult as AttributionResult
from cotinterp.mechanism.heads.attribution import logit_attribution as logit_attribution
from cotinterp.mechanism.heads.backups import BackupResult as BackupResult
from cotinterp.mechanism.heads.backups import backup_heads as backup_heads
from cotinterp.mechanism.heads.composition import CompositionResult as CompositionResult
from cotinterp.mechanism.heads.composition import composition_scores as composition_scores
from cotinterp.mechanism.heads.knock_outs import Cuts as Cuts
from cotinterp.mechanism.heads.knock_outs import KnockOutResult as KnockOutResult
from cotinterp.mechanism.heads.knock_outs import knock_out_reads as knock_out_reads
from cotinterp.mechanism.heads.labels import HEAD_LABELS as HEAD_LABELS
from cotinterp.mechanism.heads.labels import LabelRule as LabelRule
from cotinterp.mechanism.heads.labels import rule_text as rule_text
from cotinterp.mechanism.heads.losses import Draws as Draws
from cotinterp.mechanism.heads.matching import HeadMatches as HeadMatches
from cotinterp.mechanism.heads.matching import match_heads as match_heads
from cotinterp.mechanism.heads.ov import OVResult as OVResult
from cotinterp.mechanism.heads.ov import ov_circuits as ov_circuits
from cotinterp.mechanism.heads.read_scores import PeakinessResult as PeakinessResult
from cotinterp.mechanism.heads.read_scores import ReadScores as ReadScores
from cotinterp.mechanism.heads.read_scores import iteration_scores as iteration_scores
from cotinterp.mechanism.heads.read_scores import peakiness as peakiness
from cotinterp.mechanism.heads.reads import ReadPattern as ReadPattern
from cotinterp.mechanism.heads.reads import ReadTarget as ReadTarget
from cotinterp.mechanism.heads.reads import Source as Source
from cotinterp.mechanism.heads.routes import RouteMismatch as RouteMismatch
from cotinterp.mechanism.heads.routes import RouteResult as RouteResult
from cotinterp.mechanism.heads.routes import attention_routes as attention_routes
from cotinterp.mechanism.heads.table import HeadResult as HeadResult
from cotinterp.mechanism.heads.table import head_table as head_table
