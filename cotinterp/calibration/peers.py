"""The instruments beside TransformerLens's own: the same patches and subspaces, on models of several architectures."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import patching as peer_patching
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformer_lens.tools.analysis import interchange as peer_interchange
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from cotinterp.calibration.mutations.trial import random_model
from cotinterp.mechanism.activations import activations, run_and_read
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.interventions import Edit, patch, run_with
from cotinterp.mechanism.metrics import logit_diff
from cotinterp.mechanism.model import HookedModel, require_model
from cotinterp.mechanism.patching.runs import DIRECTIONS
from cotinterp.mechanism.patching.sweep import patch_sweep
from cotinterp.mechanism.probing.subspaces import Subspace, interchange
from cotinterp.mechanism.sites import Kind, Site, residual_sites
from cotinterp.models.build import Bridge
from cotinterp.models.weights import named_weights

N_LAYERS, N_HEADS, D_MODEL, D_VOCAB, N_CTX = 2, 4, 32, 41, 24


def _gpt2() -> PreTrainedModel:
    config = GPT2Config(
        n_layer=N_LAYERS,
        n_head=N_HEADS,
        n_embd=D_MODEL,
        vocab_size=D_VOCAB,
        n_positions=N_CTX,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config)


def _llama() -> PreTrainedModel:
    config = LlamaConfig(
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_HEADS // 2,
        hidden_size=D_MODEL,
        head_dim=10,
        intermediate_size=48,
        vocab_size=D_VOCAB,
        max_position_embeddings=N_CTX,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


FOREIGN: Mapping[str, Callable[[], PreTrainedModel]] = {"gpt2": _gpt2, "llama": _llama}


def foreign_model(name: str, *, seed: int = 0, scale: float = 0.5) -> Bridge:
    """A tiny `gpt2` or `llama` of 2 layers, 4 heads, 41 tokens and 24 positions, as a bridge in eval mode.

    They show whether an instrument leans on something that only native models have. GPT-2 has LayerNorm, learned
    positions, fused query-key-value weights, biases everywhere and a tied unembedding; Llama has RMSNorm, rotary
    positions, grouped-query attention (two key-value heads for four heads), a gated MLP, no biases, and here a head
    size that is not d_model / n_heads. Nothing is downloaded.

    Every parameter, biases and the scales of norms included, is drawn from N(0, scale²): Hugging Face starts them at 0
    and 1, which hides mistakes. The global random state is left alone. KeyError naming the architectures.
    """
    if name not in FOREIGN:
        raise KeyError(f"no foreign architecture {name!r}; there are {list(FOREIGN)}")
    with torch.random.fork_rng(devices=[]):
        model = FOREIGN[name]()
    return wrapped(model, seed=seed, scale=scale)


def wrapped(model: PreTrainedModel, *, seed: int, scale: float = 0.5) -> Bridge:
    """Any Hugging Face model with all parameters drawn anew, in eval mode, as a bridge that takes it over."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    name = type(model).__name__
    return build_bridge_from_module(model, architecture=name, hf_config=model.config, model_name=name).eval()


def gpt2_copy(model: Bridge) -> Bridge:
    """A native model's weights in a GPT-2, as a bridge in eval mode: the same function, with hooks that ours lack.

    ValueError for a model that GPT-2 cannot be.
    """
    copy = gpt2_of(model)
    name = type(copy).__name__
    return build_bridge_from_module(copy, architecture=name, hf_config=copy.config, model_name=name).eval()


