"""Which variables of the task a model carries, where, and in which subspace: what it writes once they change hands.

`das` learns a subspace by exchanging it and judges any subspace by what the model then writes; `causal` asks about
several variables at several sites beside everything that a search could find where there is nothing. Pairs and
counterfactuals are those of `transcripts.interchange_pairs`. `rebuilding` needs no pairs: it writes what variables
predict of an activation in its place.
"""

from cotinterp.mechanism.variables.causal import CausalVariables as CausalVariables
from cotinterp.mechanism.variables.causal import VariableRule as VariableRule
from cotinterp.mechanism.variables.causal import causal_variables as causal_variables
from cotinterp.mechanism.variables.das import SubspaceSearch as SubspaceSearch
from cotinterp.mechanism.variables.das import interchange_accuracy as interchange_accuracy
from cotinterp.mechanism.variables.das import learn_subspace as learn_subspace
from cotinterp.mechanism.variables.das import own_accuracy as own_accuracy
from cotinterp.mechanism.variables.rebuilding import Rebuilt as Rebuilt
from cotinterp.mechanism.variables.rebuilding import rebuilt as rebuilt
