"""Does next-token training break where a third of the demonstrations reason, and does a reward rescue what it broke?

After arXiv 2510.11495: a base begins a trace as often as it was shown one, and greedily, where every symbol counts the
same, from a share of a third on; reward on the answer alone then makes its responses longer. From each base reward, and
the same mixture again (its twin). Stated beforehand: it breaks where bases of all shares below are within NEAR of
chance, greedily, of all above at HIGH (agrees); or one below is at HIGH, or one above near chance (differs). Reward
rescues where at a share below it is at HIGH, the interval of its gain over the twin above GAIN (agrees); or at none
that interval reaches GAIN (differs). Else, below three seeds, and where bases above a third err in their traces, one
cannot tell. Means over seeds, 95% intervals by Student's t.

    python -m analyses.rewards [--quick] [--root ROOT] [--table FILE]
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from analyses.publishing import of_each_run, over_seeds, phase_of, publish
from cotinterp import Subject, get_task
from cotinterp.behavior.search.methods import METHODS
from cotinterp.cli.parsing import script
from cotinterp.figures import lines
from cotinterp.training.checkpoints import Run
from cotinterp.training.progress import METRICS_FILE, read_metrics
from cotinterp.training.spec_file import read_spec
from cotinterp.transcripts.regimes import get_regime

OUT, KEYS, NEAR, HIGH, GAIN, LEAST_SEEDS = Path("out/rewards"), ["task", "share", "phase"], 0.1, 0.9, 0.2, 3


def main(quick: bool = False, root: Path | None = None, table: Path | None = None, out: Path = OUT) -> list[str]:
    """Measure the runs under `root`, or read `table`, publish, and return the answer in words; `quick`: tiny runs."""
    by_run = of_each_run("rewards_parity", measured, quick, root, table, 300, "rewards").reset_index(drop=True)
    spread = by_run[by_run["decoding"] == "greedy"].groupby(KEYS)["right"].agg(["mean", "min", "max"]).reset_index()
    log = by_run[by_run["decoding"] == "log"].assign(share=by_run["share"].map("{:g}".format))
    lengths = log.groupby([*KEYS, "update"])["length"].mean().reset_index()
    right = lines(spread, x="share", y="mean", low="min", high="max", color="phase", title="Right, by share of traces")
    figures = {"right": right.update_yaxes(title_text="right greedily: mean, lowest and highest seed", range=(0, 1))}
    figures["length"] = lines(lengths, x="update", y="length", color="share", facet="phase", title="Symbols written")
    answer = [*rates(by_run), broke(by_run), rescued(by_run)]
    return publish(out, tables={"by_run": by_run}, figures=figures, answer=answer)


def measured(run: Run, problems: int) -> pd.DataFrame:
    """Two rows of one run, greedy and drawn at temperature 1, and of a rewarded one a row for each line of its log."""
    spec, subject, rng, rows = run.spec, Subject.of_run(run), np.random.default_rng(0), []
    for name in ("greedy", "sample"):
        asked = subject.batch(subject.heldout(problems))
        found = METHODS[name](run.model, run.task, asked, None, spec.model.n_ctx, rng=rng).examples()
        begun, right, length = found["text"].str.startswith("{"), found["correct"], found["written"].mean()
        rows.append({"decoding": name, "begun": begun.mean(), "length": length, "right": right.mean()})
        rows[-1] |= {"right_with": right[begun].mean(), "right_without": right[~begun].mean()}
    log = read_metrics(run.directory / METRICS_FILE) if spec.rewards else []
    rows += [{"decoding": "log", "update": x["step"], "right": x["right"], "length": x["response_length"]} for x in log]
    base = spec if spec.start_from is None else read_spec(run.directory.parent / spec.start_from)[0]
    share = sum(one.share for one in base.mix if get_regime(one.regime).writes_totals)
    return pd.DataFrame(rows).assign(task=spec.task_name, share=share, phase=phase_of(spec), run_seed=spec.seed)


def rates(by_run: pd.DataFrame) -> Iterator[str]:
    """A line by share and phase."""
    for (task, share, phase), rows in by_run.groupby(KEYS):
        greedy, drawn = (rows[rows["decoding"] == name] for name in ("greedy", "sample"))
        of, right = drawn[["begun", "right_with", "right_without", "length"]].mean(), greedy["right"]
        seeds = f"right {right.mean():.2f} ({right.min():.2f} to {right.max():.2f}, {len(right)} seeds)"
        rest = f"right with it {of['right_with']:.2f}, without {of['right_without']:.2f}, {of['length']:.1f} symbols"
        begun = f"a trace in {greedy['begun'].mean():.0%}; drawn: in {of['begun']:.0%}, "
        yield f"{task}, share {share:g}, {phase}: {seeds}, {begun}{rest}"


def broke(by_run: pd.DataFrame) -> str:
    """The first rule."""
    base, near = by_run[by_run["phase"] == "base"], 1 / get_task(by_run["task"].iloc[0]).n_states + NEAR
    right = base[base["decoding"] == "greedy"].groupby("share")["right"].agg(["mean", "size"])
    below, above = right.loc[right.index < 1 / 3, "mean"].max(), right.loc[right.index > 1 / 3, "mean"].min()
    traces = base[(base["decoding"] == "sample") & (base["share"] > 1 / 3)].groupby("share")["right_with"].mean()
    words = {"agrees": below <= near and above >= HIGH, "differs": below >= HIGH or above <= near}
    known = right["size"].min() >= LEAST_SEEDS and (traces >= HIGH).all()
    word = next((one for one, so in words.items() if so and known), "cannot tell")
    return f"next-token training breaks near a third: at most {below:.2f} below, at least {above:.2f} above: {word}"


def rescued(by_run: pd.DataFrame) -> str:
    """The second rule."""
    low = by_run[(by_run["decoding"] == "greedy") & (by_run["share"] < 1 / 3)]
    right = low.pivot_table(index=["share", "run_seed"], columns="phase", values="right")[["rewards", "twin"]].dropna()
    by_share, gains = right.groupby("share"), (right["rewards"] - right["twin"]).groupby("share")
    found = pd.DataFrame({share: over_seeds(of.to_numpy()) for share, of in gains}, index=["gain", "low", "high"]).T
    up = found.index[(found["low"] > GAIN) & (by_share["rewards"].mean() >= HIGH)]
    words = {f"agrees, at {', '.join(map('{:g}'.format, up))}": len(up) > 0, "differs": (found["high"] < GAIN).all()}
    word = next((one for one, so in words.items() if so and by_share.size().min() >= LEAST_SEEDS), "cannot tell")
    cells = [f"{row.gain:+.2f} [{row.low:+.2f}, {row.high:+.2f}] at {row.Index:g}" for row in found.itertuples()]
    return f"reward rescues below a third, beyond its twin: {', '.join(cells)}: {word}"


if __name__ == "__main__":
    script(main, __doc__)
