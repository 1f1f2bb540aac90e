"""Questions about where a value is carried: the head, the place, the path."""

import numpy as np
import pandas as pd

from cotinterp.calibration.ground_truth import GroundTruth, InstrumentAnswer, K, Question, families_of
from cotinterp.mechanism.activations import at_positions
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.ablation import compare_ablations
from cotinterp.mechanism.heads.attribution import logit_attribution
from cotinterp.mechanism.heads.knock_outs import Cuts, knock_out_reads
from cotinterp.mechanism.heads.table import head_table
from cotinterp.mechanism.interventions import run_with
from cotinterp.mechanism.patching.attribution_patching import ALL_SITES, attribution_patch
from cotinterp.mechanism.patching.path_patching import path_sweep
from cotinterp.mechanism.patching.paths import Path
from cotinterp.mechanism.patching.runs import PatchingControls
from cotinterp.mechanism.patching.sweep import PatchingResult, patch_sweep
from cotinterp.mechanism.sites import Site
from cotinterp.studies.protocol import head_pairs
from cotinterp.transcripts.pairs import operand_pairs, written_total_pairs
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.roles import Role

ANY_GAP = PatchingControls(require_gap=False)
NOTABLE = 0.5
"""A cell counts as the carrier where it closes half of the gap and more."""


def contrast_of(family: str, model: GroundTruth, quick: bool) -> Contrast:
    """Total 2 under one of the four families of pairs."""
    return Contrast.from_pairs(families_of(model, 24 if quick else 60)[family])


def any_contrast(model: GroundTruth, quick: bool) -> Contrast:
    """Pairs in which everything that depends on an operand changes: every model that is right has a gap."""
    if model.writes_totals:
        return contrast_of("both", model, quick)
    rng = np.random.default_rng(0)
    pairs = operand_pairs(model.task, model.trained(24 if quick else 60), model.regime, index=1, rng=rng)
    return Contrast.from_pairs(pairs)


