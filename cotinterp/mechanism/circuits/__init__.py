"""Circuits: which edges between components carry the difference between two runs.

`Graph` has every edge of a model. `edge_scores` says what each carries, patched exactly or estimated from gradients;
`edge_agreement` and `edge_auroc` hold estimates to exact patching and to edges that are known. `run_kept` runs a model
in which only some edges carry what the clean run would send, which is what a circuit is worth: `faithfulness_curve` by
size, `greedy_circuit` by trying each edge. Whether a set of edges is *the* circuit: `circuit_validity` holds it to five
tests, `circuit_stability` to other draws and runs, `circuit_transfer` to other contrasts, `rival_census` to others.
"""

from cotinterp.mechanism.circuits.agreement import EdgeAgreement as EdgeAgreement
from cotinterp.mechanism.circuits.agreement import EdgeAuroc as EdgeAuroc
from cotinterp.mechanism.circuits.agreement import edge_agreement as edge_agreement
from cotinterp.mechanism.circuits.agreement import edge_auroc as edge_auroc
from cotinterp.mechanism.circuits.faithfulness import FaithfulnessCurve as FaithfulnessCurve
from cotinterp.mechanism.circuits.faithfulness import faithfulness_curve as faithfulness_curve
from cotinterp.mechanism.circuits.faithfulness import greedy_circuit as greedy_circuit
from cotinterp.mechanism.circuits.graph import Edge as Edge
from cotinterp.mechanism.circuits.graph import Graph as Graph
from cotinterp.mechanism.circuits.graph import Node as Node
from cotinterp.mechanism.circuits.kept import kept_metrics as kept_metrics
from cotinterp.mechanism.circuits.kept import run_kept as run_kept
from cotinterp.mechanism.circuits.rivals import RivalCensus as RivalCensus
from cotinterp.mechanism.circuits.rivals import rival_census as rival_census
from cotinterp.mechanism.circuits.scores import EdgeScores as EdgeScores
from cotinterp.mechanism.circuits.scores import edge_scores as edge_scores
from cotinterp.mechanism.circuits.stability import CircuitStability as CircuitStability
from cotinterp.mechanism.circuits.stability import CircuitTransfer as CircuitTransfer
from cotinterp.mechanism.circuits.stability import circuit_stability as circuit_stability
from cotinterp.mechanism.circuits.stability import circuit_transfer as circuit_transfer
from cotinterp.mechanism.circuits.validity import CircuitValidity as CircuitValidity
from cotinterp.mechanism.circuits.validity import circuit_validity as circuit_validity
