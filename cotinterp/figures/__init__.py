"""The pictures: a tidy table in, a plotly figure out. One palette, one sheet, one way of drawing each table.

All are drawn for a page 1200 pixels wide, keep categories in the order given (of a categorical column, else of first
appearance), and use colors that survive color blindness: Okabe and Ito's for series, red to blue around a midpoint,
viridis for amounts. `KeyError` names a column that is missing; `ValueError` an empty table, or rows that would hide one
another.
"""

from cotinterp.figures.bars import stacked_bars as stacked_bars
from cotinterp.figures.heatmap import heatmap as heatmap
from cotinterp.figures.lines import lines as lines
from cotinterp.figures.sheet import PALETTE as PALETTE
