"""Everything that decides a trained model, as a value with a hash; and the specs of the reference models."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PrivateAttr, field_validator, model_serializer, model_validator

from cotinterp.models.spec import Adapter, ModelSpec, Spec
from cotinterp.results.atomic import single_name
from cotinterp.results.shipped import here_or_shipped
from cotinterp.tasks import Task, get_task
from cotinterp.tasks.definition import task_definition
from cotinterp.tasks.guard import is_ours
from cotinterp.transcripts.examples import longest_with_examples
from cotinterp.transcripts.regimes import get_regime, regime_names

Fraction = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["fp32", "bf16"]


class OptimizerSpec(Spec):
    """AdamW (Loshchilov & Hutter, 2019, arXiv 1711.05101) with linear warm-up and decay.

    Attributes:
        steps: Updates, of which there are fewer where `until` ends them earlier; those of `RunSpec.stages` come before.
        batch_size: Transcripts per update.
        lr: Highest learning rate, reached at the end of the warm-up.
        warmup: Updates over which the rate rises from zero.
        final_lr_fraction: The last update's rate as a fraction of the highest.
        weight_decay: Decoupled decay of matrices; biases and normalization scales are not decayed.
        betas: Decay of the two moment estimates.
        clip: Largest norm of the gradient over all parameters; longer ones are scaled down to it.
        until: "steps": so many updates, with a cosine. "converged": until the run has learned what it is going to, and
            `steps` at most, at one rate and then a decay (`training.course`). The fields below are read with
            "converged" alone, and stand in no dump, hash or file without it.
        check_every: Updates between two checks of whether something moves.
        patience: A run has settled when nothing has moved for this share of its updates; with 1 it never has, and only
            what is solved ends before its budget.
        settle_after: Updates before which no run has settled, however little moves.
    """

    steps: Annotated[int, Field(ge=1, le=10_000_000)] = 2000
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 64
    lr: Annotated[float, Field(gt=0)] = 1e-3
    warmup: Annotated[int, Field(ge=0)] = 100
    final_lr_fraction: Fraction = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    clip: Annotated[float, Field(gt=0)] = 1.0
    until: Literal["steps", "converged"] = "steps"
    check_every: Annotated[int, Field(ge=1)] = 200
    patience: Annotated[float, Field(gt=0, le=1)] = 0.7
    settle_after: Annotated[int, Field(ge=1)] = 10_000

    @model_serializer(mode="wrap")
    def _without_unread(self, dump: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        fields = dump(self)
        for name in () if self.until == "converged" else UNTIL_CONVERGED:
            fields.pop(name, None)
        return fields

    @model_validator(mode="after")
    def _reads_what_is_given(self) -> "OptimizerSpec":
        defaults = type(self).model_fields
        given = [name for name in UNTIL_CONVERGED[1:] if getattr(self, name) != defaults[name].default]
        if self.until == "steps" and given:
            raise ValueError(f"{', '.join(given)} would be ignored: they belong to until = 'converged'")
        return self


UNTIL_CONVERGED = ("until", "check_every", "patience", "settle_after")


class Format(Spec):
    """One way in which training problems are written, among several that a run shows.

    Attributes:
        regime: How the response is written.
        share: Of the problems of a batch. Shares are laid end to end around the batch: two halves divide it, two wholes
            show each problem in both ways.
        weight: Of this format's mean loss in the loss of a batch, beside those of the others; None for its share. In
            plain next-token training every symbol counts the same: the share times the symbols of its response.
        skip: Steps left out at the beginning of the trace (`without_first_steps`).
        dots: Whether a dot stands for each of them. In no dump, hash or file where not.
        shots: Solved examples in front of every problem, other training problems of the run, which carry no loss
            (`transcripts.examples`); the same ones whenever the problem is shown. 0, and then in no dump or hash, for
            none.
        examples: The regime that they are written in; None, and in no dump or hash, for that of the problem.
    """

    regime: str
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    weight: Annotated[float, Field(gt=0)] | None = None
    skip: Annotated[int, Field(ge=0)] = 0
    dots: bool = False
    shots: Annotated[int, Field(ge=0, le=64)] = 0
    examples: str | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, dump: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if name not in ("dots", "shots", "examples") or value}

    @model_validator(mode="after")
    def _reads_what_is_given(self) -> "Format":
        if self.examples is not None and not self.shots:
            raise ValueError("examples would be ignored: it is the regime of `shots` examples, of which there are none")
        if self.dots and not self.skip:
            raise ValueError("dots stand for steps that are left out: say with skip how many")
        return self

    @property
    def shown_in(self) -> str:
        """The regime of the examples."""
        return self.regime if self.examples is None else self.examples

    @property
    def written(self) -> tuple[str, int, bool, int, str]:
        """What decides how a problem is written in this format."""
        return self.regime, self.skip, self.dots, self.shots, self.shown_in

    @property
    def loss_weight(self) -> float:
        """`weight`, or the share in its place."""
        return self.share if self.weight is None else self.weight

    @property
    def words(self) -> str:
        """In a word for tables, such as `cot-2*0.5@0.3`: without two steps, half of the problems, weight 0.3.

        `cot-2.` has dots in the place of the two; `direct(2cot)` is `direct` after two examples with their traces.
        """
        skip = f"-{self.skip}{'.' if self.dots else ''}" if self.skip else ""
        share = f"*{self.share:g}" if self.share != 1 else ""
        shown = f"({self.shots}{self.shown_in})" if self.shots else ""
        return f"{self.regime}{shown}{skip}{share}" + ("" if self.weight is None else f"@{self.weight:g}")


def ends_of_shares(mix: Sequence[Format], batch_size: int) -> list[int]:
    """Where each format begins in the problems of a batch, laid around it end to end, and where the last one ends."""
    return [round(total * batch_size) for total in accumulate((one.share for one in mix), initial=0.0)]


class Stage(Spec):
    """The beginning of a run, on short problems alone, or on responses written in other ways.

    Attributes:
        k_max: Most operands of a problem; None for those of the run.
        steps: Updates; fewer where `optimizer.until` is "converged" and all its lengths are solved before, as the
            regime of the run writes them.
        lr: Learning rate, which is constant after the warm-up; None for `optimizer.lr`.
        mix: How responses are written here; the regime of the run alone where empty, and then in no dump or hash.
    """

    k_max: int | None = None
    steps: Annotated[int, Field(ge=1, le=10_000_000)]
    lr: Annotated[float, Field(gt=0)] | None = None
    mix: tuple[Format, ...] = ()

    @model_serializer(mode="wrap")
    def _without_absent(self, dump: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if name != "mix" or self.mix}

    @property
    def words(self) -> str:
        """In a word for tables: `k_max:steps`, before it the formats."""
        mix = "+".join(one.words for one in self.mix)
        length = "" if self.k_max is None else f"{'/' if mix else ''}{self.k_max}"
        return f"{mix}{length}:{self.steps}" + (f"@{self.lr:g}" if self.lr else "")


class Distill(Spec):
    """A teacher whose states at its trace a run's own states at the answer are drawn toward (`training.distillation`).

    Attributes:
        teacher: Slug of a finished run whose directory stands beside this run's, as with `RunSpec.start_from`.
        layers: Layers of the student whose `resid_post` is aligned; all where empty.
        weight: What the distance of the states counts beside the cross-entropy.
        shuffled: Whether each problem is given the states of another training problem of its length: the control,
            which has teacher, loss and weight and nothing about the problem.
    """

    teacher: str
    layers: tuple[Annotated[int, Field(ge=0)], ...] = ()
    weight: Annotated[float, Field(gt=0)] = 1.0
    shuffled: bool = False

    @field_validator("teacher")
    @classmethod
    def _is_a_slug(cls, value: str) -> str:
        return beside(value, "teacher")

    @property
    def words(self) -> str:
        """In a word for tables, such as `states@0.5`; `states-shuffled@0.5` is its control. Without the teacher."""
        layers = "".join(f"/L{layer}" for layer in self.layers)
        return f"states{'-shuffled' if self.shuffled else ''}{layers}@{self.weight:g}"


class Rewards(Spec):
    """Learning from what the run itself, or a teacher, writes, judged by its answer alone (`training.rewards`).

    `optimizer.batch_size` counts responses: `group` to each of `batch_size / group` problems in every update.

    Attributes:
        method: "grpo", "dpo" or "star".
        group: Responses to each problem.
        temperature: What logits are divided by before a symbol is drawn.
        kl: Weight of the divergence from the run of `start_from`: of k3 in the loss of "grpo", where 0 asks for no such
            run; the beta of "dpo". Not read by "star".
        clip: How far the ratio of "grpo" may be from 1; no other method reads it. With one pass the ratio is 1.
        passes: Steps of the optimizer on the responses of one update.
        form: Share of the reward that is for the form alone (`rewards.Judged.formed`), with "grpo".
        teacher: Slug of a finished run beside this one that writes the responses, with "star" or "dpo". None for the
            present weights, of "dpo" for the run of `start_from`.
        shuffled: Whether each response is given the reward of another one of the batch: the control, to which rewards
            say nothing about the problem.
    """

    method: Literal["grpo", "dpo", "star"]
    group: Annotated[int, Field(ge=1, le=4096)] = 8
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    kl: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.04
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    passes: Annotated[int, Field(ge=1, le=64)] = 1
    form: Fraction = 0.0
    teacher: str | None = None
    shuffled: bool = False

    @field_validator("teacher")
    @classmethod
    def _is_a_slug(cls, value: str | None) -> str | None:
        return None if value is None else beside(value, "rewards.teacher")

    @model_validator(mode="after")
    def _reads_what_is_given(self) -> "Rewards":
        unread = {"grpo": ("teacher",), "dpo": ("clip", "form"), "star": ("clip", "form", "kl")}[self.method]
        given = [name for name in unread if getattr(self, name) != type(self).model_fields[name].default]
        if given:
            raise ValueError(f"{', '.join(given)} would be ignored: method {self.method!r} does not read it")
        if self.method != "star" and self.group < 2:
            raise ValueError(f"method {self.method!r} compares responses to one problem: give it a group of 2 or more")
        if self.method == "dpo" and not self.kl:
            raise ValueError("kl is the beta of 'dpo', whose loss is constant at 0: raise it")
        return self

    @property
    def asks_reference(self) -> bool:
        """Whether the run of `start_from` is read beside the one that is trained."""
        return self.method == "dpo" or (self.method == "grpo" and self.kl > 0)

    @property
    def words(self) -> str:
        """In a word for tables, such as `grpo*8`; `grpo-shuffled*8` is its control. Without the teacher."""
        taught = "-taught" if self.teacher else ""
        return f"{self.method}{taught}{'-shuffled' if self.shuffled else ''}*{self.group}"


def beside(slug: str, field: str) -> str:
    """The slug. ValueError for what cannot name a directory beside that of a run."""
    if slug in ("", ".", "..") or "/" in slug or "\\" in slug or "\0" in slug:
        raise ValueError(f"{field} is the slug of a run beside this one, such as 'z6-cot-L4-s0-0123abcd', and no path")
    return slug


class RunSpec(Spec):
    """One training run: equal specs on one machine with one thread count give the same weights, bit for bit.

    `seed` decides the initial weights, the training problems and the order of the batches. It does not depend on the
    regime, so two specs that differ in the regime alone are a matched pair: same problems, same initial weights.

    Equal are two specs of the same run: of a task that is not shipped with cotinterp the definition stands in hash,
    slug and comparison, in place of how its file was named.

    Attributes:
        task: A registered name, or `path/to/file.py:ClassName`.
        regime: How a response is written: "direct", "cot", "totals", "filler", "noisy", "tagging", "chain",
            "direct-mode", "dots"; or how a label is asked for: "label", "label-trace-unread", "label-after-trace".
        k_min: Fewest operands of a training problem.
        k_max: Most operands.
        n_train: Training problems, drawn independently.
        precision: "bf16" computes under bfloat16 autocast and keeps fp32 weights: faster where `fast_bfloat16` says so,
            slower elsewhere. "fp32" is what it is held to.
        start_from: Slug of a finished run whose directory stands beside this run's: its weights are the initial ones
            (`learner.carry_over`), in place of random ones. None starts from `seed` and stands in no dump, hash or
            file, so a spec without it is what it was before the field existed.
        adapter: Of the weights that `start_from` names a low-rank change alone is trained (`models.spec.Adapter`), and
            merged into them in the end. None, and in no dump, hash or file, where all weights are trained.
        stages: Shorter problems first: each stage shows the training problems up to its `k_max`, and what
            `optimizer.steps` counts follows with all of them. Empty, and in no dump, hash or file, without stages.
        mix: How responses are written in the updates that `optimizer.steps` counts, where `regime` is not all that is
            shown (`training.curriculum` has named ones). `regime` is what the run is asked in: by the checks of a run
            until it is converged, and when it is evaluated. Empty, and in no dump, hash or file, where that is all.
        snapshots: Updates after which the weights are kept (`load_run(..., step=...)`); 0 keeps the initial ones. They
            change nothing in training, and those that a run ends before are never written. Empty, and in no dump, hash
            or file, without any.
        distill: The teacher whose states the run's own are drawn toward. None, and in no dump, hash or file, without.
        rewards: Responses are drawn and judged, in place of transcripts that are shown; `regime` says what the prompt
            ends with and what a right response is like. None, and in no dump, hash or file, without.
        definition: What the task is (`tasks.task_definition`), filled in and never given: a spec that holds another one
            than its task has now is refused. None, and in no dump, hash or file, for the tasks of cotinterp itself.
    """

    task: str
    regime: str
    k_min: int = 2
    k_max: int = 6
    n_train: Annotated[int, Field(ge=1, le=10_000_000)] = 3000
    model: ModelSpec = ModelSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Precision = "fp32"
    start_from: str | None = None
    adapter: Adapter | None = None
    stages: tuple[Stage, ...] = ()
    mix: tuple[Format, ...] = ()
    snapshots: tuple[Annotated[int, Field(ge=0)], ...] = ()
    distill: Distill | None = None
    rewards: Rewards | None = None
    definition: str | None = None
    _task_name: str = PrivateAttr("")
    _task: Task | None = PrivateAttr(None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunSpec) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> "RunSpec":
        """A copy with some fields replaced and all of them validated; of another task it has that one's definition.

        A task in a file is not run again for a copy that keeps it.
        """
        changed = dict(update or {})
        if "task" in changed:
            return super().model_copy(update={"definition": None} | changed, deep=deep)
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return self.model_validate(fields | changed, context={"task": self._task})

    def __getstate__(self) -> dict[Any, Any]:
        """Without the task itself: a class of a file cannot be pickled."""
        state = super().__getstate__()
        return state | {"__pydantic_private__": (state["__pydantic_private__"] or {}) | {"_task": None}}

    @field_validator("start_from")
    @classmethod
    def _is_a_slug(cls, value: str | None) -> str | None:
        return None if value is None else beside(value, "start_from")

    @model_serializer(mode="wrap")
    def _without_absent(self, dump: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        fields = dump(self)
        for name in ("start_from", "adapter", "stages", "mix", "snapshots", "distill", "rewards", "definition"):
            if getattr(self, name) in (None, ()):
                fields.pop(name, None)
        return fields

    @model_validator(mode="after")
    def _can_be_trained(self, info: Any) -> "RunSpec":  # a ValidationInfo, whose protocol beartype cannot check
        context = info.context or {}
        task = context.get("task") or _resolve(self.task, context.get("tasks", {}))
        for regime in self.regimes:
            try:
                refusal = get_regime(regime).refusal(task)
            except KeyError as error:
                raise ValueError(error.args[0]) from error
            if refusal is not None:
                raise ValueError(f"regime {regime!r} cannot be trained on task {task.name!r}: {refusal}")
        if not task.min_k <= self.k_min <= self.k_max <= task.max_k:
            raise ValueError(
                f"k_min {self.k_min} to k_max {self.k_max} is not a range inside the {task.min_k} to {task.max_k} "
                f"operands of task {task.name!r}"
            )
        shown = [(self.k_max if s.k_max is None else s.k_max, s.mix) for s in self.stages] + [(self.k_max, self.mix)]
        ends = [k_max for k_max, _ in shown]
        if ends[0] < self.k_min or any(
            high < low or one == other for (low, one), (high, other) in pairwise(shown) if high <= low
        ):
            raise ValueError(
                f"stages end at k_max {ends[:-1]}: each must be longer than the one before, or as long and of another "
                f"mix, from k_min {self.k_min} on and up to the k_max {self.k_max} of the run, whose own updates come "
                "last"
            )
        for _, mix in shown:
            for one in mix:
                if one.dots and not get_regime(one.regime).writes_totals:
                    raise ValueError(
                        f"dots stand for steps of a written trace, and regime {one.regime!r} writes none; regime "
                        "'dots' has a dot for every step"
                    )
            twice = [one.words for one in mix if [other.written for other in mix].count(one.written) > 1]
            if twice:
                raise ValueError(f"{twice[0]} stands twice in one mix: give it the sum of the shares")
            size = self.optimizer.batch_size
            for one, (first, last) in zip(mix, pairwise(ends_of_shares(mix, size)), strict=True):
                if first == last:
                    raise ValueError(
                        f"{one.words} would be shown no problem of a batch of {size}: raise its share or batch_size"
                    )
        writing = [name for name in self.regimes if get_regime(name).reads == "response"]
        if self.model.attention == "bidirectional" and writing:
            labels = [name for name in regime_names() if get_regime(name).reads != "response"]
            raise ValueError(
                f"a bidirectional model would see the response that {writing[0]!r} teaches to write; it can be taught "
                f"labels: {labels}"
            )
        if list(self.snapshots) != sorted(set(self.snapshots)) or max(self.snapshots, default=0) >= self.most_steps:
            raise ValueError(
                f"snapshots {list(self.snapshots)} are not updates in ascending order before the last, "
                f"{self.most_steps}, whose weights are kept anyway"
            )
        for one in dict.fromkeys((Format(regime=self.regime), *(one for _, mix in shown for one in mix))):
            longest = longest_with_examples(task, self.k_max, one.regime, one.shots, one.shown_in)
            if longest > self.model.n_ctx:
                behind = f" behind {one.shots} {one.shown_in!r} examples" if one.shots else ""
                raise ValueError(
                    f"a {one.regime!r} transcript of {task.name!r} with {self.k_max} operands{behind} takes up to "
                    f"{longest} tokens, model.n_ctx is {self.model.n_ctx}; raise it to {longest} or lower k_max"
                )
        if self.adapter is not None:
            self._check_adapter(self.adapter)
        self._can_be_distilled()
        self._can_be_rewarded()
        self._task_name, self._task = single_name(task.name), task
        self._define(task)
        return self

    def _check_adapter(self, adapter: Adapter) -> None:
        if self.start_from is None:
            raise ValueError(
                "an adapter changes a model that is frozen: give start_from, the slug of the finished run that it is"
            )
        if self.model.loops > 1:
            raise ValueError(
                "an adapter would change each round of a loop in another way, and rounds share their weights: leave "
                "out adapter or model.loops"
            )
        if adapter.rank > (most := min(self.model.d_model, self.model.d_mlp)):
            raise ValueError(
                f"adapter.rank {adapter.rank} is above {most}, the rank of a matrix of the model: lower it"
            )

    def _can_be_distilled(self) -> None:
        if self.distill is None:
            return
        if high := [layer for layer in self.distill.layers if layer >= self.model.depth]:
            raise ValueError(f"distill.layers has {high}; the model has layers 0 to {self.model.depth - 1}")
        if len(set(self.distill.layers)) < len(self.distill.layers):
            raise ValueError(f"distill.layers {list(self.distill.layers)} names a layer twice")
        mixes = [*(stage.mix for stage in self.stages), self.mix]
        shown = [one.regime for mix in mixes for one in mix or (Format(regime=self.regime),)]
        if all(get_regime(regime).writes_totals for regime in shown):
            raise ValueError(
                f"every regime that is shown ({', '.join(dict.fromkeys(shown))}) writes the totals, so there are no "
                "states to draw toward a teacher's: distill belongs to runs that are shown 'direct' or another without "
                "a trace"
            )

    def _can_be_rewarded(self) -> None:
        if (rewards := self.rewards) is None:
            return
        shown = [name for name in ("mix", "distill") if getattr(self, name)]
        shown += ["stages.mix"] if any(stage.mix for stage in self.stages) else []
        if shown:
            raise ValueError(
                f"rewards show no transcripts, so {', '.join(shown)} would be ignored: leave out one of them"
            )
        if self.optimizer.until == "converged":
            raise ValueError(
                "a run until it is converged is checked on transcripts, which rewards do not teach: give it "
                "optimizer.steps"
            )
        if self.optimizer.batch_size % rewards.group:
            raise ValueError(
                f"optimizer.batch_size {self.optimizer.batch_size} counts responses, {rewards.group} to each problem "
                "(rewards.group): make it a multiple"
            )
        if rewards.asks_reference and self.start_from is None:
            raise ValueError(
                f"method {rewards.method!r} is held to a reference: give start_from, the slug of the finished run that "
                "it is" + (", or rewards.kl = 0" if rewards.method == "grpo" else "")
            )
        if get_regime(self.regime).reads != "response" or self.model.thoughts:
            raise ValueError(
                f"rewards are for what a model writes, and regime {self.regime!r} of this model writes no response in "
                "symbols: use another, without continuous thoughts"
            )

    def _define(self, task: Task) -> None:
        here = None if is_ours(type(task)) and task.name == self.task else task_definition(task)
        if here is None and self.definition is not None:
            raise ValueError(f"{task.name!r} is a task of cotinterp itself, which has no definition here: leave it out")
        if self.definition not in (None, here):
            raise ValueError(changed_task(task, str(self.definition), here))
        object.__setattr__(self, "definition", here)

    @property
    def regimes(self) -> tuple[str, ...]:
        """All regimes that are shown, examples included, and the one that the run is asked in, each once."""
        shown = [one for mix in (self.mix, *(stage.mix for stage in self.stages)) for one in mix]
        return tuple(dict.fromkeys((self.regime, *(name for one in shown for name in (one.regime, one.shown_in)))))

    @property
    def task_name(self) -> str:
        """The name of the task, which tables have."""
        return self._task_name

    @property
    def slug(self) -> str:
        """Name of the run's directory: the fields one reads first, then eight digits of the hash of all of them."""
        return f"{self._task_name}-{self.regime}-L{self.model.depth}-s{self.seed}-{self.sha256[:8]}"

    @cached_property
    def sha256(self) -> str:
        """Hash of the whole spec (`fields_hash`)."""
        return fields_hash(self.model_dump(mode="json"))

    @property
    def stable_sha256(self) -> str:
        """Hash of what decides the stable phase of a run until it is converged: all but when that ends."""
        fields = self.model_dump(mode="json")
        ends = ("steps", "patience", "settle_after")
        fields["optimizer"] = {name: value for name, value in fields["optimizer"].items() if name not in ends}
        return fields_hash(fields)

    @property
    def schedule(self) -> str:
        """How it is trained, in words for tables: adapter, stages, mix, `distill`, `rewards` (`words`), `converged`."""
        words = [] if self.adapter is None else [self.adapter.words]
        words += [*(one.words for one in self.stages), *filter(None, ["+".join(one.words for one in self.mix)])]
        words += [one.words for one in (self.distill, self.rewards) if one]
        if self.optimizer.until == "converged":
            fields = type(self.optimizer).model_fields
            given = [(name, getattr(self.optimizer, name)) for name in UNTIL_CONVERGED[1:]]
            words += ["converged", *(f"{name}={value:g}" for name, value in given if value != fields[name].default)]
        return " ".join(words)

    @property
    def after(self) -> tuple[str, ...]:
        """Slugs of the runs that must be finished before this one can begin."""
        return tuple(filter(None, (self.start_from, self.teacher)))

    @property
    def teacher(self) -> str | None:
        """Slug of the run that teaches this one: of `distill` or `rewards`."""
        return next((one.teacher for one in (self.distill, self.rewards) if one), None)

    @property
    def most_steps(self) -> int:
        """Updates of the whole run; where it may end before, at most so many."""
        return sum(stage.steps for stage in self.stages) + self.optimizer.steps


