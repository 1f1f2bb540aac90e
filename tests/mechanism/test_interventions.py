"""Values replaced along some paths: by hand, against a patch of v, and in a run that is edited elsewhere."""

import numpy as np
import pytest
import torch

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.interventions import (
    Edit,
    InertEditError,
    Write,
    ablate_mean,
    ablate_resample,
    ablate_zero,
    derangement,
    knock_out,
    knock_out_pairs,
    patch,
    replace_values,
    rounding,
    run_with,
    stacked_edits,
    steer,
    watch,
)
from cotinterp.mechanism.sites import KINDS, Site


@pytest.fixture
def other(tokens):
    """Another batch: every token replaced by the next one of the vocabulary."""
    return (tokens + 1) % 13


@pytest.fixture
def logits(tiny_model, tokens):
    with torch.no_grad():
        return tiny_model(tokens)


def read(model, tokens, site):
    return activations(model, tokens, [site])[site]


def hooks_left(model):
    return [name for name, point in model.hook_dict.items() if point.fwd_hooks]


def test_no_edits_no_change(tiny_model, tokens, logits):
    assert torch.equal(run_with(tiny_model, tokens, []), logits)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "resid_mid"])
def test_patching_oneself_is_bitwise_nothing(tiny_model, tokens, logits, kind):
    site = Site(kind, 1)
    own = patch(site, read(tiny_model, tokens, site), expect_change=False)
    assert torch.equal(run_with(tiny_model, tokens, [own]), logits)


@pytest.mark.parametrize("site", [Site("resid_pre", 0), Site("resid_pre", 1), Site("resid_post", 1)])
def test_patching_the_whole_stream_gives_the_donor(tiny_model, tokens, other, site):
    with torch.no_grad():
        expected = tiny_model(other)
    assert torch.equal(run_with(tiny_model, tokens, [patch(site, read(tiny_model, other, site))]), expected)


def test_patch_at_positions_changes_nothing_before_them(tiny_model, tokens, other, logits):
    site, positions = Site("resid_pre", 1), torch.tensor([0, 2, 4, 6, 7])
    donor = read(tiny_model, other, site)
    gathered = donor[torch.arange(5), positions]
    patched = run_with(tiny_model, tokens, [patch(site, donor, positions)])
    assert torch.equal(patched, run_with(tiny_model, tokens, [patch(site, gathered, positions)]))
    mask = torch.nn.functional.one_hot(positions, 8).bool()
    assert torch.equal(patched, run_with(tiny_model, tokens, [patch(site, donor, mask)]))
    for row, position in enumerate(positions.tolist()):
        assert torch.equal(patched[row, :position], logits[row, :position])
        assert not torch.equal(patched[row, position], logits[row, position])


def test_one_head_is_one_term_of_attn_out(tiny_model, tokens):
    """Zeroing a head takes z @ W_O of that head out of attn_out, and nothing else."""
    z, out = read(tiny_model, tokens, Site("z", 1, 2)), Site("attn_out", 1)
    seen = []
    reader = Edit(out, lambda current: seen.append(current.clone()) or current, expect_change=False)
    run_with(tiny_model, tokens, [ablate_zero(Site("z", 1, 2)), reader])
    with torch.no_grad():
        expected = read(tiny_model, tokens, out) - z @ tiny_model.W_O[1, 2]
    torch.testing.assert_close(seen[0], expected)


def test_edits_of_one_hook_compose_in_order(tiny_model, tokens):
    site, one = Site("resid_pre", 1), torch.ones(16)
    both = run_with(tiny_model, tokens, [steer(site, one), steer(site, one, scale=2.0)])
    torch.testing.assert_close(both, run_with(tiny_model, tokens, [steer(site, one, scale=3.0)]))
    overwritten = run_with(tiny_model, tokens, [steer(site, one), ablate_zero(site)])
    assert torch.equal(overwritten, run_with(tiny_model, tokens, [ablate_zero(site)]))
    heads = [ablate_zero(Site("z", 0, head)) for head in range(4)]
    assert torch.equal(run_with(tiny_model, tokens, heads), run_with(tiny_model, tokens, [ablate_zero(Site("z", 0))]))


def test_steering_one_position(tiny_model, tokens):
    site, positions = Site("resid_pre", 1), torch.tensor([0, 1, 2, 3, 4])
    by_hand = read(tiny_model, tokens, site)
    by_hand[torch.arange(5), positions] += 0.5
    found = run_with(tiny_model, tokens, [steer(site, torch.full((16,), 0.5), positions)])
    assert torch.equal(found, run_with(tiny_model, tokens, [patch(site, by_hand)]))


