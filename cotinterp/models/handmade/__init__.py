"""Models whose mechanism is known because their weights were written by hand: the ground truth of the instruments.

`reader` and `recomputer` write the same transcripts; `lookup` and `parallel` give the same answers to the problems that
the first was given. Behavior there cannot tell them apart, so the instruments must. Each is exact on every problem of
its range of lengths (`lookup`: of its table), and its `*_blueprint` says which head and which residual direction does
what. `rotated` gives any native model in another basis: the same function, of which no direction is where it was.
"""

from cotinterp.models.handmade.blueprint import Blueprint as Blueprint
from cotinterp.models.handmade.lookup import lookup as lookup
from cotinterp.models.handmade.lookup import lookup_blueprint as lookup_blueprint
from cotinterp.models.handmade.parallel import parallel as parallel
from cotinterp.models.handmade.parallel import parallel_blueprint as parallel_blueprint
from cotinterp.models.handmade.reader import reader as reader
from cotinterp.models.handmade.reader import reader_blueprint as reader_blueprint
from cotinterp.models.handmade.recomputer import recomputer as recomputer
from cotinterp.models.handmade.recomputer import recomputer_blueprint as recomputer_blueprint
from cotinterp.models.handmade.rotated import random_rotation as random_rotation
from cotinterp.models.handmade.rotated import rotated as rotated