def log_spaced(last: int, n: int) -> tuple[int, ...]:
    """Updates for `RunSpec.snapshots`: 0, 1, and `n` more up to `last` - 1 whose ratios are about the same."""
    return tuple(sorted({0, *np.geomspace(1, last - 1, n + 1).round().astype(int).tolist()}))


def fields_hash(fields: Mapping[str, Any]) -> str:
    """Hash of the fields of a spec as its file has them: where the task has a definition, `task` itself is left out."""
    return json_hash({name: value for name, value in fields.items() if name != "task" or not fields.get("definition")})


def changed_task(task: Task, there: str, here: str | None, run: str = "this spec was made with") -> str:
    """That a task is not the one of a run, and what to do about it."""
    return (
        f"task {task.name!r} is not the one that {run}: its symbols or what it computes have changed (definition "
        f"{there:.32} there, {here or task_definition(task)} here). Restore the old task to go on with the old run; "
        "the changed one is a run of its own, trained anew beside it"
    )


def json_hash(value: object) -> str:
    """SHA-256 of a value's canonical JSON: keys sorted, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _resolve(reference: str, known: dict[str, Task]) -> Task:
    """The task, added to those that are `known`: a file is run once for all specs that are validated together."""
    try:
        return known.setdefault(reference, known.get(reference) or get_task(reference))
    except KeyError as error:
        raise ValueError(error.args[0]) from error
    except OSError as error:
        raise ValueError(str(error)) from error


REFERENCE_TASKS = ("digit-sum", "s3")
REFERENCE_REGIMES = ("direct", "cot")


def reference_specs(seed: int = 0, precision: Precision = "bf16") -> tuple[RunSpec, ...]:
    """The matched pairs: for each task two runs that differ in the response string and in nothing else.

    They are trained in bfloat16, which takes a third of the time on processors that have it and costs no accuracy that
    three seeds would show (docs/performance.md).
    """
    return tuple(
        RunSpec(task=task, regime=regime, seed=seed, precision=precision)
        for task in REFERENCE_TASKS
        for regime in REFERENCE_REGIMES
    )


def reference_directories(root: Path) -> tuple[Path, ...]:
    """The directories of the reference runs under `root`; what the default root lacks travels with the package.

    Raises:
        FileNotFoundError: Some are missing; they are named, and how to train them.
    """
    directories = tuple(here_or_shipped("checkpoints", root, spec.slug) for spec in reference_specs())
    missing = [directory.name for directory in directories if not directory.is_dir()]
    if missing:
        raise FileNotFoundError(
            f"no reference checkpoints {missing} under {root}. `cotinterp reproduce --from-scratch` trains all four; "
            "--root says where they lie"
        )
    return directories
