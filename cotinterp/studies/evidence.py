"""What was measured on trained models, in one long table that is small enough to be kept beside the code.

A row says: so many `problems` of this cell had this `value` out of these `trials`. Problems that came out alike share a
row, so a table of thousands of answers takes two rows a cell, and redrawing problems from the rows is the same as
redrawing them from the answers. A cell's number is the sum of its values over the sum of its trials:

- a rate: value 0 or 1 (or how many of a problem's edits were followed), trials 1 (or how many there were);
- a mean: any value, trials 1;
- an effect: value the change, trials the gap that it is a share of.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Num

from cotinterp.results import output_folder, rows_html, short_repr, write_atomic
from cotinterp.results.atomic import believed
from cotinterp.tasks import Task
from cotinterp.tasks.definition import check_definition, check_one_definition

LABELS = ("task", "regime", "variant", "n_layers", "run_seed")
RUN = ("task", "regime", "variant", "run_seed")
"""What names a run."""
CELL = ("measure", "k", "step", "condition")
COUNTS = ("value", "trials", "problems")
COLUMNS = (*LABELS, *CELL, *COUNTS)
RUN_COLUMNS = (
    "task",
    "regime",
    "variant",
    "n_layers",
    "run_seed",
    "slug",
    "status",
    "final_loss",
    "train_accuracy",
    "note",
    "definition",
    "draw",
    "core_seconds",
)
RUN_NUMBERS = {
    **dict.fromkeys(("n_layers", "run_seed", "draw"), int),
    **dict.fromkeys(("final_loss", "train_accuracy", "core_seconds"), float),
}
EVIDENCE_FILE, RUNS_FILE = "evidence.csv", "runs.csv"
MEMORY_TASK = "random-labels"
"""The task without a rule: what a model gets right there is memory, a yardstick for the other tasks."""
REFUSED = "refused"
"""Measure of the row that says that another measure could not be taken of a subject, and why."""
CONVERGED_VARIANT, EARLY_VARIANT = "converged-n", "early"
"""Variants: trained until they had learned, on so many problems; and stopped early, so that they make errors."""
CONTROL_VARIANT = "-control"
"""Behind the name of a curriculum: the run of the same phases without content (`training.curriculum.control_of`)."""
WIDTH_VARIANT = "w"
"""Before the width of a model that is narrower than the standard one and was trained until it had learned."""
BEYOND, WITHOUT = "beyond", "without"
"""Conditions of `accuracy`: problems longer than those of training; asked without the trace that training gave."""
TEACHER_VARIANT = "teacher"
"""The model whose states a distilled one is drawn toward."""
POSITIONS_VARIANT = "positions-"
"""Before the scheme of positions of a model that is asked problems longer than those it was trained on."""
OTHER_START, SAME_START = "from-other-", "from-same-"
"""Begun from a model of another task, or from one of the same task that writes its trace in another format; behind it
what was trained of it: `all`, or an adapter. They have a number of updates, and what it is enough for is asked."""
ENCODER_VARIANT = "encoder"
"""A bidirectional model that names the answer as a label."""
SMALL_VARIANT, LARGE_VARIANT = "small", "large"
"""A small model that writes its steps and was stopped while it erred, and a much larger one that answers at once."""
BASE_VARIANT, REWARD_VARIANT, TWIN_VARIANT, DEALT_VARIANT = "base-", "grpo-", "twin-", "dealt-"
"""A model that was shown traces in some share (`base-10`: a tenth; `base-early`: all, and stopped early), and what was
begun from it: taught by reward on the answer alone, by more of the same transcripts, by rewards dealt out at random."""
CIRCUITS_VARIANT = "circuits"
"""A small model whose weights were kept on the way, beside which lies one of another seed."""
SEARCH_DRAWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Among how many sampled responses to each problem a vote is taken."""
CHOSEN_FROM = 8
"""Among how many of them a verifier chooses."""
Kind = Literal["behavior", "observation", "intervention"]
"""What a measure does: asks the model, looks into it, or changes something (a written total, a read, an activation) and
sees what follows. Only the last can say how an answer comes about."""
KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("probe", "probe_control", "auroc"), "observation"),
    **dict.fromkeys(("edit", "edit_by_step", "answer_prob", "answer_log_prob", "followed_prob"), "intervention"),
    **dict.fromkeys(("family_effect", "family_told_apart", "read_lost"), "intervention"),
    **dict.fromkeys(("probe_use", "probe_use_noise", "probe_use_whole"), "intervention"),
    **dict.fromkeys(("verifier_use", "verifier_use_whole", "head_effect"), "intervention"),
    **dict.fromkeys(("circuit_kept", "interchange", "states_carry"), "intervention"),
    **dict.fromkeys(("event", "stream_shared", "heads_shared"), "observation"),
}
"""By measure; all others are behavior."""
DIGITS = 4
"""Significant digits of values and trials that are kept: tables read back equal those that were written."""