def test_means(tiny_model, tokens):
    site, positions = Site("mlp_out", 0), torch.tensor([1, 1, 2, 3, 7])
    own = read(tiny_model, tokens, site)
    per_position = run_with(tiny_model, tokens, [ablate_mean(site, own)])
    assert torch.equal(per_position, run_with(tiny_model, tokens, [Edit(site, own.mean(0, keepdim=True))]))
    rows = torch.arange(5)
    at_a_role = run_with(tiny_model, tokens, [ablate_mean(site, own[rows, positions], positions)])
    expected = own[rows, positions].mean(0).expand(5, -1)
    assert torch.equal(at_a_role, run_with(tiny_model, tokens, [Edit(site, expected, positions)]))
    alike = np.zeros(5, dtype=np.int64)
    there = run_with(tiny_model, tokens, [ablate_mean(site, own, positions, templates=alike)])
    assert torch.equal(there, run_with(tiny_model, tokens, [Edit(site, own.mean(0)[positions], positions)]))
    with pytest.raises(ValueError, match="no reference"):
        ablate_mean(site, own[:0])
    with pytest.raises(ValueError, match="positions of L0.mlp_out differ between examples"):
        ablate_mean(site, own, positions)


def test_examples_of_different_layouts_lend_each_other_nothing(tiny_model, tokens):
    """Rows 0 and 1 are read at position 2, the others at 6; what lies behind is padding, whatever fills it."""
    site, at, templates = Site("resid_pre", 1), torch.tensor([2, 2, 6, 6, 6]), np.array([0, 0, 1, 1, 1])

    def at_their_places(build):
        found = []
        for fill in (tokens, torch.where(torch.arange(8) <= at[:, None], tokens, (tokens + 5) % 13)):
            own = read(tiny_model, fill, site)
            logits = run_with(tiny_model, fill, [build(own)])
            found.append(logits[torch.arange(5), at])
        torch.testing.assert_close(*found)

    at_their_places(lambda own: ablate_resample(site, own, templates=templates, rng=np.random.default_rng(0)))
    at_their_places(lambda own: ablate_mean(site, own, templates=templates))
    at_their_places(lambda own: ablate_resample(site, own, at, rng=np.random.default_rng(0)))
    own, mask = read(tiny_model, tokens, site), torch.arange(8) == at[:, None]
    with pytest.raises(ValueError, match="differ between examples"):
        ablate_resample(site, own, mask, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"examples \[0\] are the only ones of their template"):
        ablate_mean(site, own, templates=np.array([0, 1, 1, 2, 2]))


def test_resampling_writes_another_example(tiny_model, tokens):
    site = Site("resid_pre", 0)
    own, rng = read(tiny_model, tokens, site), np.random.default_rng(3)
    order = derangement(5, np.random.default_rng(3))
    with torch.no_grad():
        expected = tiny_model(tokens[torch.from_numpy(order)])
    assert torch.equal(run_with(tiny_model, tokens, [ablate_resample(site, own, rng=rng)]), expected)


def test_derangements_move_everything():
    rng = np.random.default_rng(0)
    for n in (2, 3, 7):
        orders = np.stack([derangement(n, rng) for _ in range(200)])
        assert (np.sort(orders, axis=1) == np.arange(n)).all()
        assert not (orders == np.arange(n)).any()
    with pytest.raises(ValueError, match="at least two"):
        derangement(1, rng)


def test_knock_out_spreads_attention_over_the_other_keys(tiny_model, tokens):
    site, keys = Site("pattern", 1, 2), torch.zeros(5, 8, dtype=torch.bool)
    keys[:, 3] = True
    before, seen = read(tiny_model, tokens, Site("pattern", 1)), []
    reader = Edit(site.whole, lambda current: seen.append(current.clone()) or current, expect_change=False)
    run_with(tiny_model, tokens, [knock_out(site, keys, torch.tensor([5, 5, 5, 6, 7])), reader])
    row = before[0, 2, 5].clone()
    row[3] = 0
    torch.testing.assert_close(seen[0][0, 2, 5], row / row.sum())
    assert torch.equal(seen[0][0, 2, 4], before[0, 2, 4])
    assert torch.equal(seen[0][:, 1], before[:, 1])
    every_head = run_with(tiny_model, tokens, [knock_out(site.whole, keys)])
    one_by_one = run_with(tiny_model, tokens, [knock_out(Site("pattern", 1, head), keys) for head in range(4)])
    assert torch.equal(every_head, one_by_one)


