"""Bugs planted in the library, one at a time, and the control that must notice each.

A control that cannot fail controls nothing. For every control there is the mistake that it stands guard against, made
on purpose: without it the check passes, with it the check must fail. Most of these mistakes are silent otherwise:
numbers come out, and they look like numbers.
"""

from cotinterp.calibration.mutations.behavior import BEHAVIOR_MUTATIONS
from cotinterp.calibration.mutations.circuits import CIRCUIT_MUTATIONS
from cotinterp.calibration.mutations.claims import CLAIM_MUTATIONS
from cotinterp.calibration.mutations.dynamics import DYNAMICS_MUTATIONS
from cotinterp.calibration.mutations.interventions import INTERVENTION_MUTATIONS, PATCHING_MUTATIONS
from cotinterp.calibration.mutations.probing import PROBING_MUTATIONS
from cotinterp.calibration.mutations.routes import ROUTE_MUTATIONS
from cotinterp.calibration.mutations.search import SEARCH_MUTATIONS
from cotinterp.calibration.mutations.trial import Mutation as Mutation
from cotinterp.calibration.mutations.trial import MutationTrial as MutationTrial
from cotinterp.calibration.mutations.trial import trials_table as trials_table
from cotinterp.calibration.mutations.trial import try_mutation as try_mutation
from cotinterp.calibration.mutations.variables import VARIABLE_MUTATIONS

MUTATIONS = (
    *PROBING_MUTATIONS,
    *VARIABLE_MUTATIONS,
    *INTERVENTION_MUTATIONS,
    *PATCHING_MUTATIONS,
    *CIRCUIT_MUTATIONS,
    *ROUTE_MUTATIONS,
    *BEHAVIOR_MUTATIONS,
    *SEARCH_MUTATIONS,
    *DYNAMICS_MUTATIONS,
    *CLAIM_MUTATIONS,
)
"""All of them, by instrument."""
