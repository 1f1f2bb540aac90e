"""Questions about edges between components: which carry a value, whether they suffice, and what two copies hide."""

import numpy as np

from cotinterp.calibration.ground_truth import K_RANGE, GroundTruth, InstrumentAnswer, Question
from cotinterp.calibration.patching_questions import NOTABLE, any_contrast, contrast_of
from cotinterp.mechanism.circuits import Edge, EdgeScores, edge_scores, run_kept
from cotinterp.mechanism.metrics import normalized_effects
from cotinterp.models.handmade import reader
from cotinterp.transcripts.vocabulary import Vocabulary

FAITHFUL = 0.99
"""A circuit keeps the behavior where it keeps so much of the logit difference; handmade ones keep all of it."""


def edges_of_the_total(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """The edges by which a changed written total reaches the next one: those that each carry half of it and more."""
    return _said(edge_scores(model.model, contrast_of("written_total", model, quick)))


def edges_of_the_average(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """The edges by which a changed operand reaches the answer of a model that writes nothing else."""
    return _said(edge_scores(model.model, any_contrast(model, quick)))


def estimated_edges(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """The same edges, as many as are known, by the ranking of integrated gradients."""
    scores = edge_scores(model.model, contrast_of("written_total", model, quick), method="eap-ig")
    first = sorted(scores.top(3))
    return InstrumentAnswer(
        ", ".join(edge.label for edge in first), f"effects {[round(scores.of(e), 2) for e in first]}"
    )


def known_edges_suffice(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Whether a run that keeps the edges of the total head alone keeps the behavior, and none without one of them."""
    contrast = contrast_of("written_total", model, quick)
    edges = [Edge.parse(label) for label in _total_edges(model)]
    kept = [edges, *([edge for edge in edges if edge != missing] for missing in edges), []]
    *found, corrupted = (run_kept(model.model, contrast, some) for some in kept)
    clean = run_kept(model.model, contrast, edge_scores(model.model, contrast).edges)
    shares = normalized_effects(np.stack(found) - corrupted, clean - corrupted).effect
    holds = shares[0] >= FAITHFUL and np.abs(shares[1:]).max() <= 1 - FAITHFUL
    return InstrumentAnswer("yes" if holds else "no", f"{shares[0]:.2f}; without one edge {shares[1:].max():.2f}")


def sees_two_copies(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Which direction shows both of two heads that stand in for one another, asked of a reader with a backup."""
    contrast = contrast_of("written_total", model, quick)
    nothing = Vocabulary.of(model.task).symbols.index("#")
    changed = contrast.clean != contrast.corrupted
    lost = contrast.corrupted.masked_fill(changed, nothing)
    pair = type(contrast)(contrast.clean, lost, contrast.at, contrast.answer, contrast.foil, contrast.places)
    twin = reader(model.task, model.regime, K_RANGE, backup=True)
    copies = [f"embed->{model.heads['total']}.v", "embed->L1H2.v"]
    found = {way: edge_scores(twin, pair, direction=way) for way in ("noise", "denoise")}
    least = {way: min(scores.of(edge) for edge in copies) for way, scores in found.items()}
    said = ", ".join(way for way, effect in least.items() if effect >= NOTABLE)
    return InstrumentAnswer(said or "neither", ", ".join(f"{way} {effect:.2f}" for way, effect in least.items()))


def _said(scores: EdgeScores) -> InstrumentAnswer:
    effects = np.nan_to_num(scores.effects().effect)
    carriers = [edge.label for edge, effect in zip(scores.edges, effects, strict=True) if effect >= NOTABLE]
    best = int(np.abs(effects).argmax())
    return InstrumentAnswer(
        ", ".join(carriers) or "none", f"largest effect {effects[best]:.2f} at {scores.edges[best]}"
    )


def _total_edges(model: GroundTruth) -> tuple[str, ...]:
    head = model.heads["total"]
    return f"embed->{head}.v", f"{head}->L1.mlp", "L1.mlp->logits"


def _of_the_total(model: GroundTruth) -> str | None:
    if model.kind == "reader":
        return ", ".join(_total_edges(model))
    return "none" if model.kind == "recomputer" else None


def _of_the_average(model: GroundTruth) -> str | None:
    return "embed->L0H0.v, L0H0->L0.mlp, L0.mlp->logits" if model.kind == "parallel" else None


def _reader(answer: str, model: GroundTruth) -> str | None:
    return answer if model.kind == "reader" else None


CIRCUIT_QUESTIONS = (
    Question("edge patching", "by which edges does a written total reach the next?", _of_the_total, edges_of_the_total),
    Question(
        "edge patching",
        "by which edges does an operand reach the answer?",
        _of_the_average,
        edges_of_the_average,
    ),
    Question(
        "edge attribution",
        "which three edges do integrated gradients rank first?",
        lambda model: _of_the_total(model) if model.kind == "reader" else None,
        estimated_edges,
    ),
    Question(
        "circuits",
        "do the edges of the total keep the answer, and none without one of them?",
        lambda model: _reader("yes", model),
        known_edges_suffice,
    ),
    Question(
        "edge patching",
        "which direction shows two heads that stand in for one another?",
        lambda model: "denoise" if model.name == "reader (totals)" else None,
        sees_two_copies,
    ),
)
