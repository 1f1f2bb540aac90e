"""What can be read off activations by a linear probe, what that is worth, and whether the model uses it.

`totals` probes running totals everywhere, `fit` any targets on any features, each beside its `controls`; a `result`
holds every prediction, and its `scan` corrects for looking at many cells. `sample_size` asks whether a probe had enough
examples, `transfer` whether it reads another place or model, `alignment` whether it reads another model in this one's
basis, `use` whether the model reads what the probe reads, by edits within `subspaces`. `solver` and `lbfgs` fit the
regressions. Probes are called as `(model, batch, *, ...)`, with `Controls` and `FitOptions` where that is not enough.
"""

from cotinterp.mechanism.probing.alignment import Alignment as Alignment
from cotinterp.mechanism.probing.alignment import AlignmentResult as AlignmentResult
from cotinterp.mechanism.probing.alignment import align_streams as align_streams
from cotinterp.mechanism.probing.alignment import fit_alignment as fit_alignment
from cotinterp.mechanism.probing.controls import Controls as Controls
from cotinterp.mechanism.probing.controls import hold_out as hold_out
from cotinterp.mechanism.probing.coordinates import Coordinate as Coordinate
from cotinterp.mechanism.probing.coordinates import coordinates as coordinates
from cotinterp.mechanism.probing.fit import Target as Target
from cotinterp.mechanism.probing.fit import fit_probes as fit_probes
from cotinterp.mechanism.probing.linear_probe import LinearProbe as LinearProbe
from cotinterp.mechanism.probing.linear_probe import ProbedAt as ProbedAt
from cotinterp.mechanism.probing.linear_probe import fit_probe as fit_probe
from cotinterp.mechanism.probing.result import ProbeCell as ProbeCell
from cotinterp.mechanism.probing.result import ProbeResult as ProbeResult
from cotinterp.mechanism.probing.result import ProbeScan as ProbeScan
from cotinterp.mechanism.probing.sample_size import SampleSizeCurve as SampleSizeCurve
from cotinterp.mechanism.probing.sample_size import TrainAndTest as TrainAndTest
from cotinterp.mechanism.probing.sample_size import sample_size_curve as sample_size_curve
from cotinterp.mechanism.probing.solver import FitOptions as FitOptions
from cotinterp.mechanism.probing.solver import ProbeNotConverged as ProbeNotConverged
from cotinterp.mechanism.probing.subspaces import Subspace as Subspace
from cotinterp.mechanism.probing.subspaces import interchange as interchange
from cotinterp.mechanism.probing.totals import TotalTargets as TotalTargets
from cotinterp.mechanism.probing.totals import probe_places as probe_places
from cotinterp.mechanism.probing.totals import probe_totals as probe_totals
from cotinterp.mechanism.probing.totals import running_total as running_total
from cotinterp.mechanism.probing.transfer import TransferResult as TransferResult
from cotinterp.mechanism.probing.transfer import transfer_matrix as transfer_matrix
from cotinterp.mechanism.probing.transfer import transfer_totals as transfer_totals
from cotinterp.mechanism.probing.use import ProbeUse as ProbeUse
from cotinterp.mechanism.probing.use import RandomSubspaces as RandomSubspaces
from cotinterp.mechanism.probing.use import UseRule as UseRule
from cotinterp.mechanism.probing.use import probe_use as probe_use
