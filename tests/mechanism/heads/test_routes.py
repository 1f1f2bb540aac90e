"""The parts of an attention score sum to the model's own, and say how a known head finds what it looks at."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.heads.reads import PREVIOUS_TOTAL_READ
from cotinterp.mechanism.heads.routes import GROUPS, RouteMismatch, attention_routes
from cotinterp.mechanism.sites import Site
from cotinterp.models.handmade import reader
from cotinterp.models.handmade.blueprint import GAP
from cotinterp.tasks.registry import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

TASK = get_task("z6")
OPERANDS = [[3, 4, 5], [1, 2, 3], [0, 5, 2], [4, 4, 1], [2, 0, 3], [5, 1, 1], [1, 5, 0], [2, 3, 4]]
DEST, SRC = (Role.EQUALS, 2), (Role.TOTAL, 1)
VARIANTS = {
    "LN": {"normalization_type": "LN"},
    "LNPre": {"normalization_type": "LNPre"},
    "RMS": {"normalization_type": "RMS"},
    "no norm": {"normalization_type": None},
    "attention only": {"attn_only": True},
    "alibi": {"positional_embedding_type": "alibi"},
    "grouped queries": {"n_key_value_heads": 2},
    "gated MLP": {"gated_mlp": True, "act_fn": "silu"},
}


def batch_of(regime="cot", operands=OPERANDS):
    problems = solve(TASK, np.array(operands))
    return collate([render(TASK, problem, regime) for problem in problems], Vocabulary.of(TASK))


@pytest.fixture
def batch():
    return batch_of()


def tiny(make_tiny, **changes):
    return make_tiny(**{"d_vocab": len(Vocabulary.of(TASK)), "n_ctx": 40, "n_layers": 3, **changes})


def own_scores(model, batch):
    """Of every head from the destination to every token, from the model's own queries and keys: layer head b s."""
    at, rows = batch.where(*DEST), torch.arange(len(batch))
    found = []
    for layer in range(model.cfg.n_layers):
        q, k = (activations(model, batch.tokens, [Site(kind, layer)])[Site(kind, layer)] for kind in ("q", "k"))
        k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
        scores = torch.einsum("bhd,bshd->hbs", q[rows, at], k) / q.shape[-1] ** 0.5
        if model.cfg.positional_embedding_type == "alibi":
            slopes = model.original_model.layers[layer].attn.slopes
            scores = scores + slopes[:, None, None] * torch.arange(scores.shape[-1])
        found.append(scores)
    return torch.stack(found)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_parts_sum_to_the_models_own_scores(make_tiny, batch, variant):
    model = tiny(make_tiny, **VARIANTS[variant])
    result = attention_routes(model, batch, DEST, [SRC], of="score")
    own = own_scores(model, batch)[..., torch.arange(len(batch)), batch.where(*SRC)]
    size = own.abs().max()
    assert size > 0.1
    for parts in (result.query.sum(dim=3), result.key.sum(dim=3), result.pairs.sum(dim=(3, 4)), result.total):
        assert (parts[0] - own).abs().max() <= 1e-5 * size


