"""The three pictures that most tables need. Each takes a tidy table and column names and returns a plotly figure.

All are drawn for a page 1200 pixels wide, keep categories in the order given (of a categorical column, else of first
appearance), and use colors that survive color blindness: Okabe and Ito's for series, red to blue around a midpoint,
viridis for amounts. `KeyError` names a column that is missing; `ValueError` an empty table, or rows that would hide one
another.
"""

from cotinterp.results.plots.bars import stacked_bars as stacked_bars
from cotinterp.results.plots.heatmap import heatmap as heatmap
from cotinterp.results.plots.lines import lines as lines
from cotinterp.results.plots.panels import PALETTE as PALETTE
