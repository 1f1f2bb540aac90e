"""What an explorer can be asked about trained models, as requests and answers that are plain data.

`Explorer` holds the models. A `Scene` says what one of them is shown and what is changed: a problem, one written total,
heads and edges knocked out, activations copied from another scene. The page of the server and the widget of a notebook
send the same requests (`Explorer.answer`) as numbers and a few fixed words; nothing in a request is a path or code, and
every number in an answer is that of the call which stands beside it as Python.
"""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor

from cotinterp.behavior.accuracy import longest_k
from cotinterp.behavior.edits import outcome_of
from cotinterp.behavior.search.methods import METHODS
from cotinterp.behavior.search.scoring import SCORERS
from cotinterp.behavior.search.writer import Search
from cotinterp.explore.held import Held, continued_by, device_of, likeliest_of, read, token_ids, tokens_named
from cotinterp.explore.python_calls import calls_of, edges_call, look_call, probe_call, run_call, spend_call
from cotinterp.explore.requests import (
    FORMS,
    Difference,
    Draw,
    EdgeCut,
    HeadCut,
    Patch,
    Place,
    Scene,
    Shown,
    Spending,
    parsed,
)
from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.circuits.scores import EdgeScores, edge_scores
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.attribution import AttributionResult, logit_attribution
from cotinterp.mechanism.interventions import Edit, ablate_zero, knock_out_pairs, patch, run_with
from cotinterp.mechanism.model import HookedModel
from cotinterp.mechanism.probing.controls import Controls
from cotinterp.mechanism.probing.fit import MIN_TEST, MIN_TRAIN
from cotinterp.mechanism.probing.result import ProbeCell
from cotinterp.mechanism.probing.solver import FitOptions
from cotinterp.mechanism.probing.totals import probe_totals
from cotinterp.mechanism.sites import Site
from cotinterp.models.decoding import context_length
from cotinterp.studies.subject import Subject
from cotinterp.training.checkpoints import DEFAULT_ROOT, Run, load_run
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.parsing import final_answer
from cotinterp.transcripts.problems import (
    EmptySplitError,
    Problem,
    sample_problems,
    solve,
    split_of,
    substitute_total,
)
from cotinterp.transcripts.regimes import Token, get_regime
from cotinterp.transcripts.render import Transcript, render
from cotinterp.transcripts.roles import Role

MOST_MODELS = 8
MOST_EDGES = 12
PROBED = (600, 200)
"""Problems that a probe is fitted on (training side of the split) and tested on (held out)."""


class _Seen(NamedTuple):
    """What one pass over a text shows, for every layer: attention, residual streams and the logit lens of those."""

    patterns: Float[Tensor, "layer head dest src"]
    streams: Float[Tensor, "layer pos d_model"]
    lens: Float[Tensor, "layer pos d_vocab"]


