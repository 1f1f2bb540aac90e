"""What is computed: exact oracles, no model in sight."""

from cotinterp.tasks.check import check_task as check_task
from cotinterp.tasks.check import measure_commutative as measure_commutative
from cotinterp.tasks.definition import task_definition as task_definition
from cotinterp.tasks.folds import AffineMod10 as AffineMod10
from cotinterp.tasks.folds import BinaryCopy as BinaryCopy
from cotinterp.tasks.folds import DigitSum as DigitSum
from cotinterp.tasks.folds import Parity as Parity
from cotinterp.tasks.folds import PolynomialMod11 as PolynomialMod11
from cotinterp.tasks.groups import CyclicGroup as CyclicGroup
from cotinterp.tasks.groups import Group as Group
from cotinterp.tasks.groups import PermutationGroup as PermutationGroup
from cotinterp.tasks.pointers import Pointers as Pointers
from cotinterp.tasks.random_labels import RandomLabels as RandomLabels
from cotinterp.tasks.registry import get_task as get_task
from cotinterp.tasks.registry import register as register
from cotinterp.tasks.registry import task_names as task_names
from cotinterp.tasks.task import FoldTask as FoldTask
from cotinterp.tasks.task import PromptSymbol as PromptSymbol
from cotinterp.tasks.task import Steps as Steps
from cotinterp.tasks.task import Task as Task
from cotinterp.tasks.trees import ExpressionsMod11 as ExpressionsMod11
from cotinterp.tasks.trees import TreeTask as TreeTask