def test_knock_out_equals_masking_the_scores(tiny_model, tokens):
    """Renormalizing the pattern is what a mask inside the softmax would have done."""
    keys = torch.zeros(5, 8, dtype=torch.bool)
    keys[:, 2] = True
    seen = []
    reader = Edit(Site("pattern", 0, 1), lambda current: seen.append(current.clone()) or current, expect_change=False)
    run_with(tiny_model, tokens, [knock_out(Site("pattern", 0, 1), keys), reader])
    with torch.no_grad():
        _, cache = tiny_model.run_with_cache(tokens, names_filter=["blocks.0.attn.hook_q", "blocks.0.attn.hook_k"])
    q, k = (cache[f"blocks.0.attn.hook_{kind}"][:, :, 1] for kind in "qk")
    allowed = torch.tril(torch.ones(8, 8, dtype=torch.bool)) & ~keys[:, None]
    expected = (q @ k.mT / 2).masked_fill(~allowed, -torch.inf).softmax(-1)
    torch.testing.assert_close(seen[0], expected)


def test_knocking_out_pairs_leaves_every_other_row_bit_for_bit(tiny_model, tokens):
    site, mask = Site("pattern", 1, 2), torch.zeros(5, 8, 8, dtype=torch.bool)
    mask[0, 5, [1, 3]] = True
    mask[1, 7, 7] = True
    before, seen = read(tiny_model, tokens, Site("pattern", 1)), {}
    run_with(tiny_model, tokens, [knock_out_pairs(site, mask), watch(site.whole, seen)])
    expected = before.clone()
    for row, dest in ((0, 5), (1, 7)):
        kept = before[row, 2, dest].masked_fill(mask[row, dest], 0.0)
        expected[row, 2, dest] = kept / kept.sum()
    changed = torch.zeros(5, 4, 8, dtype=torch.bool)
    changed[0, 2, 5] = changed[1, 2, 7] = True
    torch.testing.assert_close(seen[site.whole], expected)
    assert torch.equal(seen[site.whole][~changed], before[~changed])
    with pytest.raises(InertEditError, match="changed no value"):
        run_with(tiny_model, tokens, [knock_out_pairs(site, torch.zeros_like(mask))])


def test_watching_writes_nothing_and_sees_the_edits_before_it(tiny_model, tokens, logits):
    site, before, after = Site("z", 0, 2), {}, {}
    assert torch.equal(run_with(tiny_model, tokens, [watch(site, before)]), logits)
    assert torch.equal(before[site], read(tiny_model, tokens, site))
    run_with(tiny_model, tokens, [ablate_zero(site), watch(site, after)])
    assert not after[site].any()


def test_a_query_left_without_keys_attends_to_nothing(tiny_model, tokens):
    first = torch.zeros(5, 8, dtype=torch.bool)
    first[:, 0] = True
    logits = run_with(tiny_model, tokens, [knock_out(Site("pattern", 0), first)])
    assert torch.isfinite(logits).all()
    with pytest.raises(ValueError, match="knocked out at the pattern, not at L0.z"):
        knock_out(Site("z", 0), first)


def test_an_edit_that_changes_nothing_raises(tiny_model, tokens):
    site = Site("attn_out", 0)
    own = read(tiny_model, tokens, site)
    with pytest.raises(
        InertEditError, match=r"L0.attn_out fired 1x and changed no value.*\['L1.z', 'L0.attn_out'\] of 2"
    ):
        run_with(tiny_model, tokens, [ablate_zero(Site("z", 1)), patch(site, own)])
    nowhere = torch.zeros(5, 8, dtype=torch.bool)
    with pytest.raises(InertEditError, match="changed no value"):
        run_with(tiny_model, tokens, [Edit(site, torch.ones(16), nowhere)])


UNSEEN = torch.zeros(5, 8, dtype=torch.bool)
UNSEEN[:, 7] = True