@dataclass(frozen=True, kw_only=True)
class ProbeCondition:
    """Which probe: at which site and place, of which model (`trained`, `untrained`, `input`; none where it is used).

    The text is `trained|L2.resid_pre|equals`, or `L2.resid_pre|equals` without a model.
    """

    site: str
    place: str
    model: str = ""

    def __str__(self) -> str:
        """As the column `condition` has it."""
        return "|".join(filter(None, (self.model, self.site, self.place)))


@dataclass(frozen=True)
class EditCondition:
    """How a trace was edited, and what its answer does. The text is `swap:follows`."""

    edit: str
    outcome: str

    def __str__(self) -> str:
        """As the column `condition` has it."""
        return f"{self.edit}:{self.outcome}"


@dataclass(frozen=True)
class TraceCondition:
    """Which trace an answer is read after, and how it is asked for. The text is `edited:free`."""

    trace: str
    answered: str

    def __str__(self) -> str:
        """As the column `condition` has it."""
        return f"{self.trace}:{self.answered}"


@dataclass(frozen=True)
class ReadCondition:
    """Which read was cut, or as many random tokens instead. The text is `previous_total`, `random:previous_total`."""

    read: str
    random: bool = False

    def __str__(self) -> str:
        """As the column `condition` has it."""
        return f"random:{self.read}" if self.random else self.read


@dataclass(frozen=True)
class SearchCondition:
    """How a response was chosen: by which method, among how many, by which scorer. The text is `best-of-n|oracle|8`."""

    method: str
    draws: int = 1
    scorer: str = ""

    def __str__(self) -> str:
        """As the column `condition` has it."""
        return "|".join(filter(None, (self.method, self.scorer, str(self.draws))))


@dataclass(frozen=True)
class VerifierCondition:
    """Whose scores of steps: `probe`, `probe|untrained`, `probe|shuffled` (labels dealt out anew), `surface`."""

    scorer: str
    control: str = ""

    def __str__(self) -> str:
        """As the column `condition` has it."""
        return "|".join(filter(None, (self.scorer, self.control)))


def kinds_of(measures: Iterable[str]) -> tuple[Kind, ...]:
    """The kinds of these measures, each once: behavior, observation, intervention."""
    found = {KINDS.get(measure, "behavior") for measure in measures}
    return tuple(kind for kind in get_args(Kind) if kind in found)


Condition = str | ProbeCondition | EditCondition | TraceCondition | ReadCondition | SearchCondition | VerifierCondition
"""What else sets a cell apart: facts in memory, their text in the table. Nothing else writes that text."""


