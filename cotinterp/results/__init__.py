"""What every result shares: intervals, the three verbs, and files that are whole or absent.

Figures live one import away, in `cotinterp.results.plots`, so that this import loads neither plotly nor pandas.
"""

from cotinterp.results.atomic import output_folder as output_folder
from cotinterp.results.atomic import write_atomic as write_atomic
from cotinterp.results.intervals import Interval as Interval
from cotinterp.results.intervals import Intervals as Intervals
from cotinterp.results.intervals import bootstrap as bootstrap
from cotinterp.results.intervals import bootstrap_means as bootstrap_means
from cotinterp.results.intervals import wilson as wilson
from cotinterp.results.result import Result as Result
from cotinterp.results.result import with_labels as with_labels