def inert_edits(own, pattern):
    """Edits that move logits by rounding alone, if at all."""
    z, stream = Site("z", 1), Site("resid_pre", 1)
    constant = own[stream].mean(dim=0, keepdim=True)
    return {
        "a key that no query sees": [knock_out(Site("pattern", 0, 1), UNSEEN, torch.full((5,), 4))],
        "in all heads": [knock_out(Site("pattern", 0), UNSEEN, torch.arange(8)[None].expand(5, -1) < 7)],
        "steered by 0": [steer(stream, torch.zeros(16))],
        "steered by next to nothing": [steer(stream, torch.full((16,), 1e-9))],
        "a donor that was rounded elsewhere": [patch(stream, own[stream] * (1 + 3e-7))],
        "a mean of equals": [Edit(stream, constant.expand(5, -1, -1)), ablate_mean(stream, constant.repeat(7, 1, 1))],
        "times one": [Edit(z, lambda current: 1.0 * current)],
        "zeroed twice": [ablate_zero(z), ablate_zero(z)],
        "attention that is gone already": [
            knock_out(Site("pattern", 1), UNSEEN.roll(-7, 1)),
            knock_out(Site("pattern", 1), UNSEEN.roll(-7, 1)),
        ],
        "its own pattern": [patch(pattern, own[pattern])],
    }


def test_rounding_is_no_action(tiny_model, tokens):
    pattern = Site("pattern", 0)
    own = activations(tiny_model, tokens, [Site("resid_pre", 1), pattern])
    for edits in inert_edits(own, pattern).values():
        with pytest.raises(InertEditError, match="changed no value"):
            run_with(tiny_model, tokens, edits)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_what_is_just_above_rounding_acts_in_every_precision(make_tiny, tokens, dtype):
    model, site = make_tiny(dtype=dtype).to(dtype), Site("resid_pre", 1)
    own = read(model, tokens, site).to(dtype)
    run_with(model, tokens, [patch(site, own * (1 + 2 * rounding(dtype)))])
    with pytest.raises(InertEditError, match=f"up to the rounding of {str(dtype).removeprefix('torch.')}"):
        run_with(model, tokens, [patch(site, own * (1 + 0.25 * rounding(dtype)))])


def test_a_change_of_padding_alone_is_none(tiny_model, tokens):
    site, length = Site("resid_pre", 0), torch.tensor([4, 6, 5, 3, 8])
    behind = torch.arange(8) >= length[:, None]
    edit = Edit(site, torch.ones(16), behind)
    run_with(tiny_model, tokens, [edit])
    with pytest.raises(InertEditError, match="changed no value before the padding"):
        run_with(tiny_model, tokens, [edit], length=length)
    run_with(tiny_model, tokens, [Edit(site, torch.ones(16), behind.roll(-1, 1))], length=length)


def test_grouped_heads_are_edited_and_refused_like_others(make_tiny, tokens):
    model = make_tiny(n_key_value_heads=2)
    own = activations(model, tokens, [Site("v", 0), Site("v", 0, 1)])
    with pytest.raises(InertEditError, match="L0H1.v fired 1x and changed no value"):
        run_with(model, tokens, [patch(Site("v", 0, 1), own[Site("v", 0, 1)])])
    with pytest.raises(ValueError, match="heads 0 to 1"):
        run_with(model, tokens, [ablate_zero(Site("v", 0, 2))])
    everywhere = torch.ones(5, 8, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"values of shape \(5, 8, 4, 4\) for L0.v, which holds \(5, 8, 2, 4\)"):
        run_with(model, tokens, replace_values(0, own[Site("v", 0)].repeat_interleave(2, 2), everywhere))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda s: Edit(s, torch.ones(16), UNSEEN.long()),
            "boolean mask batch pos; got torch.int64",
        ),
        (lambda s: Edit(s, torch.ones(16), UNSEEN.float()), "batch pos; got torch.float32"),
        (lambda s: Edit(s, torch.ones(16), torch.ones(5)), "one whole number for each example"),
        (
            lambda _: knock_out(Site("pattern", 0), UNSEEN.long()),
            "keys of L0.pattern must be",
        ),
        (
            lambda _: knock_out(Site("pattern", 0), UNSEEN, UNSEEN.float()),
            "boolean mask batch pos; got torch.float32",
        ),
        (lambda _: knock_out_pairs(Site("pattern", 0), torch.ones(5, 8, 8)), "mask of L0.pattern must be a boolean"),
        (
            lambda _: knock_out_pairs(Site("pattern", 0), UNSEEN[:, None]),
            r"shape \(5, 1, 8\), expected \(5, 8, 8\)",
        ),
    ],
)
def test_masks_are_booleans_and_positions_whole_numbers(tiny_model, tokens, build, message):
    with pytest.raises(ValueError, match=message):
        run_with(tiny_model, tokens, [build(Site("resid_pre", 0))])


