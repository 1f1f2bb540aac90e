"""From a spec to a model: the plain torch module that learns, the bridge that instruments read, and the device."""

import math
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformer_lens.model_bridge.sources.native import NativeAttention, NativeModel, initialize_native_model

from cotinterp.models.adapters import adapted_layers, unmerged
from cotinterp.models.spec import ModelSpec
from cotinterp.tasks.task import STRUCTURE

Bridge = TransformerBridge
"""TransformerLens's hooked model, under the name that the rest of the package uses."""


class AlibiAttention(NativeAttention):
    """Attention whose scores fall with distance: slope * (query - key) is taken from each before the softmax.

    Press, Smith & Lewis 2022 (arXiv 2108.12409). Nothing is added to the residual stream, and nothing is learned.

    Attributes:
        slopes: How fast the scores of each head fall (`alibi_slopes`).
    """

    slopes: Tensor

    def __init__(self, cfg: TransformerBridgeConfig) -> None:
        super().__init__(cfg)
        self.register_buffer("slopes", alibi_slopes(cfg.n_heads), persistent=False)

    def forward(
        self,
        hidden_states: Float[Tensor, "batch pos d_model"],
        attention_mask: Tensor | None = None,
        position_ids: Int[Tensor, "batch pos"] | None = None,
        pattern_fn: Callable[[Tensor], Tensor] | None = None,
        **others: Any,  # noqa: ARG002
    ) -> tuple[Float[Tensor, "batch pos d_model"], Float[Tensor, "batch head pos pos"]]:
        """What is written into the stream, and the pattern; the arguments are those of `NativeAttention`."""
        batch, n, _ = hidden_states.shape
        q, k, v = (
            rearrange(part(hidden_states), "batch pos (head d) -> batch head pos d", head=self.n_heads)
            for part in (self.q, self.k, self.v)
        )
        places = torch.arange(n, device=q.device)[None] if position_ids is None else position_ids
        distance = places[:, None, :, None] - places[:, None, None, :]
        scores = q @ k.transpose(-1, -2) / self.scale - self.slopes[:, None, None] * distance
        hidden = self.causal_mask[:n, :n]
        if attention_mask is not None:
            hidden = self._combine_attention_mask(hidden, attention_mask, batch=batch)
        pattern = scores.masked_fill(hidden, -torch.inf).softmax(-1).masked_fill(hidden, 0.0)
        pattern = pattern if pattern_fn is None else pattern_fn(pattern)
        return self.o(rearrange(pattern @ v, "batch head pos d -> batch pos (head d)")), pattern


def alibi_slopes(n_heads: int) -> Float[Tensor, " head"]:
    """2^(-8/n), 2^(-16/n), ..., 2^-8 for n heads, a power of two.

    For other numbers those of the next lower power of two, then every second one of the next higher, as in the code of
    Press et al. 2022: of six heads 1/4, 1/16, 1/64, 1/256, then 1/2, 1/8.
    """
    lower = 2 ** int(math.log2(n_heads))
    whole, finer = ([2 ** (-8 * (head + 1) / n) for head in range(n)] for n in (lower, 2 * lower))
    return torch.tensor([*whole, *finer[::2][: n_heads - lower]])


def use_alibi(module: NativeModel) -> None:
    """Gives a module that was built with "standard" positions, before its weights are drawn, attention with ALiBi."""
    module.cfg.positional_embedding_type = "alibi"
    for layer in module.layers:
        layer.attn = AlibiAttention(module.cfg)


THOUGHT = STRUCTURE.index(".")
"""Token of the dot, in the vocabulary of every task."""


