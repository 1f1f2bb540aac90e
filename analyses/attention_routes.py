"""By which route does each head find the written total: by position, by symbol, or by what earlier parts wrote?

At the symbol that predicts the next total: which heads look at what is written before, what made them look there (the
contrast of their scores, split by the parts of the residual stream in query and key), and what they write straight to
the logits when they read a symbol (Elhage et al. 2021). A score of parts is no cause: `knock_outs` asks for that.

    python -m analyses.attention_routes [--quick]
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from analyses.publishing import publish, reference_runs
from cotinterp import Subject
from cotinterp.cli.parsing import script
from cotinterp.mechanism.heads import attention_routes, composition_scores, ov_circuits
from cotinterp.mechanism.heads.ov import OVResult
from cotinterp.mechanism.heads.routes import RouteResult
from cotinterp.studies.protocol import before_total
from cotinterp.transcripts.batch import Batch
from cotinterp.transcripts.regimes import Token
from cotinterp.transcripts.roles import Place, Role

ROOT, OUT, STEP = Path("checkpoints"), Path("out/attention_routes"), 2
READ = (Role.TOTAL, Role.PREVIOUS_TOTAL, Role.STEP_OPERAND, Role.OPERAND)
"""What the next total could be made of."""


def main(quick: bool = False, root: Path = ROOT, out: Path = OUT) -> list[str]:
    """Measure, publish, and return the answer in words."""
    tables: dict[str, list[pd.DataFrame]] = {"routes": [], "routes_by_kind": [], "ov": [], "composition": []}
    figures, lines = {}, []
    for run in reference_runs(root, regimes=("cot",)):
        subject, slug = Subject.of_run(run), run.spec.slug
        batch = subject.batch(subject.heldout(12 if quick else 200, k=4))
        for dest in destinations(batch):
            srcs = values_before(batch, dest)
            routes = attention_routes(run.model, batch, dest, srcs, labels=run.labels)
            read = {src: ov_circuits(run.model, batch, run.task, src, dest, labels=run.labels) for src in srcs}
            tables["routes"].append(routes.frame())
            tables["routes_by_kind"].append(routes.by_groups())
            tables["ov"] += [found.frame().assign(dest=routes.dest) for found in read.values()]
            figures[f"routes_{slug}_{routes.dest.replace(' ', '_')}"] = routes.figure()
            lines += [f"{run.task.name}, before {predicted(batch, dest)}:", *circuit(routes, list(read.values()))]
        composed = composition_scores(run.model, labels=run.labels)
        tables["composition"].append(composed.frame())
        figures[f"composition_{slug}"] = composed.figure()
        lines += strongest(composed.frame())
    joined = {name: pd.concat(frames, ignore_index=True) for name, frames in tables.items()}
    return publish(out, tables=joined, figures=figures, answer=lines)


def destinations(batch: Batch) -> list[Place]:
    """Where a written total is repeated, and where the next one is predicted: before total and previous total STEP."""
    tokens = batch.transcripts[0].tokens
    repeated = next(last for last, token in pairs(tokens) if (token.role, token.step) == (Role.PREVIOUS_TOTAL, STEP))
    return [(repeated.role, repeated.step), *before_total(batch.transcripts[0], STEP).values()]


def pairs(tokens: tuple[Token, ...]) -> Iterator[tuple[Token, Token]]:
    """Every token with the one behind it."""
    return zip(tokens, tokens[1:], strict=False)


def values_before(batch: Batch, dest: Place) -> list[Place]:
    """Totals and operands that stand up to the destination, in reading order."""
    tokens = [(token.role, token.step) for token in batch.transcripts[0].tokens]
    seen = dict.fromkeys(tokens[: tokens.index(dest) + 1])
    return [(role, step) for role, step in seen if role in READ]


def predicted(batch: Batch, dest: Place) -> str:
    """What is written behind the destination."""
    following = next(two for one, two in pairs(batch.transcripts[0].tokens) if (one.role, one.step) == dest)
    return f"{following.role.replace('_', ' ')} {following.step}"


def circuit(routes: RouteResult, read: list[OVResult]) -> Iterator[str]:
    """For every head that looks: what routed it, and what it writes when it reads a symbol there."""
    writes = {found.src: found for found in read}
    yield from () if routes.looking() else (f"    {routes.describe()[0]}.",)
    for head, src in routes.looking():
        asked, found = routes.route(head, src)
        yield f"    {routes.sentence(head, src)}. Routed by {found} (key), asked by {asked} (query)."
        yield f"        {writes[src].sentence(head)}."


def strongest(table: pd.DataFrame) -> Iterator[str]:
    """Of each input the pair of heads that composes most, beside chance."""
    for name, part in table.groupby("input"):
        top = part.iloc[int(np.argmax(part["score"]))]
        pair = f"{top['earlier']} to {top['later']}, {top['score']:.2f}; chance {top['chance']:.2f}"
        yield f"    {name}-composition: most {pair}"


if __name__ == "__main__":
    script(main, __doc__)