def tally(
    measure: str,
    values: Num[np.ndarray, " problems"],
    *,
    k: int,
    step: int = -1,
    condition: Condition = "",
    trials: Num[np.ndarray, " problems"] | None = None,
) -> pd.DataFrame:
    """The rows of one cell: `measure`, k, step, condition, value, trials, problems. No rows without problems.

    Args:
        values: One for each problem; what is summed.
        trials: One for each problem, what the sum is divided by the sum of; 1 each by default.
        step: -1 where the measure is of no step.
        condition: What else sets the cell apart, such as the side of the split.

    Raises:
        ValueError: Values or trials that are not finite: drop those problems, and count them in a cell of their own.
    """
    over = np.ones(len(values)) if trials is None else np.asarray(trials, dtype=float)
    if not (np.isfinite(values).all() and np.isfinite(over).all()):
        raise ValueError(f"{measure} ({condition}, k {k}, step {step}) has values or trials that are not finite")
    rows = pd.DataFrame({"value": _rounded(np.asarray(values, dtype=float)), "trials": _rounded(over)})
    counts = rows.groupby(["value", "trials"]).size().rename("problems").reset_index()
    return counts.assign(measure=measure, k=k, step=step, condition=str(condition))[[*CELL, *COUNTS]]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that claims are judged by: measurements, and the runs that they were to be made on.

    Attributes:
        table: The columns COLUMNS; `variant` is empty for the standard run of a task and regime, and says what differs
            for the others (`L1`: one layer; `n300`: 300 training problems).
        runs: The columns RUN_COLUMNS, a row for each run that was asked for. `status` is `finished`, `unconverged` (it
            does not answer its own training problems, or was ended by its budget), `incomplete` (a measure refused it)
            or `failed`; failed runs have no rows in `table`, the others have. `definition` says what the task was
            (`task_definition`); empty where that was not stored. `draw` says on which draw of problems it was measured:
            runs of one draw share their problems, and what those happen to be like. Seeds that no run is listed of
            share theirs.
            `core_seconds` is what its training took, on however busy a machine; empty where that was not stored.

    Raises:
        ValueError: A column is missing, a cell has no problems or a number that is not finite, or one name stands for
            two different tasks.
    """

    table: pd.DataFrame
    runs: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(RUN_COLUMNS)))

    def __post_init__(self) -> None:
        """Check the columns."""
        for name, frame, columns in (("table", self.table, COLUMNS), ("runs", self.runs, RUN_COLUMNS)):
            if missing := [column for column in columns if column not in frame.columns]:
                raise ValueError(f"evidence.{name} lacks the columns {missing}; it has {list(frame.columns)}")
        numbers = self.table[list(COUNTS)].to_numpy(dtype=float)
        wrong = ~np.isfinite(numbers).all(axis=1) | (numbers[:, 2] < 1)
        if wrong.any():
            row = self.table[wrong].iloc[0]
            raise ValueError(
                f"evidence.table: {row['measure']!r} of {row['task']!r}, {row['regime']!r}, seed {row['run_seed']} has "
                f"value {row['value']}, trials {row['trials']}, problems {row['problems']}; finite numbers and one "
                "problem at least are wanted"
            )
        check_one_definition(zip(self.runs["task"], self.runs["definition"], strict=True), "the evidence")

    def __repr__(self) -> str:
        return short_repr(self)

    def _repr_html_(self) -> str:
        """Runs by task and status, for a notebook."""
        counts = self.runs.groupby(["task", "regime", "status"], sort=True).size().reset_index(name="runs")
        return rows_html(self, [str(column) for column in counts], counts.itertuples(index=False), n=len(counts))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task that was measured, in alphabetical order."""
        return tuple(sorted(map(str, self.table["task"].unique())))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed that was measured, ascending."""
        return tuple(sorted(int(seed) for seed in self.table["run_seed"].unique()))

    def check_tasks(self, tasks: Iterable[Task]) -> None:
        """Raises ValueError where one of these tasks was measured when it was another one (`runs.definition`)."""
        for task in tasks:
            check_definition(task, self.runs.loc[self.runs["task"] == task.name, "definition"], "the evidence")

    def of_seeds(self, n: int) -> "Evidence":
        """The `n` lowest seeds alone. ValueError where there are not so many."""
        if not 1 <= n <= len(self.seeds):
            raise ValueError(f"{n} seeds were asked for; measured are {len(self.seeds)}: {list(self.seeds)}")
        kept = self.seeds[:n]
        return Evidence(self.table[self.table["run_seed"].isin(kept)], self.runs[self.runs["run_seed"].isin(kept)])

    def of_tasks(self, names: Iterable[str]) -> "Evidence":
        """What is about these tasks alone, and about `MEMORY_TASK`, with which they are compared."""
        kept = {*names, MEMORY_TASK}
        return Evidence(self.table[self.table["task"].isin(kept)], self.runs[self.runs["task"].isin(kept)])

    def updated(self, other: "Evidence") -> "Evidence":
        """This evidence, with every run of `other` in the place of one's own: all that was measured of it then goes."""
        again = {run for frame in (other.table, other.runs) for run in _runs_of(frame)}
        kept, runs = (frame[[run not in again for run in _runs_of(frame)]] for frame in (self.table, self.runs))
        return Evidence(pd.concat([kept, other.table], ignore_index=True), pd.concat([runs, other.runs]))

    def save(self, directory: Path | str) -> list[Path]:
        """Write evidence.csv (`cells_text`) and runs.csv under `directory`: equal evidence gives equal files."""
        folder = output_folder(directory)
        runs = self.runs[list(RUN_COLUMNS)].sort_values(list(LABELS), kind="stable")
        written = write_atomic(folder / EVIDENCE_FILE, cells_text(self.table, [*LABELS, *CELL]))
        return [written, write_atomic(folder / RUNS_FILE, runs.to_csv(index=False, lineterminator="\n"))]