class ThinkingModel(NativeModel):
    """A model whose dots are continuous thoughts (Hao et al. 2024, arXiv 2412.06769).

    The input of the first block at a dot is what the place before it holds after the last block and the final norm;
    position vectors are added as everywhere. So a dot can hand on more than its symbol says, and each takes a pass of
    its own: a text with n of them is read n + 1 times, and its hooks fire as often. The last pass is the one whose
    inputs are all there. Without a dot, or with one at the beginning alone, it is the model that it would be without
    thoughts.
    """

    def forward(
        self,
        input_ids: Int[Tensor, "batch pos"] | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Int[Tensor, "batch pos"] | None = None,
        inputs_embeds: Float[Tensor, "batch pos d_model"] | None = None,
        **others: Any,
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits; the arguments are those of `NativeModel`. Given embeddings are taken as they are."""
        if input_ids is None or inputs_embeds is not None or input_ids.shape[1] > self.cfg.n_ctx:
            return super().forward(input_ids, attention_mask, position_ids, inputs_embeds, **others)
        is_thought = input_ids == THOUGHT
        is_thought[:, :1] = False
        number = is_thought.cumsum(1) * is_thought
        inputs = self.tok_embed(input_ids)
        for thought in range(1, int(number.max()) + 1):
            states = self._states(inputs, attention_mask, position_ids)
            inputs = torch.where((number == thought)[..., None], states.roll(1, dims=1), inputs)
        return super().forward(None, attention_mask, position_ids, inputs, **others)

    def _states(
        self,
        inputs: Float[Tensor, "batch pos d_model"],
        attention_mask: Tensor | None,
        position_ids: Int[Tensor, "batch pos"] | None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """What is unembedded: `NativeModel.forward` up to its final norm."""
        if position_ids is None:
            position_ids = torch.arange(inputs.shape[1], device=inputs.device).expand(inputs.shape[:2])
        stream = inputs if self.pos is None else inputs + self.pos(position_ids)
        for block in self.layers:
            (stream,) = block(stream, attention_mask=attention_mask, position_ids=position_ids)
        states: Tensor = self.ln_out(stream)
        return states


def has_thoughts(model: object) -> bool:
    """Whether a module, or the one inside a bridge, reads dots as continuous thoughts."""
    return isinstance(getattr(model, "original_model", model), ThinkingModel)


def build_module(spec: ModelSpec, d_vocab: int, *, seed: int, device: str | torch.device = "cpu") -> NativeModel:
    """A freshly initialized model, as the plain torch module that trains fast.

    Weights are N(0, 0.64 / d_model), those that write into the residual stream smaller by sqrt(2 * depth) (after
    Radford et al., 2019, GPT-2; a block that is run in loops writes as often as it is run); biases are zero. The same
    seed gives the same weights on every device, and the global random state is left alone. On the device "meta" nothing
    is allocated and nothing initialized.

    Position vectors that are fixed ("sinusoidal"; zero for "none" and "alibi") are parameters without a gradient, so
    that a checkpoint, a bridge and every instrument find them where learned ones are. The waves are as large as learned
    vectors begin.

    Layers of later loops are modules of their own, whose parameters are those of the first loop: the same objects, so
    that an optimizer sees each once and its gradient is the sum over the loops.
    """
    config = TransformerBridgeConfig(**bridge_fields(spec, d_vocab), init_mode="gpt2", seed=seed)
    on_meta = torch.device(device).type == "meta"
    with torch.random.fork_rng(devices=[]), torch.device("meta" if on_meta else "cpu"):
        module = ThinkingModel(config) if spec.thoughts else NativeModel(config)
        if spec.positions == "alibi":
            use_alibi(module)
    fixed = module.pos if spec.positions in ("sinusoidal", "none", "alibi") else None
    if fixed is not None:
        fixed.weight.requires_grad_(False)
    if not on_meta:
        initialize_native_model(module, config)
    _tie_loops(module, spec.n_layers)
    if on_meta:
        return module
    if fixed is not None:
        waves = sinusoids(spec.n_ctx, spec.d_model) if spec.positions == "sinusoidal" else torch.zeros(1)
        with torch.no_grad():
            fixed.weight.copy_(waves * math.sqrt(2 * 0.64 / spec.d_model))
    return module.to(device)


def _tie_loops(module: NativeModel, n_blocks: int) -> None:
    """Gives every layer behind the first `n_blocks` the parameters of the one that it repeats."""
    for number in range(n_blocks, len(module.layers)):
        first = dict(module.layers[number % n_blocks].named_modules())
        for name, part in module.layers[number].named_modules():
            for own, _ in list(part.named_parameters(recurse=False)):
                setattr(part, own, getattr(first[name], own))


def sinusoids(n_ctx: int, d_model: int) -> Float[Tensor, "n_ctx d_model"]:
    """Fixed position vectors: sines in the even, cosines in the odd dimensions (Vaswani et al. 2017, section 3.5)."""
    rate = 10_000.0 ** -(torch.arange(d_model) // 2 * 2 / d_model)
    angle = torch.arange(n_ctx)[:, None] * rate
    return torch.where(torch.arange(d_model) % 2 == 0, angle.sin(), angle.cos())


def bridge_fields(spec: ModelSpec, d_vocab: int) -> dict[str, Any]:
    """The shape of a model in TransformerLens's words: what `TransformerBridgeConfig` is given."""
    return {
        **({} if spec.attention == "causal" else {"attention_dir": spec.attention}),
        "n_layers": spec.depth,
        "d_model": spec.d_model,
        "n_heads": spec.n_heads,
        "d_head": spec.d_head,
        "d_mlp": spec.d_mlp,
        "n_ctx": spec.n_ctx,
        "d_vocab": d_vocab,
        "act_fn": spec.act_fn,
        "normalization_type": spec.normalization,
        "positional_embedding_type": "rotary" if spec.positions == "rotary" else "standard",
    }


def as_bridge(module: NativeModel) -> Bridge:
    """The module as a TransformerLens bridge in eval mode: same weights, same logits up to rounding, with hooks.

    The bridge takes the module over (its submodules are wrapped in place), so train first and wrap afterwards.

    Raises:
        ValueError: The module is wrapped already; use the bridge that was made of it. Or it has an adapter that is not
            merged (`adapters.merged`).
    """
    if is_wrapped(module):
        raise ValueError("this module is wrapped already: use the bridge that as_bridge returned the first time")
    if layers := adapted_layers(module):
        raise ValueError(unmerged(layers))
    bridge = build_bridge_from_module(
        module, architecture="TransformerLensNative", tl_config=module.cfg, model_name="cotinterp"
    )
    return bridge.eval()


def is_wrapped(module: nn.Module) -> bool:
    """Whether a bridge has taken this plain module over."""
    return any("_original_component" in name for name, _ in module.named_modules())


def build_model(spec: ModelSpec, d_vocab: int, *, seed: int, device: str | torch.device = "cpu") -> Bridge:
    """An untrained model, hooked and in eval mode: the control of probing is this with a seed of its own."""
    return as_bridge(build_module(spec, d_vocab, seed=seed, device=device))


def resolve_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" is this machine's accelerator where it has one, else the CPU.

    "auto" passes over Apple's MPS, on which TransformerLens warns of silently wrong results; it can be asked for.

    Raises:
        ValueError: torch knows no such device, or this machine has none; those that it has are listed.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return accelerator if accelerator is not None and accelerator.type != "mps" else torch.device("cpu")
    count = torch.accelerator.device_count() if accelerator is not None else 0
    there = ["auto", "cpu"] + ([accelerator.type] if accelerator is not None else [])
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}; this machine has {there}") from error
    if device.type != "cpu" and (device.type not in there or (device.index or 0) >= count):
        raise ValueError(f"device {name!r} is not available; this machine has {there}, accelerators: {count}")
    return device


def fast_bfloat16(device: torch.device | str) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware: a CPU with AVX512-BF16 or AMX, CUDA from Ampere on.

    Where it does not, bfloat16 is emulated and slower than float32.
    """
    place = torch.device(device)
    if place.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return place.type == "cuda" and torch.cuda.get_device_capability(place) >= (8, 0)
