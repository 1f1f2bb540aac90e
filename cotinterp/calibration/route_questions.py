"""Questions about how heads find what they read, what they write, and whether another basis is another model."""

import torch

from cotinterp.calibration.ground_truth import GroundTruth, InstrumentAnswer, Question
from cotinterp.mechanism.heads.matching import match_heads
from cotinterp.mechanism.heads.ov import ov_circuits
from cotinterp.mechanism.heads.routes import attention_routes
from cotinterp.mechanism.probing.alignment import MAPS, align_streams
from cotinterp.mechanism.sites import Site
from cotinterp.models.build import Bridge
from cotinterp.models.handmade import random_rotation, rotated
from cotinterp.studies.protocol import FAMILIES_STEP, before_total
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.roles import Place, Role

STEP = FAMILIES_STEP
ALIKE, UNLIKE = 0.99, 0.5
"""Streams are the same where one explains so much of the other, and are not where it explains less than half."""


def asked(model: GroundTruth, quick: bool) -> tuple[Batch, Place]:
    """Held-out problems, and the place that predicts total STEP."""
    batch = model.batch(model.heldout(60 if quick else 200))
    ((place),) = before_total(batch.transcripts[0], STEP).values()
    return batch, place


def route_of(name: str, model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """What routes a named head to the place that it looks at most."""
    batch, dest = asked(model, quick)
    head = Site.parse(f"{model.heads[name]}.z")
    result = attention_routes(model.model, batch, dest)
    most = int(result.attention[:, head.layer, head.head].mean(dim=-1).argmax())
    query, key = result.route(head, result.srcs[most])
    return InstrumentAnswer(f"{key}, asked for by {query}", result.sentence(head, result.srcs[most]))


def route_of_total(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """What routes the head that reads the previous total."""
    return route_of("total", model, quick)


def route_of_prompt_end(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """What routes the head that finds the end of the prompt."""
    return route_of("prompt end", model, quick)


def copying_heads(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """The heads that write the symbol that they read straight to its logit."""
    batch, dest = asked(model, quick)
    result = ov_circuits(model.model, batch, model.task, (Role.TOTAL, STEP - 1), dest)
    table = result.frame()
    found = [f"L{row.layer}H{row.head}" for row in table.itertuples() if row.label != "nothing"]
    return InstrumentAnswer(", ".join(found) or "none", f"largest spread of logits {table['spread'].max():.2f}")


def another_basis(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Whether the model in another basis is the same by a rotation, and by that alone."""
    batch, place = asked(model, quick)
    other = turned(model)
    site = Site("resid_post", int(model.model.cfg.n_layers) - 1)
    result = align_streams({"it": model.model, "turned": other}, batch, [(*place, STEP)], sites=[site])
    found = {how: result.of("it", "turned", site, how).r_squared for how in MAPS}
    same = found["rotation"] > ALIKE and max(found["identity"], found["shuffled"]) < UNLIKE
    return InstrumentAnswer(
        "by a rotation alone" if same else "not", ", ".join(f"{how} {share:.2f}" for how, share in found.items())
    )


def heads_again(model: GroundTruth, quick: bool) -> InstrumentAnswer:
    """Which of its named heads are matched with themselves in another basis, by where they look."""
    batch, place = asked(model, quick)
    result = match_heads(model.model, turned(model), batch, [place, (Role.PROMPT_END, -1)], by="pattern")
    own = [Site.parse(f"{name}.z") for name in model.heads.values()]
    alike = [result.similarity[result.heads.index(head)] for head in own]
    said = "all of them" if min(alike) > ALIKE else "not all"
    return InstrumentAnswer(said, f"least similarity to its match {min(alike):.2f}")


def turned(model: GroundTruth) -> Bridge:
    """A copy in a basis drawn at random; a layer norm's mean stays where it is."""
    inner = model.model
    assert isinstance(inner, Bridge)
    keeps_mean = inner.cfg.normalization_type is not None
    rotation = random_rotation(int(inner.cfg.d_model), torch.Generator().manual_seed(0), keeps_mean=keeps_mean)
    return rotated(inner, rotation)


def _total_route(model: GroundTruth) -> str | None:
    """Its first MLP names the position that is wanted."""
    return "position, asked for by mlps" if model.kind == "reader" else None


def _end_route(model: GroundTruth) -> str | None:
    """Everywhere alike it wants one symbol."""
    return "symbol, asked for by biases" if model.kind in ("reader", "recomputer") else None


def _copying(model: GroundTruth) -> str | None:
    """What handmade heads move goes to directions of its own, from where MLPs take it."""
    return "none" if model.writes_totals and model.kind != "untrained" else None


def _same(model: GroundTruth) -> str | None:
    return "by a rotation alone" if model.writes_totals else None


def _again(model: GroundTruth) -> str | None:
    return "all of them" if model.kind in ("reader", "recomputer") else None


ROUTE_QUESTIONS = (
    Question("attention routes", "what routes the head that reads the previous total?", _total_route, route_of_total),
    Question("attention routes", "what routes the head that finds the prompt's end?", _end_route, route_of_prompt_end),
    Question("OV circuits", "which heads write a symbol that they read straight out?", _copying, copying_heads),
    Question("alignment", "is the model in another basis the same?", _same, another_basis),
    Question("head matching", "are its heads found again in another basis?", _again, heads_again),
)
