"""What may be asked of an explorer: frozen forms of numbers and a few fixed words, and what each refuses.

Nothing in a request is a path, a name of a model or code: whoever may send one can choose among what the session
already holds, and no more.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[int, Field(ge=0, le=4095)]
OrAll = Annotated[int, Field(ge=-1, le=4095)]
"""-1: all of them."""
MOST_CHANGES = 16


class Request(BaseModel):
    """Base of what may be asked: frozen, and no field that it does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class HeadCut(Request):
    """A head whose output `z` is 0 everywhere. Zeros are off the training distribution (`compare_ablations`)."""

    kind: Literal["head"]
    layer: Number
    head: Number


class EdgeCut(Request):
    """`dest` does not attend to `src`; its other sources share what that had (`knock_out_pairs`).

    Of one head or all, in one layer or all; -1 as `dest` stands for every position.
    """

    kind: Literal["edge"]
    layer: OrAll
    head: OrAll
    dest: OrAll
    src: Number


PatchKind = Literal["resid_pre", "resid_post", "attn_out", "mlp_out", "z"]


class Shown(Request):
    """What a model is shown: a problem, and one total of its trace in place of the true one (step and state)."""

    model: Number
    operands: Annotated[tuple[Number, ...], Field(min_length=1, max_length=64)]
    total: tuple[Number, Number] | None = None


class Patch(Request):
    """What stands at a place of another run is written at `dest`: the activation of `site` at its position `src`."""

    kind: Literal["patch"]
    site: PatchKind
    layer: Number
    head: OrAll = -1
    dest: Number
    src: Number
    source: Shown


Change = Annotated[HeadCut | EdgeCut | Patch, Field(discriminator="kind")]


class Scene(Shown):
    """A run: what is shown, and what is changed inside the model while it reads and writes."""

    changes: Annotated[tuple[Change, ...], Field(max_length=MOST_CHANGES)] = ()


class Place(Request):
    """A position of what stands in a scene."""

    scene: Scene
    position: Number


class Difference(Request):
    """Two runs without changes inside, told apart by what is predicted at a position of both."""

    shown: Shown
    other: Shown
    position: Number


class Draw(Request):
    """A problem of `k` operands, drawn by `seed`."""

    model: Number
    k: Number
    seed: Annotated[int, Field(ge=0, le=2**31)]


MOST_TOKENS = 2000


class Spending(Request):
    """Tokens that a model spends on a problem, `budget` at most; nothing is changed inside it."""

    model: Number
    operands: Annotated[tuple[Number, ...], Field(min_length=1, max_length=64)]
    method: Literal["greedy", "sample", "vote", "best-of-n", "beam", "mcts", "force"]
    scorer: Literal["oracle", "likelihood"] = "oracle"
    budget: Annotated[int, Field(ge=1, le=MOST_TOKENS)]
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0


FORMS: Mapping[str, type[Request]] = {
    "draw": Draw,
    "write": Scene,
    "grid": Scene,
    "look": Place,
    "probes": Place,
    "edges": Difference,
    "spend": Spending,
}
"""What can be asked besides `about`, and the form that it is asked in."""


def parsed(fields: Mapping[str, Any], form: type[Request]) -> Request:
    """A request as JSON gives it, in its form. `ValidationError` (pydantic) where it does not fit."""
    # Strict validation would refuse the lists of JSON where a request has tuples.
    return form.model_validate(_tuples(dict(fields)))


def _tuples(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    if isinstance(value, list | tuple):
        return tuple(map(_tuples, value))
    return {key: _tuples(each) for key, each in value.items()} if isinstance(value, dict) else value