def test_rows_are_not_taken_for_positions_where_there_are_as_many(tiny_model, tokens):
    """Five rows of five tokens, one vector a row: broadcasting would write row i at position i of every example."""
    five, site = tokens[:, :5], Site("resid_pre", 1)
    gathered = read(tiny_model, five, site)[:, 2]
    for edit in (patch(site, gathered), steer(site, gathered)):
        with pytest.raises(ValueError, match=r"\(5, 16\) fits L1.resid_pre.*in two ways"):
            run_with(tiny_model, five, [edit])
    run_with(tiny_model, five, [steer(site, gathered[:, None])])
    run_with(tiny_model, five, [patch(site, gathered, torch.full((5,), 2).roll(0) + 1)])
    four = tokens[:4]
    with pytest.raises(ValueError, match=r"\(4, 4\) fits L1.z.*in two ways"):
        run_with(tiny_model, four, [steer(Site("z", 1), torch.ones(4, 4))])


def test_an_edit_that_does_not_fire_raises_even_as_a_baseline(tiny_model, tokens):
    class Skips:
        """A model whose second block is never reached."""

        cfg, training, run_with_cache = tiny_model.cfg, False, tiny_model.run_with_cache

        def hooks(self, fwd_hooks):
            return tiny_model.hooks(fwd_hooks=[hook for hook in fwd_hooks if "blocks.1" not in hook[0]])

        def __call__(self, tokens):
            return tiny_model(tokens)

    edits = [ablate_zero(Site("z", 0)), Edit(Site("z", 1), torch.zeros(()), expect_change=False)]
    with pytest.raises(
        InertEditError, match=r"L1.z did not fire.*never reached \['L1.z'\].*Fired: \['L0.z'\] of 2 edits"
    ):
        run_with(Skips(), tokens, edits)


def test_the_model_is_left_as_it_was(tiny_model, tokens, logits):
    def explode(current):
        raise RuntimeError(f"inside, at {tuple(current.shape)}")

    run_with(tiny_model, tokens, [ablate_zero(Site("z", 0))])
    assert not hooks_left(tiny_model)
    with pytest.raises(RuntimeError, match="inside"):
        run_with(tiny_model, tokens, [ablate_zero(Site("z", 0)), Edit(Site("z", 1), explode)])
    assert not hooks_left(tiny_model)
    with torch.no_grad():
        assert torch.equal(tiny_model(tokens), logits)


def test_hooks_of_the_user_stay(make_tiny, tokens):
    model, seen = make_tiny(), []
    model.add_hook("blocks.0.hook_resid_post", lambda _, hook: seen.append(hook.name))
    run_with(model, tokens, [ablate_zero(Site("z", 0))])
    assert len(seen) == 1
    assert len(hooks_left(model)) >= 1


def test_compatibility_mode_applies_an_edit_once(make_tiny, tokens):
    """There a hook is known under two names; a steering vector must not be added twice."""
    model, site, one = make_tiny(), Site("resid_pre", 1), torch.ones(16)
    expected = run_with(model, tokens, [steer(site, one)])
    model.enable_compatibility_mode(no_processing=True)
    torch.testing.assert_close(run_with(model, tokens, [steer(site, one)]), expected)


def test_refusals(tiny_model, make_tiny, tokens):
    with pytest.raises(ValueError, match="cannot be written"):
        ablate_zero(Site("resid_mid", 0))
    with pytest.raises(ValueError, match="layers 0 to 1"):
        run_with(tiny_model, tokens, [ablate_zero(Site("z", 2))])
    with pytest.raises(ValueError, match="train mode"):
        run_with(make_tiny().train(), tokens, [ablate_zero(Site("z", 0))])
    with pytest.raises(ValueError, match=r"shape \(3,\) does not fit L0.mlp_out"):
        run_with(tiny_model, tokens, [Edit(Site("mlp_out", 0), torch.ones(3))])


