"""The pictures: a tidy table in, a plotly figure out. One palette, one sheet, one way of drawing each table.

A result's `figure()`, the report and a script draw a table with the same function, named after it. Generic charts are
`lines`, `stacked_bars` and `heatmap`. All are drawn for a page 1200 pixels wide, keep categories in the order given (of
a categorical column, else of first appearance), and use colors that survive color blindness: Okabe and Ito's for
series, red to blue around a midpoint, viridis for amounts. `KeyError` names a column that is missing; `ValueError` an
empty table, or rows that would hide one another.
"""

from cotinterp.figures.bars import stacked_bars as stacked_bars
from cotinterp.figures.behavior import accuracy_figure as accuracy_figure
from cotinterp.figures.behavior import errors_figure as errors_figure
from cotinterp.figures.edits import edit_kinds_figure as edit_kinds_figure
from cotinterp.figures.edits import trace_edits_figure as trace_edits_figure
from cotinterp.figures.heads import attribution_figure as attribution_figure
from cotinterp.figures.heads import head_figure as head_figure
from cotinterp.figures.heatmap import heatmap as heatmap
from cotinterp.figures.labels import RunKey as RunKey
from cotinterp.figures.lines import lines as lines
from cotinterp.figures.patching import families_figure as families_figure
from cotinterp.figures.patching import patching_figure as patching_figure
from cotinterp.figures.patching import patching_figures as patching_figures
from cotinterp.figures.probing import probe_figure as probe_figure
from cotinterp.figures.probing import probe_figures as probe_figures
from cotinterp.figures.sheet import PALETTE as PALETTE
from cotinterp.figures.sheet import NamedFigure as NamedFigure
from cotinterp.figures.sheet import write_figures as write_figures