def identities(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Whether a self-patch is exactly 0, a full patch exactly 1, and attributions sum to the logit difference."""
    contrast = any_contrast(model, quick)
    baselines = patch_sweep(model.model, contrast, kinds=("resid_pre",), controls=ANY_GAP).baselines()
    zero, one = (float(baselines[name].effect[0]) for name in ("self", "full"))
    parts = logit_attribution(model.model, contrast)
    missed = float((parts.values.sum(0) - parts.logit_difference).abs().max())
    holds = zero == 0 and one == 1 and missed < 1e-3
    return InstrumentAnswer("yes" if holds else "no", f"self {zero:g}, full {one:g}, attributions miss by {missed:.1g}")


def heads_that_carry(family: str, model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """The heads whose z, patched at some place, closes half of the gap, among cells that the scan flags."""
    try:
        result = patch_sweep(
            model.model,
            contrast_of(family, model, quick),
            kinds=(),
            heads=True,
            controls=ANY_GAP,
        )
    except ValueError as error:
        return InstrumentAnswer("nothing changes", str(error).split(":")[0])
    return _carriers(result)


def written_total_heads(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Which heads carry a changed written total to the next one."""
    return heads_that_carry("written_total", model, quick)


def largest_cell(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """What sweeps of the first version say: the head of the largest effect, on pairs normalized by their own gap."""
    rng, readout = np.random.default_rng(0), (Role.TOTAL, 2)
    problems = model.heldout(24 if quick else 60)
    pairs = written_total_pairs(model.task, problems, model.regime, step=1, rng=rng, readout=readout)
    result = patch_sweep(model.model, Contrast.from_pairs(pairs), kinds=(), heads=True)
    effects = result.effects().effect
    best = int(np.abs(effects).argmax())
    named = result.cells[best].site.block if abs(effects[best]) >= NOTABLE else "none"
    return InstrumentAnswer(named, f"largest effect {effects[best]:.2f}")


def prompt_operand_heads(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Which heads carry a changed operand of the prompt to a total, under a fixed trace."""
    return heads_that_carry("prompt_operand", model, quick)


def places_read(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """From which place the total is fetched: places before the readout where the first residual stream carries it."""
    contrast = any_contrast(model, quick)
    result = patch_sweep(model.model, contrast, kinds=("resid_pre",), controls=ANY_GAP)
    scan = result.scan().frame()
    first = scan[(scan["layer"] == 0) & scan["flagged"] & (scan["effect"] >= NOTABLE)]
    names = [f"{role} {step}" if step >= 0 else role for role, step in zip(first["role"], first["step"], strict=True)]
    return InstrumentAnswer(", ".join(names) or "none", _largest(scan[scan["layer"] == 0]))


def path_of_the_total(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """How what the total head writes reaches the logits: straight, or through the MLP of its layer."""
    contrast = contrast_of("written_total", model, quick)
    site = Site.parse(f"{model.heads['total']}.z")
    direct, through = Path(site, "logits"), Path(site, Site("mlp_out", site.layer))
    result = path_sweep(model.model, contrast, (direct, through, Path(site, "any")), through_mlps=False)
    straight, by_mlp = result.of(direct), result.of(through)
    said = "MLP" if by_mlp >= NOTABLE > straight else "straight" if straight >= NOTABLE > by_mlp else "both or neither"
    return InstrumentAnswer(said, f"logits {straight:.2f}, MLP {by_mlp:.2f}")


def other_prompt_end(model: GroundTruth) -> Contrast:
    """The end of the prompt moved back by two places, so that the reader wants another total at the first step.

    Operands 1 and 2 are equal: which of the two is read does not show, which total is read does.
    """
    problems = solve(model.task, np.array([[a, b, b, c] for a, b, c in ((5, 3, 1), (1, 2, 0), (4, 1, 1), (2, 5, 3))]))
    batch = model.batch(problems)
    end, at = int(batch.where(Role.PROMPT_END)[0]), batch.where(Role.TRACE_START)
    corrupted = batch.tokens.clone()
    corrupted[:, [end - 2, end]] = batch.tokens[:, [end, end - 2]]
    runs = (batch.tokens, corrupted)
    answer, foil = (at_positions(run_with(model.model, tokens, []), at).argmax(dim=-1) for tokens in runs)
    return Contrast.by_position(*runs, at, answer, foil)


def input_acted_on(model: GroundTruth, _: bool) -> InstrumentAnswer:
    """Through which of its inputs the prompt-end head turns the total head: q, k or v."""
    sender, receiver = (Site.parse(f"{model.heads[name]}.z") for name in ("prompt end", "total"))
    paths = {kind: Path(sender, Site(kind, receiver.layer, receiver.head)) for kind in ("q", "k", "v")}
    result = path_sweep(model.model, other_prompt_end(model), tuple(paths.values()))
    found = {kind: result.of(path) for kind, path in paths.items()}
    said = ", ".join(kind for kind, effect in found.items() if effect >= NOTABLE)
    return InstrumentAnswer(said or "none", ", ".join(f"{kind} {effect:.2f}" for kind, effect in found.items()))


def gradient_at_saturation(model: GroundTruth, _: bool) -> InstrumentAnswer:
    """Whether the agreement beside the scores shows that they miss what turns a head of saturated attention."""
    contrast = other_prompt_end(model)
    true = patch_sweep(model.model, contrast, kinds=("q",))
    compared = attribution_patch(model.model, contrast, kinds=("q",)).agreement(true).frame().iloc[0]
    return InstrumentAnswer(
        "yes" if compared["max_difference"] >= NOTABLE else "no", f"off by {compared['max_difference']:.2f}"
    )


def gradient_finds_the_head(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Whether the cell that attribution patching ranks first is the one that true patching ranks first."""
    contrast = contrast_of("written_total", model, quick)
    true = patch_sweep(model.model, contrast, kinds=(), heads=True)
    estimate = attribution_patch(model.model, contrast, kinds=(), heads=True)
    agreement = estimate.agreement(true).frame()
    overall = agreement[agreement["sites"] == ALL_SITES].iloc[0]
    by_patch = true.cells[int(np.abs(true.effects().effect).argmax())]
    by_gradient = estimate.cells[int(np.abs(estimate.effects().effect).argmax())]
    first, said = by_patch.site.block, by_gradient.site.block
    said = said if by_gradient == by_patch else f"{said}, not {first}"
    return InstrumentAnswer(said, f"Spearman {overall['spearman']:.2f}")


def _carriers(result: PatchingResult) -> InstrumentAnswer:
    scan = result.scan().frame()
    found = scan[scan["flagged"] & (scan["effect"] >= NOTABLE)]
    heads = sorted({Site.parse(label).block for label in found["site"]})
    return InstrumentAnswer(", ".join(heads) or "none", _largest(scan))


def _largest(scan: pd.DataFrame) -> str:
    if not scan["effect"].notna().any():
        return f"no gap; told apart in {float(scan['distinguished'].iloc[0]):.0%} of the pairs"
    top = scan.iloc[int(np.nanargmax(scan["effect"].abs()))]
    return f"largest effect {top['effect']:.2f} at {top['site']}, {top['role']} {top['step']}"


def _carries_total(model: GroundTruth) -> str | None:
    """The reader's total head; in a recomputer, and where nothing was learned, nothing carries a written total."""
    if model.kind == "reader":
        return model.heads["total"]
    return "none" if model.writes_totals else None


def _carries_operand(model: GroundTruth) -> str | None:
    """The recomputer's head of operand 0; a reader does not look at the prompt of steps that are over."""
    if model.kind == "recomputer":
        return model.heads["operand 0"]
    return "none" if model.kind == "reader" else None


def _place(model: GroundTruth) -> str | None:
    if model.kind == "reader":
        return "total 1" if model.regime == "totals" else "previous_total 2"
    return {"recomputer": "operand 0", "parallel": "operand 1"}.get(model.kind)


def _right(model: GroundTruth) -> str | None:
    """Models that answer at all have a gap to normalize by."""
    return None if model.kind == "untrained" else "yes"


def _turned(model: GroundTruth) -> str | None:
    """Where to look is a matter of the query. In `cot` the same construction puts the step elsewhere."""
    return "q" if model.name == "reader (totals)" else None


def _saturated(model: GroundTruth) -> str | None:
    return "yes" if model.name == "reader (totals)" else None


def _total_head(model: GroundTruth) -> str | None:
    return model.heads["total"] if model.kind == "reader" else None


PATCHING_QUESTIONS = (
    Question(
        "identities", "self-patch 0, full patch 1, attributions sum to the logits?", _right, identities, identities
    ),
    Question(
        "patching", "which heads carry a written total to the next?", _carries_total, written_total_heads, largest_cell
    ),
    Question("patching", "which heads carry a prompt operand to a total?", _carries_operand, prompt_operand_heads),
    Question("patching", "from which place is it fetched?", _place, places_read),
    Question(
        "path patching",
        "does the total head write the answer itself, or through the MLP?",
        lambda model: "MLP" if model.kind == "reader" else None,
        path_of_the_total,
    ),
    Question("path patching", "through which input is the total head turned?", _turned, input_acted_on),
    Question("attribution patching", "which head do gradients rank first?", _total_head, gradient_finds_the_head),
    Question(
        "attribution patching",
        "does its agreement show that gradients miss a saturated query?",
        _saturated,
        gradient_at_saturation,
    ),
)


NEEDED = 0.5
UNNEEDED = 0.05


def next_total(model: GroundTruth, quick: bool) -> Contrast:
    """Total 3 with total 2 as written or another one: what the head table and the knock-outs are asked about."""
    return Contrast.from_pairs(head_pairs(model, 40 if quick else 100, k=K))


def total_readers(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """The heads that the table calls total readers or iteration heads."""
    table = head_table(model.model, next_total(model, quick)).frame()
    readers = table[table["label"].isin(["total reader", "iteration head"])]
    looking = table.iloc[int(table["attention_to_previous_total"].argmax())]
    return InstrumentAnswer(
        ", ".join(f"L{row['layer']}H{row['head']}" for _, row in readers.iterrows()) or "none",
        f"most attention to the previous total: L{looking['layer']}H{looking['head']} "
        f"({looking['attention_to_previous_total']:.2f}, labeled {looking['label']})",
    )


def flagged_heads(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """The heads whose knowledge of the problem total 3 needs, by the scan over all heads."""
    found = head_table(model.model, next_total(model, quick)).flagged()
    return InstrumentAnswer(
        ", ".join(site.block for site in found) or "none", "resampled, family error 5% over all heads"
    )


def constant_heads(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """The heads that total 3 needs for what they write in every problem: zero ablation finds them, resampling not."""
    table = compare_ablations(model.model, next_total(model, quick), methods=("resample", "zero")).frame()
    table = table.assign(
        block=[Site("z", layer, head).block for layer, head in zip(table["layer"], table["head"], strict=True)]
    )
    needed = table.pivot(index="block", columns="method", values="needed")
    found = sorted(needed.index[needed["zero"] & ~needed["resample"]])
    return InstrumentAnswer(
        ", ".join(found) or "none", f"needed by zero ablation: {', '.join(needed.index[needed['zero']])}"
    )


def needed_read(read: str, model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Whether cutting a read, everywhere and in all heads, costs the answer; both ways of cutting must agree."""
    result = knock_out_reads(model.model, next_total(model, quick), cuts=Cuts(dests=("readout",), scopes=("all",)))
    lost = [result.effect(read, dest="readout", method=method) for method in ("pattern", "resample")]
    random = result.effect(read, dest="readout", method="pattern", control="random sources")
    said = "needed" if min(lost) > NEEDED else "not needed" if max(map(abs, lost)) < UNNEEDED else "undecided"
    return InstrumentAnswer(said, f"lost {lost[0]:.2f} (pattern), {lost[1]:.2f} (values); random sources {random:.2f}")


def previous_total_needed(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Attention from where total 3 is computed to total 2 as written."""
    return needed_read("previous_total", model, quick)


def prompt_operands_needed(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Attention from where total 3 is computed to operands 0 to 2 of the prompt."""
    return needed_read("prompt_operands", model, quick)


def _readers(model: GroundTruth) -> str | None:
    if not model.writes_totals:
        return None
    return model.heads["total"] if model.kind == "reader" else "none"


def _flagged(model: GroundTruth) -> str | None:
    if not model.writes_totals:
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
    return {"reader": "needed", "recomputer": "not needed"}.get(model.kind) if model.writes_totals else None


def _needs_operands(model: GroundTruth) -> str | None:
    return {"reader": "not needed", "recomputer": "needed"}.get(model.kind) if model.writes_totals else None


HEAD_QUESTIONS = (
    Question("head labels", "which heads read the previous total?", _readers, total_readers, total_readers),
    Question("head scan", "whose knowledge of the problem does a total need?", _flagged, flagged_heads),
    Question("ablation methods", "which heads are needed for a constant?", _constant, constant_heads),
    Question("knock-outs", "is the written total before it needed?", _needs_total, previous_total_needed),
    Question("knock-outs", "are the earlier operands of the prompt needed?", _needs_operands, prompt_operands_needed),
)
