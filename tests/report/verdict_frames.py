"""Two claims judged on two tasks: every verdict, every state of a criterion, and a run of each bad kind. Made up."""

import pandas as pd

from cotinterp.claims.verdict import JudgedRival, MeasuredCriterion, State, Verdict, Verdicts, Word

SHIFTS = (-0.04, -0.01, 0.0, 0.02, 0.03)
NAN = float("nan")
STATEMENTS = {
    "gap-widens": "The advantage of writing the trace grows with the number of operands.",
    "direct-is-lookup": "A model that answers at once has stored its training problems.",
}
RIVAL = {"supported": "contradicted", "partly supported": "open", "not supported": "stands", "inconclusive": "open"}


def measured(name: str, rule: str, estimate: float, half: float, state: State) -> MeasuredCriterion:
    """A criterion of five seeds around `estimate`; `rule` is its side and threshold, as in `above 0.1`."""
    predicted, threshold = rule.split()
    return MeasuredCriterion(
        name=name,
        words=f"what {name} is",
        unit="" if name == "ratio" else "points",
        threshold=float(threshold),
        predicted="below" if predicted == "below" else "above" if predicted == "above" else "",
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        p_above=0.004,
        p_below=0.996,
        state=state,
        n=5000,
        by_seed={} if state == "not measured" else {seed: estimate + shift for seed, shift in enumerate(SHIFTS)},
        detectable=2 * half,
        note="no such cell" if state == "not measured" else "",
    )


def verdict(claim: str, task: str, word: Word, *criteria: MeasuredCriterion) -> Verdict:
    """A verdict with the numbers of its first criterion."""
    first = criteria[0]
    return Verdict(
        claim=claim,
        task=task,
        verdict=word,
        statement=STATEMENTS[claim],
        effect=first.estimate,
        ci_low=first.low,
        ci_high=first.high,
        unit=first.unit,
        n=first.n,
        seeds=first.seeds,
        threshold=first.threshold,
        p=0.004,
        controls="learned 88.0 points passes (above 20.0 points)",
        rivals=(JudgedRival("parallel algorithm", RIVAL[word]), JudgedRival("luck", "open")),
        reason=f"{first.name} is {first.state}.",
        evidence=("accuracy", "trace_edits"),
        criteria=criteria,
    )


def made_up_verdicts() -> Verdicts:
    """The whole set."""
    advantage, slope, ratio = "above 0.1", "above 0.02", "below 0.5"
    run = {
        "task": "s3",
        "regime": "direct",
        "variant": "L1",
        "n_layers": 1,
        "slug": "s3-direct-0f0f0f0f",
        "definition": "",
        "draw": 0,
        "core_seconds": 60.0,
    }
    bad = [
        run
        | {"run_seed": 3, "status": "unconverged", "final_loss": 1.25, "train_accuracy": 0.31, "note": "right on 31%"},
        run
        | {"run_seed": 4, "status": "failed", "final_loss": NAN, "train_accuracy": NAN, "note": "stopped at step 10"},
    ]
    return Verdicts(
        (
            verdict(
                "gap-widens",
                "digit-sum",
                "supported",
                measured("advantage", advantage, 0.62, 0.05, "holds"),
                measured("slope", slope, 0.11, 0.01, "holds"),
            ),
            verdict(
                "direct-is-lookup",
                "digit-sum",
                "not supported",
                measured("ratio", ratio, 0.81, 0.06, "fails"),
                measured("cliff", "none 0.3", 0.05, 0.02, "below"),
            ),
            verdict(
                "gap-widens",
                "s3",
                "partly supported",
                measured("advantage", advantage, 0.31, 0.04, "holds"),
                measured("slope", slope, -0.01, 0.004, "fails"),
            ),
            verdict(
                "direct-is-lookup",
                "s3",
                "inconclusive",
                measured("ratio", ratio, 0.46, 0.2, "open"),
                measured("cliff", "none 0.3", NAN, NAN, "not measured"),
            ),
        ),
        pd.DataFrame(bad),
    )
