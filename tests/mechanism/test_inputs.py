"""What cannot be run is refused by every instrument, which says the field, what was given, and what is wanted."""

from dataclasses import replace
from functools import partial

import jaxtyping
import numpy as np
import pytest
import torch
import transformers

import cotinterp
from cotinterp.calibration.peers import wrapped
from cotinterp.mechanism.activations import activations, gradients, stream_activations
from cotinterp.mechanism.contrast import Contrast
from cotinterp.mechanism.heads.attention import attention_by_role
from cotinterp.mechanism.interventions import ablate_zero, knock_out, run_with
from cotinterp.mechanism.model import require_causal, require_tokens, token_ids
from cotinterp.mechanism.model_check import check_model
from cotinterp.mechanism.probing.subspaces import Subspace
from cotinterp.mechanism.sites import Site
from cotinterp.models.build import THOUGHT, as_bridge, build_module
from cotinterp.models.spec import ModelSpec
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import sample_problems
from cotinterp.transcripts.render import render
from cotinterp.transcripts.vocabulary import Vocabulary
from tests.mechanism.contrasts import contrast_with_gap, replaced

pytestmark = pytest.mark.slow

SITE = Site("resid_pre", 1)
TINY = {"vocab_size": 13, "bos_token_id": None, "eos_token_id": None}


