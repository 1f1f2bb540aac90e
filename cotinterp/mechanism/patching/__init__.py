"""Which places, heads and paths carry the difference between two runs.

`patch_sweep` patches every site at every place, `path_sweep` one way at a time; `attribution_patch` estimates all cells
of a sweep from one gradient, and says how well. Their results share one base (`effects`), with the same baselines and a
`scan` that corrects for looking at many. `run_predictions` says what there is to explain, before anything is patched.
All take `(model, contrast, *, ...)`, with `PatchingControls` and a `Budget` where that is not enough.
"""

from cotinterp.mechanism.patching.attribution_patching import AttributionAgreement as AttributionAgreement
from cotinterp.mechanism.patching.attribution_patching import AttributionPatchingResult as AttributionPatchingResult
from cotinterp.mechanism.patching.attribution_patching import attribution_patch as attribution_patch
from cotinterp.mechanism.patching.effects import EffectsResult as EffectsResult
from cotinterp.mechanism.patching.effects import EffectsScan as EffectsScan
from cotinterp.mechanism.patching.path_patching import PathPatchingResult as PathPatchingResult
from cotinterp.mechanism.patching.path_patching import path_sweep as path_sweep
from cotinterp.mechanism.patching.paths import Path as Path
from cotinterp.mechanism.patching.paths import head_paths as head_paths
from cotinterp.mechanism.patching.run_predictions import FamilyPredictions as FamilyPredictions
from cotinterp.mechanism.patching.run_predictions import RunPredictions as RunPredictions
from cotinterp.mechanism.patching.run_predictions import family_predictions as family_predictions
from cotinterp.mechanism.patching.run_predictions import source as source
from cotinterp.mechanism.patching.run_predictions import would_decide as would_decide
from cotinterp.mechanism.patching.runs import Cell as Cell
from cotinterp.mechanism.patching.runs import PatchingControls as PatchingControls
from cotinterp.mechanism.patching.sweep import PatchedBothWays as PatchedBothWays
from cotinterp.mechanism.patching.sweep import PatchingResult as PatchingResult
from cotinterp.mechanism.patching.sweep import patch_both_ways as patch_both_ways
from cotinterp.mechanism.patching.sweep import patch_sweep as patch_sweep
