"""The shape of a model, and what is trained of one that is frozen, as values."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

MAX_DEPTH = 64
"""Most layers that a token may pass."""

MAX_PARAMETERS = 500_000_000
"""Largest model a spec may describe without its embeddings: 2 GB in fp32, far beyond what this package is for."""

NORM_PARAMETERS = {"LN": 2, "RMS": 1, "LNPre": 0, "RMSPre": 0, None: 0}
"""Learned vectors of size d_model in one normalization layer."""

ABSENT = {("loops", 1), ("attention", "causal"), ("thoughts", False)}
"""Fields of a shape that stand in no dump, hash or file while they have this value: they came later than files."""

DIGEST = "digest"
"""Field of a run's file that says what all the rest of the file has to be."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be believed: the message says which file, what is wrong and what to do."""


AnySpec = TypeVar("AnySpec", bound="Spec")


class Spec(BaseModel):
    """A frozen value: keyword-only, strictly typed, unknown keys refused, equal where all fields are equal."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def model_copy(self: AnySpec, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> AnySpec:
        """A copy with some fields replaced. Unlike pydantic's own, it validates what it was given."""
        copy = super().model_copy(deep=deep)
        fields = {name: getattr(copy, name) for name in type(self).model_fields}
        return type(self).model_validate({**fields, **(update or {})})


class ModelSpec(Spec):
    """A pre-norm transformer, causal if not said otherwise, with learned biases and an untied unembedding.

    Attributes:
        n_layers: Blocks, each attention and MLP, with weights of their own.
        loops: How often all of them are run, one round after the other (a looped transformer, Saunshi et al. 2025,
            arXiv 2502.17416). A token passes n_layers * loops layers (`depth`), each with hooks of its own; those of
            later rounds have the weights of the first. In no dump, hash or file where it is 1.
        d_model: Width of the residual stream.
        n_heads: Attention heads; each has d_model / n_heads dimensions.
        d_mlp: Width of the hidden layer of each MLP.
        n_ctx: Longest sequence, in tokens.
        act_fn: Activation of the MLPs; "gelu" is the exact one, "gelu_new" the tanh approximation.
        normalization: "LN" or "RMS" with learned scale, "LNPre" or "RMSPre" without parameters, None for none.
        positions: "standard" adds learned position vectors, "rotary" rotates queries and keys (Su et al. 2021, arXiv
            2104.09864), "alibi" lowers scores by the distance of query and key times a slope of the head (Press et al.
            2022, arXiv 2108.12409), "sinusoidal" adds fixed waves (Vaswani et al. 2017, arXiv 1706.03762), "none" adds
            nothing: what a causal model knows of places then comes from the mask alone (Kazemnejad et al. 2023, arXiv
            2305.19466).
        attention: "bidirectional" lets every position look at all others, as in an encoder. Such a model can name a
            label, and write nothing. In no dump, hash or file where it is "causal".
        thoughts: Whether the input at a dot is the last state of the place before it, after the final norm, in place of
            an embedding (continuous thoughts, Hao et al. 2024, arXiv 2412.06769; `build.ThinkingModel`). In no dump,
            hash or file where it is not.
    """

    n_layers: Annotated[int, Field(ge=1, le=MAX_DEPTH)] = 4
    loops: Annotated[int, Field(ge=1, le=MAX_DEPTH)] = 1
    d_model: Annotated[int, Field(ge=1, le=4096)] = 128
    n_heads: Annotated[int, Field(ge=1, le=128)] = 4
    d_mlp: Annotated[int, Field(ge=1, le=16384)] = 512
    n_ctx: Annotated[int, Field(ge=2, le=2048)] = 64
    act_fn: Literal["gelu", "gelu_new", "relu", "silu"] = "gelu"
    normalization: Literal["LN", "LNPre", "RMS", "RMSPre"] | None = "LN"
    positions: Literal["standard", "rotary", "alibi", "sinusoidal", "none"] = "standard"
    attention: Literal["causal", "bidirectional"] = "causal"
    thoughts: bool = False

    @model_serializer(mode="wrap")
    def _without_absent(self, dump: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if (name, value) not in ABSENT}

    @model_validator(mode="after")
    def _fits_together(self) -> "ModelSpec":
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not divisible by n_heads {self.n_heads}")
        if self.positions == "rotary" and self.d_head % 2:
            raise ValueError(f"rotary positions rotate pairs: d_model / n_heads = {self.d_head} must be even")
        if self.positions == "alibi" and self.attention == "bidirectional":
            raise ValueError("positions 'alibi' lower scores of the past; a bidirectional model can have any others")
        if self.thoughts and self.attention == "bidirectional":
            raise ValueError("thoughts come one after the other, and a bidirectional model looks at all at once")
        if self.depth > MAX_DEPTH:
            raise ValueError(
                f"n_layers {self.n_layers} run in loops {self.loops} are {self.depth} layers; at most {MAX_DEPTH}"
            )
        if (n := self.loops * self.n_parameters(d_vocab=0)) > MAX_PARAMETERS:
            raise ValueError(f"{n:,} parameters besides the embeddings; at most {MAX_PARAMETERS:,} are allowed")
        return self

    @property
    def depth(self) -> int:
        """Layers that a token passes: every block as often as it is run."""
        return self.n_layers * self.loops

    @property
    def architecture(self) -> str:
        """What is not as in the reference model, sizes aside, in a word for tables; empty where nothing is.

        `looped-2` has two blocks of its own, whatever its depth.
        """
        said = {name: getattr(self, name) for name in ("act_fn", "normalization", "positions", "attention")}
        words = [value or "no-norm" for name, value in said.items() if value != type(self).model_fields[name].default]
        words += ["thoughts"] if self.thoughts else []
        return " ".join([*words, *([f"looped-{self.n_layers}"] if self.loops > 1 else [])])

    @property
    def d_head(self) -> int:
        """Dimensions of one attention head."""
        return self.d_model // self.n_heads

    def n_parameters(self, d_vocab: int) -> int:
        """Number of learned values of a model with this shape, computed without building it; tied ones count once."""
        d, hidden = self.d_model, self.d_mlp
        norm = NORM_PARAMETERS[self.normalization] * d
        block = 2 * norm + 4 * (d * d + d) + 2 * d * hidden + hidden + d
        position = self.n_ctx * d if self.positions == "standard" else 0
        return 2 * d_vocab * d + position + self.n_layers * block + norm


