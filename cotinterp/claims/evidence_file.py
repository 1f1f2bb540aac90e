"""Evidence on disk: a line for each cell, which says how many of its problems came out how.

`outcomes` lists value and number of problems, such as `0:36 1:964`; where the trials are not 1 they stand between, as
in `2/3:5`, five problems with 2 of 3. A table of answers to a hundred thousand problems is so a few hundred kilobytes
of text that git can keep and a reader can read.
"""

from io import StringIO

import pandas as pd

TYPES = {"n_layers": int, "seed": int, "k": int, "step": int}


def cells_text(table: pd.DataFrame, names: list[str]) -> str:
    """The rows of evidence as CSV text, a line for each cell in the order of `names`; equal evidence, equal text."""
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
