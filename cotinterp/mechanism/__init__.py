"""How a model does it.

`Site` names a place in a model; `activations` reads there, `run_with` runs a model with `Edit`s there, and a `Contrast`
is two runs that differ in one thing. On these stand `patching` (which sites carry the difference), `probing` (what can
be read off them), `heads` (what single attention heads write, read and are needed for). `check_model` says whether a
model of any origin is wired as all of them assume.
"""

from cotinterp.mechanism.activations import Budget as Budget
from cotinterp.mechanism.activations import gradients as gradients
from cotinterp.mechanism.activations import stream_activations as stream_activations
from cotinterp.mechanism.contrast import Address as Address
from cotinterp.mechanism.contrast import Contrast as Contrast
from cotinterp.mechanism.interventions import Edit as Edit
from cotinterp.mechanism.interventions import InertEditError as InertEditError
from cotinterp.mechanism.interventions import ablate_mean as ablate_mean
from cotinterp.mechanism.interventions import ablate_resample as ablate_resample
from cotinterp.mechanism.interventions import ablate_zero as ablate_zero
from cotinterp.mechanism.interventions import knock_out as knock_out
from cotinterp.mechanism.interventions import patch as patch
from cotinterp.mechanism.interventions import run_with as run_with
from cotinterp.mechanism.interventions import steer as steer
from cotinterp.mechanism.metrics import Effects as Effects
from cotinterp.mechanism.metrics import NoGapError as NoGapError
from cotinterp.mechanism.metrics import logit_diff as logit_diff
from cotinterp.mechanism.metrics import normalized_effects as normalized_effects
from cotinterp.mechanism.model import HookedModel as HookedModel
from cotinterp.mechanism.model_check import ModelCheck as ModelCheck
from cotinterp.mechanism.model_check import check_model as check_model
from cotinterp.mechanism.sites import Site as Site
from cotinterp.mechanism.sites import head_sites as head_sites
from cotinterp.mechanism.sites import residual_sites as residual_sites