def test_a_contrast_is_the_score_minus_the_mean_of_the_other_tokens_that_are_seen(make_tiny, batch):
    model = tiny(make_tiny)
    result = attention_routes(model, batch, DEST, [SRC])
    own, at, src = own_scores(model, batch), batch.where(*DEST), batch.where(*SRC)
    for row in range(len(batch)):
        others = [place for place in range(int(at[row]) + 1) if place != int(src[row])]
        expected = own[:, :, row, src[row]] - own[:, :, row, others].mean(dim=-1)
        torch.testing.assert_close(result.total[0, :, :, row], expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(result.pairs.sum(dim=(3, 4)), result.total, atol=1e-5, rtol=1e-5)


def test_what_is_the_same_at_every_source_drops_out_of_a_contrast_on_the_key_side(make_tiny, batch):
    result = attention_routes(tiny(make_tiny, normalization_type=None), batch, DEST, [SRC])
    kinds = [part.kind for part in result.components]
    constant = [i for i, kind in enumerate(kinds) if kind in ("input_bias", "attention_bias")]
    assert result.key[..., constant, :].abs().max() < 1e-5
    assert result.query[..., constant, :].abs().max() > 1e-2


def test_no_part_is_superfluous_and_none_comes_from_behind_the_head(make_tiny, batch):
    result = attention_routes(tiny(make_tiny), batch, DEST, [SRC])
    for index, part in enumerate(result.components):
        first = 0 if part.layer is None else part.layer + 1
        assert result.query[:, first:, :, index].abs().max() > 1e-3, part.label
        assert not result.query[:, :first, :, index].any()
        assert not result.key[:, :first, :, index].any()


def test_pieces_and_other_lengths_in_the_batch_change_nothing(make_tiny, batch):
    model = tiny(make_tiny)
    whole = attention_routes(model, batch, DEST, [SRC])
    pieces = attention_routes(model, batch, DEST, [SRC], batch_size=3)
    torch.testing.assert_close(whole.key, pieces.key, atol=1e-6, rtol=1e-5)
    longer = batch_of(operands=[[1, 2, 3, 4, 5]])
    both = collate([*batch.transcripts, *longer.transcripts], batch.vocabulary)
    padded = attention_routes(model, both, DEST, [SRC])
    torch.testing.assert_close(padded.key[..., : len(batch)], whole.key, atol=1e-5, rtol=1e-4)


def test_the_reader_finds_its_total_by_position_which_its_first_layer_asks_for():
    """By hand: what is wanted scores 2 GAP by its position, `<` scores GAP by its symbol, all else 0."""
    model, batch = reader("z6", "totals", (3, 3)), batch_of("totals")
    dest = (Role.STEP_END, 1)
    result = attention_routes(model, batch, dest, [SRC, (Role.OPERAND, 2), (Role.PROMPT_END, -1)])
    total, operand, end = Site("z", 1, 0), Site("z", 1, 1), Site("z", 0, 0)
    n = int(batch.where(*dest)[0]) + 1
    assert result.route(total, "total 1") == ("mlps", "position")
    assert result.route(operand, "operand 2") == ("mlps", "position")
    assert result.route(end, "prompt end") == ("biases", "symbol")
    assert result.route(operand, "total 1") == ("none", "none")
    mean = 2 * GAP - GAP / (n - 1)
    assert result.mean_totals[0, 1, 0] == pytest.approx(mean, rel=1e-5)
    assert result.groups(total, "total 1", "key") == pytest.approx(
        dict.fromkeys(GROUPS, 0.0) | {"position": 2 * GAP / mean, "symbol": 1 - 2 * GAP / mean}, abs=1e-5
    )
    assert result.describe()[0] in (
        f"L1H0 at step end 1 attends to total 1 (attention 1.00); of its score contrast (against the other places), "
        f"{mean:.2f}, on the key side {2 * GAP / mean:.0%} comes from the position embedding, on the query side "
        f"{2 * GAP / mean:.0%} comes from the MLP of L0",
        f"L1H1 at step end 1 attends to operand 2 (attention 1.00); of its score contrast (against the other places), "
        f"{mean:.2f}, on the key side {2 * GAP / mean:.0%} comes from the position embedding, on the query side "
        f"{2 * GAP / mean:.0%} comes from the MLP of L0",
        result.sentence(end, "prompt end"),
    )
    assert {head.block for head, _ in result.looking()} == {"L0H0", "L1H0", "L1H1"}


def test_a_head_whose_keys_hold_nothing_but_an_earlier_heads_output_is_routed_by_it(make_tiny, batch):
    model = tiny(make_tiny, n_layers=2, normalization_type=None, attn_only=True)
    with torch.no_grad():
        native, own = model.original_model, slice(12, 16)
        for embedding in (native.tok_embed.weight, native.pos.weight):
            embedding[:, own] = 0
        first, second = (layer.attn for layer in native.layers)
        first.o.weight[own] = 0
        first.o.weight[own, 4:8] = torch.eye(4)  # L0H1 alone writes to these four dimensions
        first.o.bias[own] = 0
        second.k.weight[:, :12] = 0
    result = attention_routes(model, batch, DEST, [SRC])
    for head in range(4):
        parts = dict(zip([part.label for part in result.components], result.key[0, 1, head], strict=True))
        torch.testing.assert_close(parts["L0H1"], result.total[0, 1, head], atol=1e-5, rtol=1e-5)
    heads = [Site("z", 1, head) for head in range(4) if result.mean_totals[0, 1, head] > 0]
    assert heads
    for head in heads:
        assert result.route(head, "total 1")[1] == "heads"
        assert "on the key side 100% comes from L0H1's output" in result.sentence(head, "total 1")


def test_reads_by_name_are_sources_too(make_tiny, batch):
    model = tiny(make_tiny)
    read = attention_routes(model, batch, DEST, [PREVIOUS_TOTAL_READ], of="score")
    places = attention_routes(model, batch, DEST, [SRC, (Role.PREVIOUS_TOTAL, 2)], of="score")
    assert read.srcs == ("previous total",)
    torch.testing.assert_close(read.total[0], places.total.mean(dim=0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(read.attention[0], places.attention.sum(dim=0), atol=1e-5, rtol=1e-5)


def test_without_sources_every_place_up_to_the_destination_is_one(make_tiny, batch):
    result = attention_routes(tiny(make_tiny), batch, DEST)
    assert result.srcs[:3] == ("prompt start", "operand 0", "operator 1")
    assert result.srcs[-1] == "equals 2"
    torch.testing.assert_close(result.attention.sum(dim=0), torch.ones(3, 4, len(batch)), atol=1e-5, rtol=0)


class Changed:
    """A model that differs from the one it wraps in one thing that the decomposition does not know of."""

    def __init__(self, model, **attributes):
        self._model, self._attributes = model, attributes

    def __getattr__(self, name):
        return self._attributes[name] if name in self._attributes else getattr(self._model, name)

    def __call__(self, tokens):
        return self._model(tokens)


@pytest.mark.parametrize("name", ["b_O", "b_Q", "b_K", "W_K"])
def test_a_part_that_is_not_understood_raises(make_tiny, batch, name):
    model = tiny(make_tiny)
    with pytest.raises(RouteMismatch, match="layer .: the parts miss the model's own scores by"):
        attention_routes(Changed(model, **{name: torch.zeros_like(getattr(model, name))}), batch, DEST, [SRC])


def test_what_cannot_be_answered_is_refused(make_tiny, batch):
    with pytest.raises(ValueError, match="'rotary', which are in the score itself"):
        attention_routes(tiny(make_tiny, positional_embedding_type="rotary"), batch, DEST, [SRC])
    with pytest.raises(ValueError, match="it is not causal"):
        attention_routes(tiny(make_tiny, attention_dir="bidirectional"), batch, DEST, [SRC])
    with pytest.raises(KeyError, match="has no total 2 at or before the destination; places"):
        attention_routes(tiny(make_tiny), batch, DEST, [(Role.TOTAL, 2)])
    with pytest.raises(ValueError, match="prompt start is all that the destination can see"):
        attention_routes(tiny(make_tiny), batch, (Role.PROMPT_START, -1), [(Role.PROMPT_START, -1)])
    result = attention_routes(tiny(make_tiny), batch, DEST, [SRC])
    with pytest.raises(KeyError, match=r"no source 'total 2'; there are \['total 1'\]"):
        result.route(Site("z", 1, 0), "total 2")
    with pytest.raises(KeyError, match="no head L5H0; there are 3 layers of 4 heads"):
        result.route(Site("z", 5, 0), "total 1")


def test_the_table_holds_each_part_once_and_the_figure_says_the_words(make_tiny, batch, tmp_path):
    result = attention_routes(tiny(make_tiny), batch, DEST, [SRC], labels={"task": "z6"})
    table = result.frame()
    one = table.query("layer == 2 and head == 1 and side == 'key'")
    assert one["contribution"].sum() == pytest.approx(float(one["total"].iloc[0]), abs=1e-4)
    assert one["source"].tolist() == [part.label for part in result.components]
    assert set(table.query("layer == 0")["source"]) == {"token_embedding", "position_embedding", "input_bias"}
    grouped = result.by_groups().query("layer == 2 and head == 1")
    assert grouped["contribution"].sum() == pytest.approx(float(one["total"].iloc[0]), abs=1e-4)
    assert "attends" in result.figure(0.0).layout.title.text
    assert len(result.save(tmp_path, "routes")) == 2