def gpt2_of(model: Bridge, *, end: int | None = None) -> PreTrainedModel:
    """A GPT-2 of Hugging Face with the weights of a native model; `end` is the symbol at which it stops to write.

    ValueError for a model that GPT-2 cannot be: without LayerNorm, MLPs or learned positions.
    """
    cfg, weights = model.cfg, named_weights(model)
    if cfg.normalization_type != "LN" or cfg.attn_only or cfg.positional_embedding_type != "standard":
        raise ValueError("GPT-2 has LayerNorm, MLPs and learned positions; this model has others.")
    config = GPT2Config(
        vocab_size=cfg.d_vocab,
        n_positions=cfg.n_ctx,
        n_embd=cfg.d_model,
        n_layer=cfg.n_layers,
        n_head=cfg.n_heads,
        n_inner=cfg.d_mlp,
        activation_function=cfg.act_fn,
        layer_norm_epsilon=cfg.eps,
        tie_word_embeddings=False,
        bos_token_id=end,
        eos_token_id=end,
    )
    named = {"wte.weight": "embed.weight", "wpe.weight": "pos_embed.weight"}
    named |= {f"ln_f.{part}": f"ln_final.{part}" for part in ("weight", "bias")}
    state = {f"transformer.{theirs}": weights[ours] for theirs, ours in named.items()}
    for layer in range(cfg.n_layers):
        here, there = f"blocks.{layer}", f"transformer.h.{layer}"
        for part in ("weight", "bias"):
            joined = torch.cat([weights[f"{here}.attn.{one}.{part}"] for one in "qkv"])
            maps = {"attn.c_attn": joined, "attn.c_proj": weights[f"{here}.attn.o.{part}"]}
            maps |= {"mlp.c_fc": weights[f"{here}.mlp.in.{part}"], "mlp.c_proj": weights[f"{here}.mlp.out.{part}"]}
            # Its matrices are turned.
            state |= {
                f"{there}.{name}.{part}": (value.T if part == "weight" else value) for name, value in maps.items()
            }
            state |= {f"{there}.ln_{one}.{part}": weights[f"{here}.ln{one}.{part}"] for one in (1, 2)}
    with torch.random.fork_rng(devices=[]):
        copy: Any = GPT2LMHeadModel(config)
    copy.load_state_dict(state | {"lm_head.weight": weights["unembed.weight"]})
    found: PreTrainedModel = copy.to(weights["unembed.weight"].device).eval()
    return found