def read_evidence(directory: Path | str) -> Evidence:
    """The evidence stored in a folder. FileNotFoundError, with the command that writes it, where there is none."""
    folder = Path(directory)
    if not (folder / EVIDENCE_FILE).is_file():
        raise FileNotFoundError(
            f"no {EVIDENCE_FILE} in {folder}. `cotinterp claims --from checkpoints --train --update-tables --tables "
            f"{folder}` trains and measures the models and writes it there"
        )
    remedy = "restore it, or measure again with --update-tables"
    with believed(folder / RUNS_FILE, remedy):
        runs = pd.read_csv(folder / RUNS_FILE, dtype=str, keep_default_na=False)
        # Stored before there were any; every seed was measured on the same problems then.
        runs = runs.assign(
            **{
                name: was
                for name, was in {"definition": "", "draw": "0", "core_seconds": ""}.items()
                if name not in runs
            }
        )
        for name, of in RUN_NUMBERS.items():
            runs[name] = pd.to_numeric(runs[name]).astype(of)
    with believed(folder / EVIDENCE_FILE, remedy):
        cells = read_cells((folder / EVIDENCE_FILE).read_text(encoding="utf-8"))
        return Evidence(cells, runs)


def _runs_of(frame: pd.DataFrame) -> list[tuple[str, str, str, int]]:
    return list(zip(*(frame[name].tolist() for name in RUN), strict=True))


def joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Several tables of rows as one; an empty table of those columns where there are none."""
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=[*CELL, *COUNTS])


def _rounded(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.array([float(f"{value:.{DIGITS}g}") for value in values.tolist()])


TYPES = {"n_layers": int, "run_seed": int, "k": int, "step": int}


def cells_text(table: pd.DataFrame, names: list[str]) -> str:
    """The rows of evidence as CSV text, a line for each cell in the order of `names`; equal evidence, equal text.

    The column `outcomes` lists value and number of problems, such as `0:36 1:964`. Where the trials are not 1 they
    stand between: `2/3:5` is five problems with 2 of 3. So the answers to a hundred thousand problems take a few
    hundred kilobytes, which git can keep and a reader can read.
    """
    ordered = table.sort_values([*names, "value", "trials"], kind="stable")
    outcomes = [
        f"{value:g}:{problems}" if trials == 1 else f"{value:g}/{trials:g}:{problems}"
        for value, trials, problems in zip(ordered["value"], ordered["trials"], ordered["problems"], strict=True)
    ]
    lines = ordered[names].assign(outcomes=outcomes).groupby(names, sort=False)["outcomes"].agg(" ".join)
    return lines.reset_index().to_csv(index=False, lineterminator="\n")


def read_cells(text: str) -> pd.DataFrame:
    """The rows again. ValueError for a line whose outcomes cannot be read."""
    lines = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)
    if "outcomes" not in lines.columns:
        raise ValueError(f"the table lacks the column outcomes; it has {list(lines.columns)}")
    names = [name for name in lines.columns if name != "outcomes"]
    if (twice := lines[lines.duplicated(names)]).size:
        raise ValueError(f"the cell {twice[names].iloc[0].to_dict()} stands twice: its problems would count twice")
    rows = lines.assign(outcome=lines["outcomes"].str.split(" ")).explode("outcome", ignore_index=True)
    parts = rows["outcome"].str.extract(r"^(?P<value>[^/:]+)(?:/(?P<trials>[^/:]+))?:(?P<problems>\d+)$")
    if (damaged := rows.loc[parts["value"].isna(), "outcome"]).size:
        raise ValueError(f"{damaged.iloc[0]!r} is no outcome: value:problems or value/trials:problems is expected")
    found = rows[names].astype({name: of for name, of in TYPES.items() if name in names})
    return found.assign(
        value=parts["value"].astype(float),
        trials=parts["trials"].fillna("1").astype(float),
        problems=parts["problems"].astype(int),
    )
