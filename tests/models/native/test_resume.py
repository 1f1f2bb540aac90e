import pytest
import torch
from jaxtyping import TypeCheckError

from cotinterp.models.native.parts import forward, native_parts
from cotinterp.models.native.resume import Entry, resume, resume_all, resume_each

ROWS, AT = torch.tensor([2, 0, 2, 3]), torch.tensor([8, 6, 7, 6])


@pytest.fixture
def streams():
    """Another stream for each of the four runs, at all nine positions."""
    return torch.randn(4, 9, 16, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def hooked(bridge, tokens, layer, start, streams, at=AT):
    """The same runs by hooks, all of it computed: the stream is written at `layer` from `start` on."""

    def write(resid, hook):
        return torch.cat([resid[:, :start], streams[:, start : resid.shape[1]]], dim=1)

    name = f"blocks.{layer}.hook_resid_pre" if layer < 3 else "blocks.2.hook_resid_post"
    logits = bridge.run_with_hooks(tokens, fwd_hooks=[(name, write)])
    return logits[torch.arange(len(tokens)), at]


@torch.no_grad()
def test_only_what_a_change_reaches_is_computed_and_the_logits_are_those_of_the_whole_pass(bridge, tokens, streams):
    parts = native_parts(bridge)
    states = forward(parts, tokens)[1]
    for layer, start in [(0, 0), (0, 3), (1, 6), (1, 2), (2, 0), (2, 5), (3, 0), (3, 6)]:
        found = resume(parts, states, layer=layer, start=start, rows=ROWS, resid=streams[:, start:], at=AT)
        expected = hooked(bridge, tokens[ROWS], layer, start, streams)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        # What stands behind the last position that is read does not count.
        cut = resume(parts, states, layer=layer, start=start, rows=ROWS, resid=streams[:, start:8], at=AT.clamp(max=7))
        torch.testing.assert_close(cut[1:], expected[1:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_own_stream_gives_the_own_logits(bridge, tokens):
    parts = native_parts(bridge)
    logits, states = forward(parts, tokens)
    for layer in range(4):
        own = states[layer].resid_pre if layer < 3 else states[2].resid_post
        found = resume(parts, states, layer=layer, start=4, rows=ROWS, resid=own[ROWS, 4:], at=AT)
        torch.testing.assert_close(found, logits[ROWS, AT], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_prefix_is_the_recipients(bridge, tokens, streams):
    """Negative control: with another recipient's prefix the answer is another one."""
    parts = native_parts(bridge)
    states = forward(parts, tokens)[1]
    shared = {"layer": 1, "start": 3, "resid": streams[:, 3:], "at": AT}
    found, wrong = (resume(parts, states, rows=rows, **shared) for rows in (ROWS, ROWS.roll(1)))
    assert (found - wrong).abs().max() > 1e-3


@torch.no_grad()
def test_runs_that_enter_at_several_blocks_are_each_as_if_alone(bridge, tokens, streams):
    """One position changes in each run; queries, keys and values are given for that position alone."""
    start, parts = 3, native_parts(bridge)
    states = forward(parts, tokens)[1]
    entries, expected = {}, []
    for layer, position in [(0, start), (1, start + 1), (2, start), (3, 6)]:
        own = states[layer].resid_pre if layer < 3 else states[2].resid_post
        resid = own[ROWS].clone()
        resid[:, position] = streams[:, position]
        run = torch.arange(len(ROWS))
        positions = torch.full_like(run, position)
        block = parts.blocks[min(layer, 2)]
        qkv = parts.qkv(block, resid[:, position], positions)
        entries[layer] = Entry(ROWS, resid[:, start:], run, positions, qkv)
        expected.append(hooked(bridge, tokens[ROWS], layer, start, resid))
    found = resume_all(parts, states, entries, start=start, at=AT.repeat(4))
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=1e-5)


def test_each_run_may_begin_at_a_position_of_its_own_and_is_differentiable(bridge, tokens, streams):
    """The logits of every position of the suffix, and the gradient of them, are those of the whole pass."""
    parts, start = native_parts(bridge), torch.tensor([5, 2, 6, 0])
    with torch.no_grad():
        states = forward(parts, tokens)[1]
    places = start[:, None] + torch.arange(3)
    rows = torch.arange(4)[:, None]
    for layer in range(4):
        written = streams[rows, places].clone().requires_grad_()
        kept = [(s.k[:4].transpose(1, 2), s.v[:4].transpose(1, 2)) for s in states[layer:]]
        found = resume_each(parts, kept, layer=layer, start=start, resid=written)

        def write(resid, hook, written=written):
            changed = resid.clone()
            changed[rows, places] = written
            return changed

        name = f"blocks.{layer}.hook_resid_pre" if layer < 3 else "blocks.2.hook_resid_post"
        with bridge.hooks(fwd_hooks=[(name, write)]):
            expected = bridge(tokens[:4])[rows, places]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        gradients = [torch.autograd.grad(logits.square().sum(), [written])[0] for logits in (found, expected)]
        torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-4)
    with pytest.raises(
        ValueError, match="runs that enter block 2 of 3 at positions up to 6 need the keys and values of 1"
    ):
        resume_each(parts, [], layer=2, start=start, resid=streams[:, :3])


@torch.no_grad()
def test_in_the_last_block_a_change_may_lie_before_the_start(bridge, tokens, streams):
    """Only its key and value count there; the stream is needed where the logits are read."""
    parts = native_parts(bridge)
    states = forward(parts, tokens)[1]
    resid = states[2].resid_pre[ROWS].clone()
    resid[:, 1] = streams[:, 1]
    run = torch.arange(4)
    qkv = parts.qkv(parts.blocks[2], resid[:, 1], torch.ones_like(run))
    entry = Entry(ROWS, resid[:, 6:], run, torch.ones_like(run), qkv)
    found = resume_all(parts, states, {2: entry}, start=6, at=AT)
    torch.testing.assert_close(found, hooked(bridge, tokens[ROWS], 2, 0, resid), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": 3}, "layer 3 of a model of 2: blocks 0 to 1, or after them all"),
        ({"layer": -1}, "layer -1"),
        ({"start": 7}, "positions 7 to 11 in states of 9"),
        ({"at": torch.tensor([3])}, "read at positions 3 to 3; the stream has 4 to 8"),
        ({"at": torch.tensor([9])}, "read at positions 9 to 9"),
    ],
)
@torch.no_grad()
def test_what_cannot_be_resumed(module, tokens, changes, message):
    parts = native_parts(module)
    states = forward(parts, tokens)[1]
    given = {"layer": 1, "start": 4, "rows": torch.tensor([0]), "resid": torch.zeros(1, 5, 16), "at": torch.tensor([8])}
    with pytest.raises(ValueError, match=message):
        resume(parts, states, **{**given, **changes})
    with pytest.raises(ValueError, match="no runs to resume"):
        resume_all(parts, states, {}, start=0, at=torch.tensor([8]))


@torch.no_grad()
def test_shapes_are_checked(module, tokens):
    parts = native_parts(module)
    states = forward(parts, tokens)[1]
    with pytest.raises(TypeCheckError):
        resume(parts, states, layer=0, start=0, rows=torch.tensor([0, 1]), resid=torch.zeros(1, 9, 16), at=AT[:1])
