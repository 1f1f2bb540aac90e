"""The shape of a model, as a value."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

MAX_PARAMETERS = 500_000_000
"""Largest model a spec may describe without its embeddings: 2 GB in fp32, far beyond what this package is for."""

NORM_PARAMETERS = {"LN": 2, "RMS": 1, "LNPre": 0, "RMSPre": 0, None: 0}
"""Learned vectors of size d_model in one normalization layer."""

ABSENT = {("thoughts", False)}
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
    """A decoder-only, pre-norm transformer with learned biases and an untied unembedding.

    Attributes:
        n_layers: Blocks, each attention and MLP.
        d_model: Width of the residual stream.
        n_heads: Attention heads; each has d_model / n_heads dimensions.
        d_mlp: Width of the hidden layer of each MLP.
        n_ctx: Longest sequence, in tokens.
        act_fn: Activation of the MLPs; "gelu" is the exact one, "gelu_new" the tanh approximation.
        normalization: "LN" or "RMS" with learned scale, "LNPre" or "RMSPre" without parameters, None for none.
        positions: "standard" adds learned position vectors, "rotary" rotates queries and keys (Su et al. 2021, arXiv
            2104.09864), "sinusoidal" adds fixed waves (Vaswani et al. 2017, arXiv 1706.03762), "none" adds nothing:
            what a causal model knows of places then comes from the mask alone (Kazemnejad et al. 2023, arXiv
            2305.19466).
        thoughts: Whether the input at a dot is the last state of the place before it, after the final norm, in place of
            an embedding (continuous thoughts, Hao et al. 2024, arXiv 2412.06769; `build.ThinkingModel`). In no dump,
            hash or file where it is not.
    """

    n_layers: Annotated[int, Field(ge=1, le=64)] = 4
    d_model: Annotated[int, Field(ge=1, le=4096)] = 128
    n_heads: Annotated[int, Field(ge=1, le=128)] = 4
    d_mlp: Annotated[int, Field(ge=1, le=16384)] = 512
    n_ctx: Annotated[int, Field(ge=2, le=2048)] = 64
    act_fn: Literal["gelu", "gelu_new", "relu", "silu"] = "gelu"
    normalization: Literal["LN", "LNPre", "RMS", "RMSPre"] | None = "LN"
    positions: Literal["standard", "rotary", "sinusoidal", "none"] = "standard"
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
        if (n := self.n_parameters(d_vocab=0)) > MAX_PARAMETERS:
            raise ValueError(f"{n:,} parameters besides the embeddings; at most {MAX_PARAMETERS:,} are allowed")
        return self

    @property
    def d_head(self) -> int:
        """Dimensions of one attention head."""
        return self.d_model // self.n_heads

    def n_parameters(self, d_vocab: int) -> int:
        """Number of learned values of a model with this shape, computed without building it."""
        d, hidden = self.d_model, self.d_mlp
        norm = NORM_PARAMETERS[self.normalization] * d
        block = 2 * norm + 4 * (d * d + d) + 2 * d * hidden + hidden + d
        position = self.n_ctx * d if self.positions == "standard" else 0
        return 2 * d_vocab * d + position + self.n_layers * block + norm