AdaptedName = Literal["q", "k", "v", "o", "in", "out"]
"""Matrices that an adapter can be put on, as checkpoints name them: `blocks.0.attn.q`, `blocks.0.mlp.in`."""


class Adapter(Spec):
    """Low-rank adapters on a frozen model (LoRA; Hu et al. 2021, arXiv 2106.09685): W becomes W + alpha / rank * B A.

    A is drawn at random and B is zero, so that training begins with the frozen model itself. Biases, norms and position
    vectors stay as they are.

    Attributes:
        rank: Rows of A, columns of B.
        alpha: What B A is multiplied by, times `rank`. One number suits all ranks at one learning rate.
        targets: In every block, which matrices have one: queries, keys, values, what heads write ("o"), and both of the
            MLP. Hu et al. take "q" and "v".
        full: What is trained as a whole beside them. Symbols that the frozen model never had begin at random, and no
            adapter reaches them: a run on a task with new ones needs both.
    """

    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    targets: tuple[AdaptedName, ...] = ("q", "v")
    full: tuple[Literal["embed", "unembed"], ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> "Adapter":
        for name, given in (("targets", self.targets), ("full", self.full)):
            if len(set(given)) < len(given):
                raise ValueError(f"{name} {list(given)} has one of them twice")
        if not self.targets:
            raise ValueError(f"targets are empty: name some of {', '.join(get_args(AdaptedName))}")
        return self

    @property
    def words(self) -> str:
        """In a word for tables, such as `lora8*16:q+v`: rank, alpha, targets, and what else is trained."""
        return f"lora{self.rank}*{self.alpha:g}:{'+'.join((*self.targets, *self.full))}"

    def n_parameters(self, model: ModelSpec, d_vocab: int) -> int:
        """Number of values that are trained, of a model of this shape."""
        sides = {name: 2 * model.d_model for name in ("q", "k", "v", "o")}
        sides |= {name: model.d_model + model.d_mlp for name in ("in", "out")}
        return model.n_layers * self.rank * sum(sides[name] for name in self.targets) + (
            len(self.full) * d_vocab * model.d_model
        )
