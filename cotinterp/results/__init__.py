"""What every result shares: intervals, the three verbs, and files that are whole or absent.

Figures live one import away, in `cotinterp.figures`, so that this import loads neither plotly nor pandas.
"""

from cotinterp.results.atomic import output_folder as output_folder
from cotinterp.results.atomic import single_name as single_name
from cotinterp.results.atomic import write_atomic as write_atomic
from cotinterp.results.intervals import Interval as Interval
from cotinterp.results.intervals import Intervals as Intervals
from cotinterp.results.intervals import bootstrap as bootstrap
from cotinterp.results.intervals import bootstrap_means as bootstrap_means
from cotinterp.results.intervals import wilson as wilson
from cotinterp.results.multiplicity import Simultaneous as Simultaneous
from cotinterp.results.multiplicity import exchange_test as exchange_test
from cotinterp.results.multiplicity import holm as holm
from cotinterp.results.multiplicity import max_statistic as max_statistic
from cotinterp.results.multiplicity import sign_flip_p as sign_flip_p
from cotinterp.results.multiplicity import simultaneous_half_width as simultaneous_half_width
from cotinterp.results.result import Result as Result
from cotinterp.results.result import facts_html as facts_html
from cotinterp.results.result import rows_html as rows_html
from cotinterp.results.result import short_repr as short_repr
from cotinterp.results.result import with_labels as with_labels