class Explorer:
    """Trained models that can be asked, side by side.

    Args:
        models: What `load_run` gives, or subjects of one's own: any TransformerLens-style model with a task and a
            regime (`Subject`; its `variant` is the name that is shown). All may differ in task.

    Raises:
        ValueError: No models, more than MOST_MODELS, or one whose tokens are not the symbols of its task.
    """

    def __init__(self, models: Sequence[Run | Subject]) -> None:
        if not 1 <= len(models) <= MOST_MODELS:
            raise ValueError(f"an explorer takes 1 to {MOST_MODELS} models, got {len(models)}")
        self.runs = tuple(models)
        self._models = tuple(map(Held.of, models))
        for held in self._models:
            n, symbols = int(held.model.cfg.d_vocab), held.vocabulary.symbols
            if n != len(symbols):
                raise ValueError(
                    f"{held.name} has {n} tokens, and task {held.task.name!r} {len(symbols)} symbols "
                    f"({''.join(symbols)}): the tokens of a model must be the symbols of its task, in that order"
                )
        # Hooks belong to a model and a server has several threads, so one request runs at a time. Fitting probes takes
        # longer than all else: where a model can be loaded twice it has one, and a lock, of its own.
        self._lock, self._fitting = threading.RLock(), threading.Lock()
        self._copies: dict[int, HookedModel] = {}
        self._written = lru_cache(maxsize=256)(self._write)
        self._seen = lru_cache(maxsize=64)(self._see)
        self._parts = lru_cache(maxsize=256)(self._direct)
        self._plain = lru_cache(maxsize=64)(self._unchanged)
        self._probes = lru_cache(maxsize=64)(self._fit)
        self._spent = lru_cache(maxsize=64)(self._spend)
        self._edged = lru_cache(maxsize=64)(self._compare)

    @classmethod
    def load(cls, *slugs: str, root: Path = DEFAULT_ROOT, device: str = "cpu", task: str | None = None) -> "Explorer":
        """Of these checkpoints (`load_run`)."""
        return cls([load_run(slug, root=root, device=device, task=task) for slug in slugs])

    def __repr__(self) -> str:
        return f"Explorer({', '.join(held.name for held in self._models)})"

    # What can be asked, each a method of the name in `answer`.

    def about(self) -> dict[str, Any]:
        """The models: id, slug, task, regime, sizes, symbols, and how many operands they can be asked about."""
        return {"models": [_about(index, held) for index, held in enumerate(self._models)]}

    def draw(self, request: Draw) -> dict[str, Any]:
        """A held-out problem, or one of the training side where none of this length is held out. ValueError else."""
        run = self._held(request.model)
        rng = np.random.default_rng([request.seed, request.k])
        try:
            (problem,) = sample_problems(run.task, request.k, 1, split="heldout", rng=rng)
        except EmptySplitError:
            (problem,) = sample_problems(run.task, request.k, 1, split="train", rng=rng)
        return {"operands": list(problem.operands)}

    def write(self, scene: Scene) -> dict[str, Any]:
        """What the model writes in this scene, token by token, and what became of the answer.

        `p` of a token is its probability given the tokens before it, under the scene's changes; `likeliest` are the
        three that were likeliest there. `expected` and `outcome` are those of `trace_edits`: what a reader of the shown
        trace would answer (`follows`), what the prompt asks for (`ignores`), or neither (`other`); without an edited
        total `right` or `wrong`. `source` is an answer that is wrong here and that of a run which a patch comes from.
        """
        return self._written(scene)

    def grid(self, scene: Scene) -> dict[str, Any]:
        """The logit lens at every layer and position, and what the scene's changes moved there.

        `symbol`, `p`: the likeliest next symbol if `resid_post` of that layer went straight to the final norm and the
        unembedding (nostalgebraist 2020), and its probability. `moved`: how far `resid_post` is from what the same
        tokens make without the changes, as a share of its norm there; what the changes cannot reach stays at 0.
        """
        run, seen = self._held(scene.model), self._seen(scene)
        p, best = seen.lens.max(dim=-1)
        symbols, tokens = run.vocabulary.symbols, self._tokens(scene)[0].tolist()
        plain = self._plain(scene.model, run.vocabulary.decode(tokens)) if scene.changes else seen.streams
        moved = (seen.streams - plain).norm(dim=-1) / plain.norm(dim=-1)
        return {
            "symbol": [[symbols[token] for token in row] for row in best.tolist()],
            "p": p.tolist(),
            "moved": moved.tolist(),
        }

    def look(self, place: Place) -> dict[str, Any]:
        """What can be said of one position: attention of each head, the logit lens by layer, direct contributions.

        `attention` is `layer head src`, from this position (`dest`); `by_role` the same, summed over the `n` positions
        that have one role (`attention_by_role`), `layer head` each. `direct`: what each component writes directly to
        logit[answer] - logit[foil], the two likeliest symbols here, largest first; together they are `difference`
        (`logit_attribution`, without the scene's changes). An indirect effect is none of it.
        """
        scene, position = place.scene, place.position
        tokens, run = self._tokens(scene), self._held(scene.model)
        _require_position(position, tokens.shape[1])
        seen = self._seen(scene)
        symbols, text = run.vocabulary.symbols, run.vocabulary.decode(tokens[0].tolist())
        direct, answer, foil = self._parts(scene.model, text, position)
        attention = seen.patterns[:, :, position, : position + 1]
        return {
            "attention": attention.tolist(),
            "by_role": self._by_role(scene, attention),
            "lens": [likeliest_of(row, symbols) for row in seen.lens[:, position]],
            "answer": symbols[answer],
            "foil": symbols[foil],
            "direct": direct.top(len(direct.components)),
            "difference": float(direct.logit_difference[0]),
            "python": look_call(run.setup, text, self._calls(scene), position, (answer, foil), run.n_layers),
        }

    def probes(self, place: Place) -> dict[str, Any]:
        """What a linear probe reads of each running total at this position, layer by layer.

        The probes are those of `probe_totals` for this role and step, fitted on problems of the training side as the
        model should write them, tested on held-out ones; `accuracy` and `selectivity` (accuracy minus that of a control
        task) say how far to believe `reads`, what they read here. Decodable is not used. Totals that stand written
        before this place are left out.
        """
        run, key = self._held(place.scene.model), self._probed(place)
        with self._fitting:
            cells = self._probes(place.scene.model, *key)
        sites = [Site.parse(cell.at.label) for cell in cells]
        with self._lock:
            tokens = self._tokens(place.scene)
            found = read(run, tokens, self._edits(place.scene, tokens.shape[1]), sites)
        rows = []
        for cell, site in zip(cells, sites, strict=True):
            assert cell.probe is not None
            state = int(cell.probe.predict(found[site][:, place.position])[0])
            facts = cell.summary()
            rows.append(
                {
                    "site": site.label,
                    "total": int(cell.target.removeprefix("s_")),
                    "reads": run.task.state_text(state),
                    "accuracy": float(facts["accuracy"]),
                    "selectivity": float(facts["selectivity"]),
                }
            )
        return {"probes": rows, "python": probe_call(run.setup, *key, PROBED)}

    def edges(self, asked: Difference) -> dict[str, Any]:
        """Which edges carry what tells two runs apart at one position, largest first (`edge_scores`, exact, noising).

        Answer and foil are the likeliest symbols there of the one run and the other; `gap`: by how much their logit
        difference is larger in the first. The effect of an edge is the share of it that is lost when this edge alone
        carries what it does in the other run. Edges that stand in for one another have little each, so that effects
        need not add up to 1. Of this one pair. ValueError where the runs hold the same symbols up to there, or say the
        same.
        """
        run = self._held(asked.shown.model)
        scores, answer, foil = self._edged(asked)
        texts = [run.vocabulary.decode(tokens) for tokens in self._up_to(asked).tolist()]
        effects = scores.effects().effect
        return {
            "answer": run.vocabulary.symbols[answer],
            "foil": run.vocabulary.symbols[foil],
            "gap": -float(scores.gap[0]),
            "n": len(scores.edges),
            "edges": [[edge.label, float(effects[scores.edges.index(edge)])] for edge in scores.ordered()[:MOST_EDGES]],
            "python": edges_call(run.setup, texts, asked.position, (answer, foil), MOST_EDGES),
        }

    def spend(self, asked: Spending) -> dict[str, Any]:
        """What a method of search (`behavior.search`) answers for a budget of written tokens, and what it spent.

        `votes`: answers and how many responses gave each, of `vote`. `tree`: the prefixes of `beam` and `mcts`, each
        before its children (`answers.TreeNode`). None stands for numbers that there are none of.
        """
        return self._spent(asked)

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request as the page sends it: `{"ask": "write", ...}`, or `{"error": words}`; never raises.

        Whatever is wrong with a request, or with what it asks for, is said in words.
        """
        try:
            fields = dict(request)
            ask = fields.pop("ask", None)
            if ask == "about" and not fields:
                return self.about()
            if not isinstance(ask, str) or ask not in FORMS:
                raise ValueError(f"unknown request {str(ask)[:40]!r}; there are about, {', '.join(FORMS)}")
            method: Callable[[Any], dict[str, Any]] = getattr(self, ask)
            asked = parsed(fields, FORMS[ask])
            with nullcontext() if ask == "probes" else self._lock:
                return method(asked)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the request"
            return {"error": f"{where}: {first['msg']}"}
        except (ValueError, KeyError, TypeError, ArithmeticError, RuntimeError) as error:
            return {"error": str(error.args[0]) if error.args else type(error).__name__}

    # How it is found.

    def _probed(self, place: Place) -> tuple[int, str, int]:
        """Number of operands, role and step of a position."""
        with self._lock:
            tokens = self._written(place.scene)["tokens"]
        _require_position(place.position, len(tokens))
        token = tokens[place.position]
        if not token["role"]:
            raise ValueError("what stands here is no part of a well-formed response, so no probe is fitted for it")
        return len(place.scene.operands), token["role"], token["step"]

    def _held(self, model: int) -> Held:
        if model >= len(self._models):
            raise ValueError(f"no model {model}; there are 0 to {len(self._models) - 1}")
        return self._models[model]

    def _problem(self, shown: Shown | Spending) -> Problem:
        run = self._held(shown.model)
        task, k, most = run.task, len(shown.operands), longest_k(run.model, run.task, run.regime)
        if not task.min_k <= k <= most:
            raise ValueError(f"{k} operands; this model can be asked about {task.min_k} to {most}")
        if max(shown.operands) >= task.n_operands:
            raise ValueError(f"operand {max(shown.operands)}; task {task.name!r} has 0 to {task.n_operands - 1}")
        return solve(task, np.array([shown.operands]))[0]

    def _given(self, shown: Shown, problem: Problem) -> tuple[Transcript, int]:
        """The transcript as a reader of what is shown writes it, and how many of its symbols the model is given."""
        run = self._held(shown.model)
        regime = get_regime(run.regime)
        if shown.total is None:
            whole = render(run.task, problem, regime)
            return whole, whole.n_prompt
        step, state = shown.total
        if not regime.writes_totals:
            raise ValueError(f"regime {regime.name!r} writes no totals, so there is none to change")
        if not 1 <= step < problem.k:
            raise ValueError(f"step {step}; a problem of {problem.k} operands has steps 1 to {problem.k - 1}")
        whole = render(run.task, substitute_total(run.task, problem, step, state), regime)
        last = max(i for i, token in enumerate(whole.tokens) if token.role is Role.TOTAL and token.step == step)
        return whole, last + 1

    def _tokens(self, shown: Shown) -> Tensor:
        """What stands in a scene once the model has written, as token ids `1 pos`."""
        run = self._held(shown.model)
        scene = shown if isinstance(shown, Scene) else Scene(**shown.model_dump())
        return token_ids(run, "".join(token["symbol"] for token in self._written(scene)["tokens"]))

    def _edits(self, scene: Scene, n: int) -> list[Edit]:
        """The changes of a scene as edits of a run over `n` tokens; those of places beyond them are left out."""
        return [edit for change in scene.changes for edit in self._edits_of(change, scene, n)]

    def _edits_of(self, change: HeadCut | EdgeCut | Patch, scene: Scene, n: int) -> list[Edit]:
        run = self._held(scene.model)
        if isinstance(change, HeadCut):
            return [replace(ablate_zero(Site("z", change.layer, change.head).check(run.model)), expect_change=False)]
        if isinstance(change, EdgeCut):
            if change.src >= n or change.dest >= n:
                return []
            mask = torch.zeros(1, n, n, dtype=torch.bool)
            mask[:, slice(None) if change.dest < 0 else change.dest, change.src] = True
            layers = range(run.n_layers) if change.layer < 0 else [change.layer]
            sites = [Site("pattern", layer, None if change.head < 0 else change.head) for layer in layers]
            return [knock_out_pairs(site.check(run.model), mask, expect_change=False) for site in sites]
        if change.source.model != scene.model:
            raise ValueError("what another model holds means nothing in this one: patch between runs of one model")
        if change.dest >= n:
            return []
        site = Site(change.site, change.layer, change.head if change.head >= 0 else None).check(run.model)
        there = self._tokens(change.source)
        _require_position(change.src, there.shape[1])
        src, dest = (torch.tensor([place], device=there.device) for place in (change.src, change.dest))
        donor = activations(run.model, there, [site], positions=src)[site]
        return [patch(site, donor, dest, expect_change=False)]

    def _write(self, scene: Scene) -> dict[str, Any]:
        run, problem = self._held(scene.model), self._problem(scene)
        whole, given = self._given(scene, problem)
        reader, n_prompt, vocabulary, regime = whole.problem, whole.n_prompt, run.vocabulary, get_regime(whole.regime)
        limit = min(context_length(run.model) or sys.maxsize, 2 * len(whole) - given + 8)
        text, logits = continued_by(run, whole.text, given, limit, lambda n: self._edits(scene, n))
        p = logits.softmax(-1)
        answer = final_answer(run.task, text[n_prompt:])
        known = tokens_named(run, problem, text, n_prompt)
        tokens = []
        for place, symbol in enumerate(text):
            name = known[place] or Token(symbol, Role.PAD)
            token: dict[str, Any] = {
                "symbol": symbol,
                "role": "" if name.role is Role.PAD else str(name.role),
                "step": name.step,
                "value": name.value,
                "by": "prompt" if place < n_prompt else "given" if place < given else "model",
            }
            if place:
                token["p"] = float(p[place - 1, vocabulary.token(symbol)])
                token["likeliest"] = likeliest_of(p[place - 1], vocabulary.symbols)
            tokens.append(token)
        state = run.task.state_text
        if scene.total is not None:
            outcome = str(outcome_of(answer, reader.answer, problem.answer))
        else:
            outcome = "right" if answer == problem.answer else "wrong"
        if outcome in ("wrong", "other") and answer is not None and state(answer) in self._source_answers(scene):
            outcome = "source"
        return {
            "tokens": tokens,
            "k": problem.k,
            "split": split_of(tuple(run.task.canonical(np.array([problem.operands]))[0].tolist())),
            "answer": None if answer is None else state(answer),
            "right": state(problem.answer),
            "expected": state(reader.answer),
            "outcome": outcome,
            "totals": [state(total) for total in problem.totals],
            "shown_totals": [state(total) for total in reader.totals],
            "states": {str(step): sorted(run.task.reachable(problem.k)[step]) for step in range(1, problem.k)}
            if regime.writes_totals
            else {},
            "python": run_call(run.setup, text, self._calls(scene), given),
        }

    def _spend(self, asked: Spending) -> dict[str, Any]:
        run, problem = self._held(asked.model), self._problem(asked)
        if get_regime(run.regime).reads != "response":
            raise ValueError(
                f"a model of regime {run.regime!r} names a label and writes nothing that could be searched"
            )
        found = METHODS[asked.method](
            run.model,
            run.task,
            collate([render(run.task, problem, run.regime)], run.vocabulary),
            SCORERS[asked.scorer],
            asked.budget,
            rng=np.random.default_rng(0),
            search=Search(temperature=asked.temperature, trees=True),
        )
        (answer,) = found.answers
        spent = {name: _number(getattr(answer.spent, name)) for name in ("written", "read", "passes", "flops")}
        return {
            "text": answer.text,
            "correct": answer.correct,
            "right": run.task.state_text(problem.answer),
            "drawn": answer.drawn,
            "scorer": found.labels["scorer"],
            "score": _number(answer.score),
            "spent": spent,
            "votes": [[run.task.state_text(state), n] for state, n in answer.votes],
            "tree": [node._asdict() | {"score": _number(node.score)} for node in answer.tree],
            "python": spend_call(run.setup, asked),
        }

    def _up_to(self, asked: Difference) -> Tensor:
        """The symbols of both runs up to the position that is read, `2 pos`."""
        if asked.other.model != asked.shown.model:
            raise ValueError("edges are those of one model: choose two runs of it")
        both = [self._tokens(shown)[0] for shown in (asked.shown, asked.other)]
        for tokens in both:
            _require_position(asked.position, len(tokens))
        return torch.stack([tokens[: asked.position + 1] for tokens in both])

    def _compare(self, asked: Difference) -> tuple[EdgeScores, int, int]:
        """Scores of every edge of a model for this pair, and the two symbols that it is asked about."""
        run, tokens = self._held(asked.shown.model), self._up_to(asked)
        if torch.equal(tokens[0], tokens[1]):
            raise ValueError("both runs hold the same symbols up to here: choose a later one, or change one of them")
        best = run_with(run.model, tokens, [])[:, -1].argmax(-1)
        answer, foil = best.tolist()
        if answer == foil:
            raise ValueError(f"both runs say {run.vocabulary.symbols[answer]} here: no edge tells them apart")
        at = torch.tensor([asked.position], device=tokens.device)
        contrast = Contrast.by_position(tokens[:1], tokens[1:], at, best[:1], best[1:])
        return edge_scores(run.model, contrast), answer, foil

    def _source_answers(self, scene: Scene) -> list[str | None]:
        """What the runs answer that patches come from."""
        sources = [change.source for change in scene.changes if isinstance(change, Patch)]
        return [self._written(Scene(**source.model_dump()))["answer"] for source in sources]

    def _calls(self, scene: Scene) -> list[str]:
        """The changes of a scene as Python."""
        run = self._held(scene.model)
        texts = [
            run.vocabulary.decode(self._tokens(change.source)[0].tolist()) if isinstance(change, Patch) else ""
            for change in scene.changes
        ]
        return calls_of(scene.changes, texts, run.n_layers)

    def _see(self, scene: Scene) -> _Seen:
        """One pass over what stands in a scene, with its changes."""
        tokens, run = self._tokens(scene), self._held(scene.model)
        patterns, sites = ([Site(kind, layer) for layer in range(run.n_layers)] for kind in ("pattern", "resid_post"))
        found = read(run, tokens, self._edits(scene, tokens.shape[1]), [*patterns, *sites])
        streams = torch.cat([found[site] for site in sites])
        # The logits of every layer's stream, in one pass: it takes the place of the last layer's.
        logits = run_with(run.model, tokens.expand(run.n_layers, -1), [Edit(sites[-1], streams, expect_change=False)])
        return _Seen(torch.cat([found[site] for site in patterns]), streams, logits.softmax(-1))

    def _unchanged(self, model: int, text: str) -> Float[Tensor, "layer pos d_model"]:
        """What leaves each layer in a run over a text without changes."""
        run = self._held(model)
        sites = [Site("resid_post", layer) for layer in range(run.n_layers)]
        found = read(run, token_ids(run, text), [], sites)
        return torch.cat([found[site] for site in sites])

    def _direct(self, model: int, text: str, position: int) -> tuple[AttributionResult, int, int]:
        """What is written directly for the likeliest symbol over the next one, and these two, without any changes."""
        run = self._held(model)
        tokens = token_ids(run, text)
        best = run_with(run.model, tokens, [])[:, position].topk(2).indices
        at = torch.tensor([position], device=tokens.device)
        contrast = Contrast.by_position(tokens, tokens, at, best[:, 0], best[:, 1])
        answer, foil = best[0].tolist()
        return logit_attribution(run.model, contrast), answer, foil

    def _by_role(self, scene: Scene, attention: Float[Tensor, "layer head src"]) -> list[dict[str, Any]]:
        """Attention summed over the positions of one role, in the order in which the roles first stand."""
        roles = [token["role"] for token in self._written(scene)["tokens"][: attention.shape[-1]]]
        masks = {role: torch.tensor([role == other for other in roles]) for role in dict.fromkeys(roles)}
        return [
            {"role": role, "n": int(mask.sum()), "attention": attention[..., mask].sum(dim=-1).tolist()}
            for role, mask in masks.items()
        ]

    def _fit(self, model: int, k: int, role: str, step: int) -> tuple[ProbeCell, ...]:
        run = self._held(model)
        if run.again is not None and model not in self._copies:
            self._copies[model] = run.again()
        try:
            sides = [
                sample_problems(run.task, k, n, split=side, rng=np.random.default_rng(0))
                for side, n in zip(("train", "heldout"), PROBED, strict=True)
            ]
        except EmptySplitError as error:
            raise ValueError(f"{error}, so no probe can be fitted or tested") from error
        if len(sides[0]) < MIN_TRAIN or len(sides[1]) < MIN_TEST:
            raise ValueError(f"too few problems of {k} operands ({len(sides[0])} to fit a probe on, {len(sides[1])})")
        fitted, test = (
            collate([render(run.task, problem, run.regime) for problem in side], run.vocabulary).to(
                device_of(run.model)
            )
            for side in sides
        )
        with nullcontext() if run.again is not None else self._lock:
            result = probe_totals(
                self._copies.get(model, run.model),
                fitted,
                test=test,
                places=[(role, step)],
                controls=Controls(n_shuffles=0),
                fit=FitOptions(keep=True),
            )
        return tuple(cell for cell in result.cells if cell.at.site != "input")


def _about(index: int, run: Held) -> dict[str, Any]:
    task = run.task
    return {
        "id": index,
        "slug": run.name,
        "task": task.name,
        "regime": run.regime,
        "n_layers": run.n_layers,
        "n_heads": int(run.model.cfg.n_heads),
        "k": [task.min_k, longest_k(run.model, task, run.regime)],
        "k_trained": list(run.k_trained),
        "operands": list(task.operands),
        "operator": task.operator,
        "states": list(task.states),
        "writes_totals": get_regime(run.regime).writes_totals,
    }


def _require_position(position: int, n: int) -> None:
    if position >= n:
        raise ValueError(f"position {position}; what stands there has positions 0 to {n - 1}")


def _number(value: float | int) -> float | int | None:
    """As JSON has it: None for NaN and infinities."""
    return value if np.isfinite(value) else None
