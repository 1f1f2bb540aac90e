# %% [markdown]
# # Bring your own TransformerLens model
#
# The instruments take any TransformerLens-style model and tokens of your own. A small Llama with random weights
# stands in for yours: `TransformerBridge.boot_transformers("gpt2").eval()` would be a pretrained one.

# %%
import torch
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import LlamaConfig, LlamaForCausalLM

from cotinterp import Contrast, check_model, logit_attribution, patch_sweep

torch.manual_seed(0)
config = LlamaConfig(
    num_hidden_layers=2,
    hidden_size=32,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=64,
    vocab_size=40,
    max_position_embeddings=16,
    initializer_range=0.4,
)
llama = LlamaForCausalLM(config)
model = build_bridge_from_module(llama, architecture="LlamaForCausalLM", hf_config=config).eval()

# %% [markdown]
# Ask first what can be trusted: does every site act, does the residual stream add up?

# %%
clean = torch.randint(0, 40, (8, 10))
check_model(model, clean)

# %% [markdown]
# Clean and corrupted prompts differ at one place; the logits are read at the last one.

# %%
corrupted = clean.clone()
corrupted[:, 3] = (clean[:, 3] + 1) % 40
at = torch.full((8,), 9)
logits = model(clean)[:, -1].detach()
answer, foil = logits.topk(2).indices.T
contrast = Contrast.by_position(clean, corrupted, at, answer, foil)
contrast

# %%
sweep = patch_sweep(model, contrast)
sweep.frame().nlargest(5, "effect")

# %%
sweep.figure()

# %%
logit_attribution(model, contrast).frame().head()
