"""Which variables of the task a model carries, where, and in which subspace: what it writes once they change hands.

`alignment` learns a subspace by exchanging it and judges any subspace by what the model then writes; `causal`
asks about several variables at several sites beside everything that a search could find where there is nothing. Pairs
and counterfactuals are those of `transcripts.interchange_pairs`.
"""

from cotinterp.mechanism.variables.alignment import Alignment as Alignment
from cotinterp.mechanism.variables.alignment import align as align
from cotinterp.mechanism.variables.alignment import interchange_accuracy as interchange_accuracy
from cotinterp.mechanism.variables.alignment import own_accuracy as own_accuracy
from cotinterp.mechanism.variables.causal import CausalVariables as CausalVariables
from cotinterp.mechanism.variables.causal import VariableRule as VariableRule
from cotinterp.mechanism.variables.causal import causal_variables as causal_variables
