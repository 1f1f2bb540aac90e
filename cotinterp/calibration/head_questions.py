"""Questions about heads: which are needed for what, and whether looking somewhere is taken for reading."""

import numpy as np

from cotinterp.calibration.ground_truth import GroundTruth
from cotinterp.calibration.questions import Answer, Question
from cotinterp.mechanism.heads.ablation_methods import compare_ablations
from cotinterp.mechanism.heads.knock_outs import knock_out_reads
from cotinterp.mechanism.heads.table import head_table
from cotinterp.transcripts.pairs import Pairs, written_total_pairs
from cotinterp.transcripts.regimes import get_regime
from cotinterp.transcripts.roles import Role

NEEDED = 0.5
UNNEEDED = 0.05


def next_total(model: GroundTruth, quick: bool) -> Pairs:
    """Total 3 with total 2 as written or another one: what the head table and the knock-outs are asked about."""
    problems = model.heldout(40 if quick else 100)
    readout = (Role.TOTAL, 3)
    return written_total_pairs(
        model.task, problems, model.regime, step=2, rng=np.random.default_rng(0), readout=readout, first_symbol=True
    )


def total_readers(model: GroundTruth, quick: bool) -> Answer:
    """The heads that the table calls total readers or iteration heads."""
    table = head_table(model.model, next_total(model, quick)).frame()
    readers = table[table["label"].isin(["total reader", "iteration head"])]
    looking = table.iloc[int(table["attention_to_previous_total"].argmax())]
    return Answer(
        ", ".join(f"L{row['layer']}H{row['head']}" for _, row in readers.iterrows()) or "none",
        f"most attention to the previous total: L{looking['layer']}H{looking['head']} "
        f"({looking['attention_to_previous_total']:.2f}, labeled {looking['label']})",
    )


def flagged_heads(model: GroundTruth, quick: bool) -> Answer:
    """The heads whose knowledge of the problem total 3 needs, by the scan over all heads."""
    found = head_table(model.model, next_total(model, quick)).flagged()
    return Answer(", ".join(site.block for site in found) or "none", "resampled, family error 5% over all heads")


def constant_heads(model: GroundTruth, quick: bool) -> Answer:
    """The heads that total 3 needs for what they write in every problem: zero ablation finds them, resampling not."""
    table = compare_ablations(model.model, next_total(model, quick), methods=("resample", "zero")).frame()
    needed = table.pivot(index="heads", columns="method", values="needed")
    found = sorted(needed.index[needed["zero"] & ~needed["resample"]])
    return Answer(", ".join(found) or "none", f"needed by zero ablation: {', '.join(needed.index[needed['zero']])}")


def needed_read(read: str, model: GroundTruth, quick: bool) -> Answer:
    """Whether cutting a read, everywhere and in all heads, costs the answer; both ways of cutting must agree."""
    result = knock_out_reads(model.model, next_total(model, quick), scopes=("all",), dests=("readout",))
    lost = [result.effect(read, dest="readout", method=method) for method in ("pattern", "resample")]
    random = result.effect(read, dest="readout", method="pattern", control="random sources")
    said = "needed" if min(lost) > NEEDED else "not needed" if max(map(abs, lost)) < UNNEEDED else "undecided"
    return Answer(said, f"lost {lost[0]:.2f} (pattern), {lost[1]:.2f} (values); random sources {random:.2f}")


def previous_total_needed(model: GroundTruth, quick: bool) -> Answer:
    """Attention from where total 3 is computed to total 2 as written."""
    return needed_read("previous_total", model, quick)


def prompt_operands_needed(model: GroundTruth, quick: bool) -> Answer:
    """Attention from where total 3 is computed to operands 0 to 2 of the prompt."""
    return needed_read("prompt_operands", model, quick)


def _writes_totals(model: GroundTruth) -> bool:
    return get_regime(model.regime).writes_totals


def _readers(model: GroundTruth) -> str | None:
    if not _writes_totals(model):
        return None
    return model.heads["total"] if model.kind == "reader" else "none"


def _flagged(model: GroundTruth) -> str | None:
    if not _writes_totals(model):
        return None
    named = {
        "reader": ["total", "operand"],
        "recomputer": [f"operand {i}" for i in range(4)],
        "untrained": [],
    }[model.kind]
    return ", ".join(sorted(model.heads[name] for name in named)) or "none"


def _constant(model: GroundTruth) -> str | None:
    """The head that finds the end of the prompt writes the number of operands, the same in problems of one length."""
    return model.heads["prompt end"] if model.kind in ("reader", "recomputer") else None


def _needs_total(model: GroundTruth) -> str | None:
    return {"reader": "needed", "recomputer": "not needed"}.get(model.kind) if _writes_totals(model) else None


def _needs_operands(model: GroundTruth) -> str | None:
    return {"reader": "not needed", "recomputer": "needed"}.get(model.kind) if _writes_totals(model) else None


HEAD_QUESTIONS = (
    Question("head labels", "which heads read the previous total?", _readers, total_readers, total_readers),
    Question("head scan", "whose knowledge of the problem does a total need?", _flagged, flagged_heads),
    Question("ablation methods", "which heads are needed for a constant?", _constant, constant_heads),
    Question("knock-outs", "is the written total before it needed?", _needs_total, previous_total_needed),
    Question("knock-outs", "are the earlier operands of the prompt needed?", _needs_operands, prompt_operands_needed),
)
