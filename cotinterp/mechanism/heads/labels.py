"""What a head is called, and by which rule: labels as data, so that the report can print them beside the table.

A label that says "reader" needs three kinds of evidence about one prediction: the head looks there before it, without
the head it suffers, and it suffers already when this head alone is given another problem's values from just there.
Attention weight alone is not evidence, nor is a head's being needed for something else. A label sums up these numbers
on one contrast; it shows no mechanism.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cotinterp.mechanism.heads.losses import (
    FAMILY_ERROR,
    LEAST_EXAMPLES,
    MATTERS,
    UNDECIDED,
    means,
    relative,
    simultaneous,
    unit_of,
)
from cotinterp.mechanism.heads.read_scores import ReadScores
from cotinterp.mechanism.heads.reads import NEXT_OPERAND_READ, PREVIOUS_TOTAL_READ
from cotinterp.mechanism.metrics import EPS
from cotinterp.results import bootstrap
from cotinterp.results.multiplicity import Simultaneous

HeadMeasure = Literal[
    "n",
    "n_used",
    "clean_low",
    "prefers_answer",
    "ablation_effect",
    "ablation_low",
    "ablation_high",
    "ablation_p",
    "attribution_share",
    "attribution_low",
    "attribution_high",
    "previous_total",
    "previous_total_low",
    "next_operand",
    "next_operand_low",
    "total_read_effect",
    "total_read_low",
    "operand_read_effect",
    "operand_read_low",
]
Relation = Literal[">", ">=", "<", "<="]

MEASURES: Mapping[HeadMeasure, str] = {
    "n": "examples that have another of their template to be resampled from",
    "n_used": f"of these, with a clean logit difference of {EPS:g} or more, of which a loss is a share",
    "clean_low": "lower end of the 95% interval of the mean clean logit difference (logits)",
    "prefers_answer": "share of the examples whose clean logit difference is positive",
    "ablation_effect": "mean loss of logit difference under resample ablation, over the mean clean logit difference",
    "ablation_low": "lower end of its 95% interval, simultaneous over all heads (max-statistic)",
    "ablation_high": "upper end of that interval",
    "ablation_p": "p-value of an ablation effect of 0, adjusted for all heads (max-statistic)",
    "attribution_share": "mean direct logit attribution, over the mean clean logit difference",
    "attribution_low": "lower end of its 95% interval, simultaneous over all heads (max-statistic)",
    "attribution_high": "upper end of that interval",
    "previous_total": "attention to the previous total from the readout, (mass - chance) / (1 - chance)",
    "previous_total_low": "lower end of its 95% interval, simultaneous over all heads (max-statistic)",
    "next_operand": "attention to the next operand from the readout, (mass - chance) / (1 - chance)",
    "next_operand_low": "lower end of its 95% interval, simultaneous over all heads (max-statistic)",
    "total_read_effect": "mean loss when what the head moves from the previous total is another problem's, as above",
    "total_read_low": "lower end of its 95% interval, simultaneous over the heads that look there (max-statistic)",
    "operand_read_effect": "mean loss when what the head moves from the next operand is another problem's, as above",
    "operand_read_low": "lower end of its 95% interval, simultaneous over the heads that look there (max-statistic)",
}

LOOKS = 0.5
"""Half of what a head that looks nowhere else shows; the mass is then above one half, more than all else together."""
LOOKS_AT_BOTH = 0.25
"""The same for a head that has to divide its attention evenly between two sets of tokens: half of one half."""
WRITES = 0.10
"""A tenth of the logit difference written directly: more than an even share in a model of more than ten heads."""

SEPARATES = 0.75
"""Half way from guessing between answer and foil (1/2) to always preferring the answer."""

_RELATIONS: Mapping[Relation, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


@dataclass(frozen=True)
class LabelCondition:
    """One comparison of a measure of the head with a threshold; false where the measure is NaN."""

    measure: HeadMeasure
    relation: Relation
    threshold: float

    def holds(self, evidence: Mapping[HeadMeasure, float]) -> bool:
        """Whether the evidence meets the condition."""
        return _RELATIONS[self.relation](evidence[self.measure], self.threshold)

    def __str__(self) -> str:
        return f"{self.measure} {self.relation} {self.threshold:g}"


@dataclass(frozen=True)
class LabelRule:
    """A label, what it says about the head, and the conditions that must all hold for it."""

    label: str
    meaning: str
    conditions: tuple[LabelCondition, ...] = ()

    def holds(self, evidence: Mapping[HeadMeasure, float]) -> bool:
        """Whether all conditions are met."""
        return all(condition.holds(evidence) for condition in self.conditions)

    def __str__(self) -> str:
        return f"{self.label}: {' and '.join(map(str, self.conditions)) or 'otherwise'} ({self.meaning})"


NEEDED = (LabelCondition("ablation_low", ">=", MATTERS), LabelCondition("ablation_p", "<=", FAMILY_ERROR))
USES_TOTAL = (LabelCondition("total_read_low", ">=", MATTERS),)
USES_OPERAND = (LabelCondition("operand_read_low", ">=", MATTERS),)
UNDETERMINED = "undetermined"
READER_LABELS = frozenset({"iteration head", "total reader", "operand reader"})

HEAD_LABELS: tuple[LabelRule, ...] = (
    LabelRule(
        UNDECIDED,
        "too few examples of one template to say anything; give more problems",
        (LabelCondition("n", "<", float(LEAST_EXAMPLES)),),
    ),
    LabelRule(
        UNDETERMINED,
        "the model does not tell answer from foil here, so there is nothing to attribute or to lose",
        (LabelCondition("clean_low", "<", EPS),),
    ),
    LabelRule(
        UNDETERMINED,
        "the model prefers the answer in too few examples: a mean carried by some of them is no account of the task",
        (LabelCondition("prefers_answer", "<", SEPARATES),),
    ),
    LabelRule(
        UNDECIDED,
        "too few of the examples have a logit difference that could be lost; give more problems",
        (LabelCondition("n_used", "<", float(LEAST_EXAMPLES)),),
    ),
    LabelRule(
        "iteration head",
        "divides its attention between the previous total and the next operand, and is needed for what both say",
        (
            LabelCondition("previous_total_low", ">=", LOOKS_AT_BOTH),
            LabelCondition("next_operand_low", ">=", LOOKS_AT_BOTH),
            *NEEDED,
            *USES_TOTAL,
            *USES_OPERAND,
        ),
    ),
    LabelRule(
        "total reader",
        "looks at the previous total and is needed for what it finds there",
        (LabelCondition("previous_total_low", ">=", LOOKS), *NEEDED, *USES_TOTAL),
    ),
    LabelRule(
        "operand reader",
        "looks at the next operand and is needed for what it finds there",
        (LabelCondition("next_operand_low", ">=", LOOKS), *NEEDED, *USES_OPERAND),
    ),
    LabelRule(
        "answer writer",
        "writes the answer directly and is needed, but not for what it finds at either",
        (LabelCondition("attribution_low", ">=", WRITES), *NEEDED),
    ),
    LabelRule(
        "inert",
        "alone neither needed nor writing: its interval is small and holds zero (other heads may stand in for it)",
        (
            LabelCondition("ablation_p", ">", FAMILY_ERROR),
            LabelCondition("ablation_low", "<=", 0.0),
            LabelCondition("ablation_high", ">=", 0.0),
            LabelCondition("ablation_low", ">=", -MATTERS),
            LabelCondition("ablation_high", "<=", MATTERS),
            LabelCondition("attribution_high", "<=", MATTERS),
            LabelCondition("attribution_low", ">=", -MATTERS),
        ),
    ),
    LabelRule("mixed", "none of the above: needed for something else, harmful, or not measured closely enough"),
)


def label_head(evidence: Mapping[HeadMeasure, float], rules: Sequence[LabelRule] = HEAD_LABELS) -> str:
    """Label of the first rule all of whose conditions hold. ValueError if none does."""
    for rule in rules:
        if rule.holds(evidence):
            return rule.label
    raise ValueError(f"no rule covers {dict(evidence)}; end the rules with one that has no conditions.")


def rule_text(rules: Sequence[LabelRule] = HEAD_LABELS) -> str:
    """The rules in order, first match wins, and what each measure is: what a report prints below the table."""
    measures = "\n".join(f"  {name}: {meaning}" for name, meaning in MEASURES.items())
    return "\n".join(f"{number}. {rule}" for number, rule in enumerate(rules, start=1)) + f"\nwhere\n{measures}"


def head_evidence(
    clean: Float[Tensor, " batch"],
    attribution: Float[Tensor, "head batch"],
    lost: Float[Tensor, "head batch"],
    reads: ReadScores,
    read_lost: Mapping[str, Float[Tensor, "head batch"]],
) -> list[dict[HeadMeasure, float]]:
    """The `MEASURES` of each head; `reads` is its attention from the readout.

    `read_lost[read]`: what is lost when the values that a head moves along that read are another problem's, with rows
    of NaN for heads that do not look there (see `heads_that_look`), whose use of the read was not asked for.
    """
    needed = relative(lost, clean)
    written = relative(attribution, clean)
    lossy, writing, unit = simultaneous(needed), simultaneous(written), unit_of(lost, clean)
    separated = clean[unit.used].double().numpy()
    names = (PREVIOUS_TOTAL_READ.name, NEXT_OPERAND_READ.name)
    total, operand = (simultaneous(attention_above_chance(reads, name)) for name in names)
    total_use, operand_use = (_use(read_lost[name], clean) for name in names)
    return [
        {
            "n": float((~lost.isnan().any(dim=0)).sum()),
            "n_used": float(unit.n),
            "clean_low": bootstrap(separated).low if unit.n > 1 else 0.0,
            "prefers_answer": float((clean > 0).double().mean()),
            "ablation_effect": float(means(needed)[head]),
            "ablation_low": float(lossy.low[head]),
            "ablation_high": float(lossy.high[head]),
            "ablation_p": float(lossy.p[head]),
            "attribution_share": float(means(written)[head]),
            "attribution_low": float(writing.low[head]),
            "attribution_high": float(writing.high[head]),
            "previous_total": float(total.mean[head]),
            "previous_total_low": float(total.low[head]),
            "next_operand": float(operand.mean[head]),
            "next_operand_low": float(operand.low[head]),
            "total_read_effect": float(total_use.mean[head]),
            "total_read_low": float(total_use.low[head]),
            "operand_read_effect": float(operand_use.mean[head]),
            "operand_read_low": float(operand_use.low[head]),
        }
        for head in range(len(attribution))
    ]


def heads_that_look(reads: ReadScores, read: str) -> list[int]:
    """The heads that look at a read at least as much as one that divides its attention between two reads."""
    found: list[int] = np.flatnonzero(means(attention_above_chance(reads, read)) >= LOOKS_AT_BOTH).tolist()
    return found


def _use(lost: Float[Tensor, "head batch"], clean: Float[Tensor, " batch"]) -> Simultaneous:
    """Simultaneous over the heads whose read was knocked out; NaN for the others."""
    asked = ~lost.isnan().all(dim=1).numpy()
    found = simultaneous(relative(lost[asked], clean))
    rows = np.full((4, len(lost)), np.nan)
    rows[:, asked] = (found.mean, found.low, found.high, found.p)
    return Simultaneous(*rows)


def attention_above_chance(reads: ReadScores, read: str) -> Float[np.ndarray, "head n"]:
    """Attention above chance to what the read names, for each example that has such a token; no examples without."""
    return reads.each_above_chance(read).flatten(end_dim=1).double().numpy()