@pytest.fixture(autouse=True)
def as_a_user():
    """Without the type checks that only the tests have: they would answer first, in their own words."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def contrast(tiny_model, tokens):
    return contrast_with_gap(tiny_model, tokens, replaced(tokens, [3], d_vocab=13), torch.full((5,), 6))


@pytest.fixture(scope="module")
def batch():
    task = cotinterp.get_task("z6")
    problems = sample_problems(task, 3, 80, split="train", rng=np.random.default_rng(0))
    return collate([render(task, problem, "totals") for problem in problems], Vocabulary.of(task))


def first_logit(logits):
    return logits[:, -1, 0]


OF_TOKENS = {
    "run_with": lambda model, tokens: run_with(model, tokens, []),
    "activations": lambda model, tokens: activations(model, tokens, [SITE]),
    "stream_activations": lambda model, tokens: list(stream_activations(model, tokens, [SITE])),
    "gradients": lambda model, tokens: gradients(model, tokens, [SITE], first_logit),
    "check_model": partial(check_model, layers=[1]),
}
OF_CONTRASTS = {
    "patch_sweep": cotinterp.patch_sweep,
    "patch_sweep by hooks": lambda model, contrast: cotinterp.patch_sweep(
        model, contrast, controls=cotinterp.mechanism.patching.PatchingControls(by_hooks=True)
    ),
    "path_sweep": cotinterp.path_sweep,
    "attribution_patch": cotinterp.attribution_patch,
    "head_table": partial(cotinterp.head_table, reads={}),
    "compare_ablations": cotinterp.compare_ablations,
    "logit_attribution": cotinterp.logit_attribution,
    "attention_by_role": lambda model, contrast: attention_by_role(model, contrast, {"all": contrast.clean >= 0}),
    "backup_heads": cotinterp.backup_heads,
    "probe_use": lambda model, contrast: cotinterp.probe_use(
        model, contrast, Subspace(torch.eye(16)[:, :1]), SITE, "position 3"
    ),
}
OF_BATCHES = {
    "probe_totals": lambda model, batch: cotinterp.probe_totals(model, batch, sites=[SITE]),
}


def broken(make):
    model = make()
    with torch.no_grad():
        model.original_model.layers[0].attn.o.weight[0, 0] = float("nan")
    return model


def hugging_face():
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 24}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**TINY, **sizes))


def encoder_decoder():
    sizes = {"d_model": 16, "num_layers": 2, "num_heads": 4, "d_ff": 24, "d_kv": 4}
    return wrapped(transformers.T5ForConditionalGeneration(transformers.T5Config(**TINY, **sizes)), seed=0)


BAD_MODELS = {
    "a name": (lambda make: "s3-cot", "model: 's3-cot' was given, which has no cfg, hooks.*load_run"),
    "raw": (lambda make: hugging_face(), "model: a GPT2LMHeadModel was given, which has no .*hooks.*boot_transformers"),
    "encoder-decoder": (lambda make: encoder_decoder(), r"model: an encoder-decoder was given \(T5Config\).*one text"),
    "train mode": (lambda make: make().train(), r"model: it is in train mode.*model.eval\(\)"),
    "NaN": (broken, "model: its weight .*o.weight holds NaN.*finite weights"),
}


@pytest.mark.parametrize("bad", BAD_MODELS)
@pytest.mark.parametrize("instrument", [*OF_TOKENS, *OF_CONTRASTS, *OF_BATCHES])
def test_no_instrument_runs_a_model_that_it_should_not(instrument, bad, make_tiny, tokens, contrast, batch):
    make, message = BAD_MODELS[bad]
    given = tokens if instrument in OF_TOKENS else contrast if instrument in OF_CONTRASTS else batch
    ask = (OF_TOKENS | OF_CONTRASTS | OF_BATCHES)[instrument]
    with pytest.raises(ValueError, match=message):
        ask(make(partial(make_tiny, d_vocab=16)), given)


@pytest.fixture(scope="module")
def thinking():
    module = build_module(ModelSpec(n_layers=2, d_model=16, n_heads=4, d_mlp=32, n_ctx=24, thoughts=True), 16, seed=0)
    return as_bridge(module)


@pytest.mark.parametrize("instrument", [*OF_TOKENS, *OF_CONTRASTS, *OF_BATCHES])
def test_no_instrument_reads_a_continuous_thought_as_if_it_were_a_symbol(instrument, thinking, tokens, contrast):
    """A probe of the prompt alone reads none, and is asked at a dot here."""
    at_dots, ask = torch.arange(tokens.shape[1]) == 2, (OF_TOKENS | OF_CONTRASTS | OF_BATCHES)[instrument]
    if instrument in OF_TOKENS:
        given = tokens.masked_fill(at_dots, THOUGHT)
    elif instrument in OF_CONTRASTS:
        given = replace(contrast, clean=contrast.clean.masked_fill(at_dots, THOUGHT))
    else:
        task = cotinterp.get_task("z6")
        problems = sample_problems(task, 3, 80, split="train", rng=np.random.default_rng(0))
        given = collate([render(task, problem, "dots") for problem in problems], Vocabulary.of(task))
        ask = partial(cotinterp.probe_totals, sites=[SITE], places=[("filler", 1)])
    with pytest.raises(ValueError, match="they hold dots, which this model reads as continuous thoughts"):
        ask(thinking, given)


def test_where_there_is_no_dot_a_model_with_thoughts_is_measured_as_the_one_without(thinking, tokens):
    spec = ModelSpec(n_layers=2, d_model=16, n_heads=4, d_mlp=32, n_ctx=24)
    plain, no_dots = as_bridge(build_module(spec, 16, seed=0)), tokens.masked_fill(tokens == THOUGHT, 9)
    for read in (OF_TOKENS["activations"], OF_TOKENS["gradients"]):
        found, expected = read(thinking, no_dots), read(plain, no_dots)
        torch.testing.assert_close(found[SITE], expected[SITE], atol=1e-5, rtol=1e-5)


BAD_TOKENS = {
    "outside": (lambda tokens: tokens + 13, "ids from 13 to 25 were given; the vocabulary of this model has 13"),
    "negative": (lambda tokens: tokens - 5, "ids from -5 to 7 were given; .*padded with a negative number"),
    "floats": (lambda tokens: tokens.float(), "float32 was given.*int64"),
    "a mask": (lambda tokens: tokens > 3, "bool was given.*token ids"),
    "one row": (lambda tokens: tokens[0], r"shape \(8,\) was given.*a single example is .*\[None\]"),
    "empty": (lambda tokens: tokens[:0], r"shape \(0, 8\) was given, which is empty"),
    "nothing to read": (lambda tokens: tokens[:, :0], r"shape \(5, 0\) was given, which is empty"),
    "too long": (lambda tokens: tokens.repeat(1, 4), "32 positions were given; this model has n_ctx = 24"),
    "ragged": (lambda tokens: [[1, 2, 3], [1, 2]], "a list was given, of which no tensor can be made.*unequal length"),
    "text": (lambda tokens: ["3+4=7"] * 5, "a list was given.*text"),
}


@pytest.mark.parametrize("bad", BAD_TOKENS)
@pytest.mark.parametrize("instrument", OF_TOKENS)
def test_no_instrument_runs_tokens_that_the_model_cannot_read(instrument, bad, tiny_model, tokens):
    make, message = BAD_TOKENS[bad]
    with pytest.raises(ValueError, match=f"tokens: {message}"):
        OF_TOKENS[instrument](tiny_model, make(tokens))


@pytest.mark.parametrize("instrument", OF_CONTRASTS)
@pytest.mark.parametrize("field", ["clean", "corrupted", "answer", "foil"])
def test_no_instrument_compares_runs_that_the_model_cannot_read(instrument, field, tiny_model, contrast):
    """The row that is wrong is the last: nothing looks at the first few alone."""
    given = getattr(contrast, field).clone()
    given[-1] = 99
    with pytest.raises(ValueError, match=f"{field}: ids from .* to 99 were given; the vocabulary"):
        OF_CONTRASTS[instrument](tiny_model, replace(contrast, **{field: given}))


@pytest.mark.parametrize("make", [torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.int])
def test_lists_arrays_and_other_whole_numbers_are_taken(make, tiny_model, tokens, contrast):
    expected = run_with(tiny_model, tokens, [])
    assert torch.equal(run_with(tiny_model, make(tokens), []), expected)
    one, other = (activations(tiny_model, given, [SITE])[SITE] for given in (make(tokens), tokens))
    assert torch.equal(one, other)
    names = ("clean", "corrupted", "at", "answer", "foil")
    again = Contrast(**{name: make(getattr(contrast, name)) for name in names}, places=contrast.places)
    assert all(torch.equal(getattr(again, name), getattr(contrast, name)) for name in names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clean": torch.rand(5, 8)}, "clean: float32 was given"),
        ({"corrupted": [[1, 2], [3]]}, "corrupted: a list was given"),
        ({"at": torch.full((5,), 2.0)}, "at: float32 was given.*one whole number for each example"),
        ({"at": torch.full((5, 1), 2)}, r"at: shape \(5, 1\) was given"),
        ({"answer": torch.ones(5, dtype=torch.bool)}, "answer: bool was given"),
        ({"places": {"here": torch.ones(5, 8, dtype=torch.long)}}, "place 'here' must be a boolean tensor.*int64"),
        ({"places": {"here": np.ones((5, 8), dtype=bool)}}, "place 'here' must be a boolean tensor.*ndarray"),
    ],
)
def test_a_contrast_names_what_does_not_fit(contrast, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(contrast, **changes)


def test_runs_that_are_the_same_are_named(tiny_model, contrast):
    with pytest.raises(ValueError, match="clean and corrupted are the same tokens up to the readout in all"):
        cotinterp.patch_sweep(tiny_model, replace(contrast, corrupted=contrast.clean))


@pytest.mark.parametrize("positions", [torch.ones(5, 8, dtype=torch.bool), (torch.arange(40) % 2).reshape(5, 8)])
def test_a_mask_is_not_taken_for_positions(tiny_model, tokens, positions):
    """As numbers, a mask of 0 and 1 would silently read the first two positions."""
    with pytest.raises(ValueError, match="positions: a mask of shape .5, 8. was given. Wanted are numbers"):
        activations(tiny_model, tokens, [SITE], positions=positions)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda model, c: cotinterp.patch_sweep(model, c, kinds="resid_pre"), "kinds: 'resid_pre' alone was given"),
        (lambda model, c: cotinterp.attribution_patch(model, c, kinds="z"), "kinds: 'z' alone.*a sequence, such as"),
        (lambda model, c: cotinterp.patch_sweep(model, c, heads="pattern"), "heads: 'pattern' alone was given"),
        (lambda model, c: cotinterp.patch_sweep(model, c, metrics="logit_diff"), "metrics: 'logit_diff' alone"),
        (lambda model, c: cotinterp.compare_ablations(model, c, methods="zero"), "methods: 'zero' alone"),
        (lambda model, c: activations(model, c.clean, SITE), "sites: Site.* alone was given"),
        (lambda model, c: run_with(model, c.clean, ablate_zero(SITE)), "edits: Edit.* alone was given"),
        (lambda model, c: check_model(model, c.clean, layers=1), "layers: 1 alone was given"),
        (
            lambda model, c: knock_out(Site("pattern", 0), torch.ones(5, 8, dtype=torch.long)),
            "must be a boolean tensor",
        ),
        (
            lambda model, c: run_with(model, c.clean, [ablate_zero(SITE, torch.ones(5, 8, dtype=torch.long))]),
            "a boolean mask batch pos; got torch.int64",
        ),
    ],
)
def test_one_thing_is_not_taken_for_several_nor_numbers_for_a_mask(tiny_model, contrast, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(tiny_model, contrast)


def test_a_probe_of_what_comes_later_needs_a_causal_model(make_tiny, batch):
    model = make_tiny(attention_dir="bidirectional", d_vocab=16)
    with pytest.raises(ValueError, match="model: it is not causal"):
        cotinterp.probe_totals(model, batch)
    with pytest.raises(ValueError, match=r"attention_dir 'bidirectional'.: .*Wanted is a causal model"):
        require_causal(model, "padding would be read")


def test_a_model_that_answers_otherwise_the_second_time_is_found(make_tiny, tokens):
    model = make_tiny()
    mlp = model.original_model.layers[1].mlp._original_component
    forward = mlp.forward
    mlp.forward = lambda x: torch.nn.functional.dropout(forward(x), 0.5, training=True)
    with pytest.raises(ValueError, match="model: two runs of the same tokens differ by .*dropout"):
        check_model(model, tokens, layers=[1])


def test_numbers_that_outgrow_their_precision_are_no_fault_of_the_weights(make_tiny, tokens):
    model = make_tiny().half()
    with torch.no_grad():
        model.original_model.ln_out.weight.fill_(1000.0)
        model.original_model.head.weight.copy_(1000 * model.original_model.head.weight)
    with pytest.raises(ValueError, match="every weight is finite: .*outgrow float16"):
        run_with(model, tokens, [])


def test_the_gate_hands_on_what_it_was_given(tiny_model, tokens):
    assert require_tokens(tiny_model, tokens) is tokens
    assert token_ids([[1, 2]], "clean").dtype == torch.int64