def das_agreement(
    model: HookedModel,
    base: Int[Tensor, "batch pos"],
    source: Int[Tensor, "batch pos"],
    at: Int[Tensor, " batch"],
    site: Site,
    *,
    name: str = "model",
    rank: int = 2,
    epochs: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """The largest difference between our logits and TransformerLens's, at the last position, over all examples.

    `fit_das` of TransformerLens (distributed alignment search: Geiger et al. 2023, arXiv:2303.02536) learns the
    subspace that turns the answers of `base` into those of `source` at `site` and positions `at` (a few epochs: it need
    not succeed to be compared). Compared is what the two libraries then do with it. Two rows: the interchange in it,
    and its norm-matched placebo, which moves each example as far in random directions. Columns as in `peer_agreement`;
    `largest_change` is the largest change of a logit, for scale.
    """
    require_model(model)

    def last(tokens: Tensor) -> Tensor:
        logits: Tensor = model(tokens)
        return logits[:, -1]

    with torch.no_grad():
        unedited, targets = last(base), last(source).argmax(dim=-1)
    options: dict[str, Any] = {"rank": rank, "base_positions": at, "source_positions": at, "epochs": epochs}
    learned = peer_interchange.fit_das(
        model, site.hook, base, source, targets, last, batch_size=len(base), seed=seed, **options
    )
    donors = peer_interchange.collect_activations(model, site.hook, source, last, positions=at)
    subspace, random = Subspace(learned.basis), Subspace.random(donors.shape[-1], rank, np.random.default_rng(seed))
    swap = peer_interchange.SubspaceInterchange(learned.basis)
    pairs: dict[str, tuple[Any, Edit]] = {
        "fit_das interchange": (swap, interchange(site, donors, subspace, at)),
        "norm-matched placebo": (
            peer_interchange.NormMatchedPlacebo(swap, random.basis),
            interchange(site, donors, random, at, matched_to=subspace),
        ),
    }
    rows = []
    for check, (step, edit) in pairs.items():
        theirs = peer_interchange.intervened_logits(model, site.hook, step, base, donors, last, positions=at)
        rows.append({"model": name, "check": check, **_compared(model, base, edit, theirs, unedited)})
    return pd.DataFrame(rows)


def _compared(model: HookedModel, base: Tensor, edit: Edit, theirs: Tensor, unedited: Tensor) -> dict[str, Any]:
    ours = run_with(model, base, [edit])[:, -1]
    return {
        "ours": "interchange",
        "direction": "denoise",
        "cells": 1,
        "examples": len(base),
        "largest_difference": float((ours - theirs).abs().max()),
        "largest_change": float((theirs - unedited).abs().max()),
    }


@dataclass(frozen=True)
class Peer:
    """One of `get_act_patch_*`: the kind it patches, whether by head and by position, and what of ours is its equal."""

    kind: Kind
    heads: bool
    by_position: bool
    ours: str


PEERS: Mapping[str, Peer] = {
    "resid_pre": Peer("resid_pre", heads=False, by_position=True, ours="patch_sweep"),
    "attn_out": Peer("attn_out", heads=False, by_position=True, ours="patch_sweep"),
    "mlp_out": Peer("mlp_out", heads=False, by_position=True, ours="patch_sweep"),
    "attn_head_out_by_pos": Peer("z", heads=True, by_position=True, ours="patch_sweep"),
    "attn_head_out_all_pos": Peer("z", heads=True, by_position=False, ours="patch_sweep"),
    "attn_head_q_by_pos": Peer("q", heads=True, by_position=True, ours="run_with"),
    "attn_head_k_by_pos": Peer("k", heads=True, by_position=True, ours="run_with"),
    "attn_head_v_by_pos": Peer("v", heads=True, by_position=True, ours="run_with"),
    "attn_head_v_all_pos": Peer("v", heads=True, by_position=False, ours="run_with"),
    "attn_head_pattern_by_pos": Peer("pattern", heads=True, by_position=True, ours="run_with"),
    "attn_head_pattern_all_pos": Peer("pattern", heads=True, by_position=False, ours="run_with"),
}
"""By the end of the name. Sweeps take no q, k, v or pattern head by head: those stand beside `run_with` and `patch`."""

CellChanges = Float[np.ndarray, "cells batch"]


def peer_agreement(
    model: HookedModel, contrast: Contrast, *, name: str = "model", checks: Sequence[str] = tuple(PEERS)
) -> pd.DataFrame:
    """One row per `get_act_patch_*` and direction: the largest difference from ours over all cells and examples.

    TransformerLens runs every cell by itself, on the whole batch, with hooks of its own; `patch_sweep` stacks cells and
    skips those that cannot matter. Agreement says that the two write the same value at the same place of the same head;
    it does not say that patching answers a question well.

    Compared is the change of logit[answer] - logit[foil], in logits and not normalized, at every position and at all of
    them together; the places of `contrast` are not used. `largest_change` is the largest such change, for scale.
    Columns: model, check, ours, direction, cells, examples, largest_difference, largest_change. The peer runs one pass
    for each cell and direction: keep the tokens short.

    KeyError for an unknown check; ValueError where a kind cannot be written in this model, or the two runs of the
    contrast are not told apart.
    """
    unknown = [check for check in checks if check not in PEERS]
    if unknown:
        raise KeyError(f"no checks {unknown}; there are {list(PEERS)}")
    by_position = _causal(model, Contrast.by_position(*_question(contrast)))
    everywhere = torch.ones_like(by_position.clean, dtype=torch.bool)
    at_once = Contrast(*_question(by_position), places={"everywhere": everywhere})
    rows: list[dict[str, Any]] = []
    for direction, check in product(DIRECTIONS, checks):
        spec = PEERS[check]
        theirs = _theirs(model, by_position, check, direction)
        instrument = _swept if spec.ours == "patch_sweep" else _written
        ours = instrument(model, by_position if spec.by_position else at_once, spec, direction)
        rows.append(
            {
                "model": name,
                "check": f"get_act_patch_{check}",
                "ours": spec.ours,
                "direction": direction,
                "cells": len(ours),
                "examples": ours.shape[1],
                "largest_difference": float(np.abs(ours - theirs).max()),
                "largest_change": float(np.abs(theirs).max()),
            }
        )
    return pd.DataFrame(rows)


def _theirs(model: HookedModel, contrast: Contrast, check: str, direction: str) -> CellChanges:
    """Cells in our order: layer, head where there are some, position where there are several."""
    spec, (donor, recipient) = PEERS[check], _runs(contrast, direction)
    _, cache = model.run_with_cache(donor, names_filter=[site.hook for site in residual_sites(model, spec.kind)])
    function: Callable[..., Any] = getattr(peer_patching, f"get_act_patch_{check}")
    with redirect_stderr(StringIO()):  # it shows a progress bar
        found = function(model, recipient, cache, _metric(contrast), reduce="none", baseline=True)
    effect = found.effect().double().cpu()
    if spec.heads and spec.by_position and spec.kind != "pattern":
        effect = effect.transpose(1, 2)
    values: CellChanges = effect.flatten(0, -2).numpy()
    return values


def _swept(model: HookedModel, contrast: Contrast, spec: Peer, direction: str) -> CellChanges:
    kinds = () if spec.heads else (spec.kind,)
    sweep = patch_sweep(model, contrast, kinds=kinds, heads=spec.heads, direction=direction, metrics=("logit_diff",))
    values: CellChanges = sweep.measured.changes["logit_diff"]
    return values


def _written(model: HookedModel, contrast: Contrast, spec: Peer, direction: str) -> CellChanges:
    donor, recipient = _runs(contrast, direction)
    measure = _metric(contrast)
    whole = residual_sites(model, spec.kind)
    held = activations(model, donor, whole)
    unpatched = measure(run_and_read(model, recipient, whole[:1])[0])
    changes = []
    for site in whole:
        for head, mask in product(range(site.n_heads(model)), contrast.places.values()):
            one = Site(spec.kind, site.layer, head)
            edit = patch(one, one.of(held[site]), mask, expect_change=False)
            changes.append(measure(run_with(model, recipient, [edit])) - unpatched)
    return torch.stack(changes).double().cpu().numpy()


def _runs(contrast: Contrast, direction: str) -> tuple[Tensor, Tensor]:
    """Donor and recipient."""
    runs = contrast.clean, contrast.corrupted
    return runs if direction == "denoise" else runs[::-1]


def _metric(contrast: Contrast) -> Callable[[Tensor], Tensor]:
    return lambda logits: logit_diff(logits, contrast.at, contrast.answer, contrast.foil)


def _question(contrast: Contrast) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return contrast.clean, contrast.corrupted, contrast.at, contrast.answer, contrast.foil


def _causal(model: HookedModel, contrast: Contrast) -> Contrast:
    """Nothing after the readout can matter to a causal model, and a sweep leaves it out."""
    return contrast.until_readout(model)


EXAMPLES, LENGTH = 4, 6


def peer_table(seed: int = 0) -> pd.DataFrame:
    """Largest difference from `get_act_patch_*` and from interchange after `fit_das`, in logits.

    On a native model, a GPT-2 and a Llama of random weights.
    """
    models: dict[str, HookedModel] = {"native": random_model()}
    models |= {name: foreign_model(name, seed=seed) for name in FOREIGN}
    tables = []
    for name, model in models.items():
        contrast, place = _contrast(model, seed), torch.full((EXAMPLES,), 3)
        tables.append(peer_agreement(model, contrast, name=name))
        tables.append(das_agreement(model, contrast.clean, contrast.corrupted, place, Site("resid_pre", 1), name=name))
    return pd.concat(tables, ignore_index=True)


def _contrast(model: HookedModel, seed: int) -> Contrast:
    """Random prompts, of which the corrupted differ in one token, read at the end."""
    rng = np.random.default_rng(seed)
    vocabulary = int(model.cfg.d_vocab)
    clean = rng.integers(1, vocabulary, size=(EXAMPLES, LENGTH))
    corrupted = clean.copy()
    corrupted[:, 2] = (clean[:, 2] + rng.integers(1, vocabulary - 1, size=EXAMPLES)) % vocabulary
    answer = rng.integers(vocabulary, size=EXAMPLES)
    foil = (answer + rng.integers(1, vocabulary, size=EXAMPLES)) % vocabulary
    at = np.full(EXAMPLES, LENGTH - 1)
    return Contrast.by_position(*(torch.from_numpy(each) for each in (clean, corrupted, at, answer, foil)))
