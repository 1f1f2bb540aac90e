"""Circuits: which edges between components carry the difference between two runs.

`Graph` has every edge of a model. `run_kept` runs a model in which only some of them carry what the clean run would
send, which is what a circuit is worth; `kept_metrics` does so for many circuits at once.
"""

from cotinterp.mechanism.circuits.graph import Edge as Edge
from cotinterp.mechanism.circuits.graph import Graph as Graph
from cotinterp.mechanism.circuits.graph import Node as Node
from cotinterp.mechanism.circuits.kept import kept_metrics as kept_metrics
from cotinterp.mechanism.circuits.kept import run_kept as run_kept