def test_runs_of_a_stack_are_edits_of_their_own(tiny_model, tokens):
    """Against one `run_with` for each: two writes in one run, a function, one head of a pattern, and no edit at all."""
    donors = activations(tiny_model, tokens.flip(0), [Site("resid_pre", 0), Site("z", 1), Site("pattern", 1)])
    mask = torch.zeros(tokens.shape, dtype=torch.bool)
    mask[:, 3] = True
    one_head = mask[..., None] & (torch.arange(4) == 2)
    stream, z, pattern = (Site(kind, layer) for kind, layer in (("resid_pre", 0), ("z", 1), ("pattern", 1)))
    runs = [
        [Write(stream, mask, donors[stream]), Write(z, one_head, donors[z])],
        [],
        [Write(stream, mask, lambda current: 2 * current)],
        [Write(pattern, one_head, donors[pattern])],
    ]
    expected = [
        [Edit(stream, donors[stream], mask), Edit(Site("z", 1, 2), donors[z][:, :, 2], mask)],
        [],
        [Edit(stream, lambda current: 2 * current, mask)],
        [Edit(Site("pattern", 1, 2), donors[pattern][:, 2], mask)],
    ]
    found = run_with(tiny_model, tokens.repeat(4, 1), stacked_edits(runs)).chunk(4)
    for logits, edits in zip(found, expected, strict=True):
        torch.testing.assert_close(logits, run_with(tiny_model, tokens, edits), atol=1e-5, rtol=1e-5)


def test_a_write_of_a_stack_restores_the_unedited_run_and_inert_ones_raise(tiny_model, tokens):
    z, mask = Site("z", 0), torch.ones(*tokens.shape, 4, dtype=torch.bool)
    stacked = tokens.repeat(2, 1)
    own = activations(tiny_model, stacked, [z])
    plain = run_with(tiny_model, stacked, [])
    restored = [[Write(z, mask, None, expect_change=False)], [Write(z, mask, own[z].chunk(2)[1], expect_change=False)]]
    assert torch.equal(run_with(tiny_model, stacked, stacked_edits(restored, unedited=own)), plain)
    with pytest.raises(InertEditError, match="changed no value"):
        run_with(tiny_model, stacked, stacked_edits([[], [Write(z, mask, own[z].chunk(2)[1])]]))


@pytest.mark.parametrize("head", [None, 1])
def test_replaced_values_move_along_the_mask_and_nowhere_else(tiny_model, tokens, other, head):
    """z of a destination gains pattern * (their values - own) over its marked sources, by hand."""
    mask = torch.zeros(5, 8, 8, dtype=torch.bool)
    mask[:, 6, [2, 4]] = True
    theirs, own = (read(tiny_model, batch, Site("v", 1)) for batch in (other, tokens))
    z, pattern, seen = read(tiny_model, tokens, Site("z", 1)), read(tiny_model, tokens, Site("pattern", 1)), {}
    run_with(tiny_model, tokens, [*replace_values(1, theirs, mask, head), watch(Site("z", 1), seen)])
    for moved in range(4) if head is None else (head,):
        for src in (2, 4):
            z[:, 6, moved] += pattern[:, moved, 6, src, None] * (theirs - own)[:, src, moved]
    torch.testing.assert_close(seen[Site("z", 1)], z)


def test_all_values_replaced_are_the_donors_values_patched(tiny_model, tokens, other):
    """Along every path at once, it is a patch of v."""
    everywhere = torch.ones(5, 8, 8, dtype=torch.bool)
    theirs = read(tiny_model, other, Site("v", 1))
    found = run_with(tiny_model, tokens, replace_values(1, theirs, everywhere))
    torch.testing.assert_close(found, run_with(tiny_model, tokens, [patch(Site("v", 1), theirs)]))


def test_values_of_the_edited_run_are_replaced(tiny_model, tokens, other):
    """`own` is what stands there in this run: with all values replaced, an edit of v before that is forgotten."""
    everywhere, theirs = torch.ones(5, 8, 8, dtype=torch.bool), read(tiny_model, other, Site("v", 1))
    stirred = steer(Site("v", 1), torch.ones(4, 4))
    found = run_with(tiny_model, tokens, [stirred, *replace_values(1, theirs, everywhere)])
    torch.testing.assert_close(found, run_with(tiny_model, tokens, replace_values(1, theirs, everywhere)))


def test_values_cannot_be_replaced_where_the_pattern_is_not_known_yet(tiny_model, tokens):
    mask, values = torch.ones(5, 8, 8, dtype=torch.bool), torch.zeros(5, 8, 4, 4)
    *_, alone = replace_values(1, values, mask)
    with pytest.raises(ValueError, match="L1.z is made before L1.pattern or L1.v is known"):
        run_with(tiny_model, tokens, [alone])


def test_own_values_change_nothing(tiny_model, tokens):
    own = read(tiny_model, tokens, Site("v", 0))
    everywhere = torch.ones(5, 8, 8, dtype=torch.bool)
    assert torch.equal(
        run_with(tiny_model, tokens, replace_values(0, own, everywhere)), run_with(tiny_model, tokens, [])
    )
