"""Reading in parts is reading, whatever the parts; each part stays within its bytes."""

import gc
from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

from cotinterp.mechanism.activations import activations
from cotinterp.mechanism.probing import fit as cells
from cotinterp.mechanism.probing import totals as reading
from cotinterp.mechanism.probing.controls import Controls
from cotinterp.mechanism.probing.solver import FitOptions
from cotinterp.mechanism.probing.totals import probe_totals, stream_places
from cotinterp.mechanism.sites import Site
from cotinterp.tasks import get_task
from cotinterp.transcripts.batch import collate
from cotinterp.transcripts.problems import solve
from cotinterp.transcripts.render import render
from cotinterp.transcripts.roles import Role
from cotinterp.transcripts.vocabulary import Vocabulary

SITES = [Site("resid_pre", 1), Site("z", 0), Site("k", 1, head=2), Site("pattern", 1), Site("mlp_out", 0)]


@pytest.mark.parametrize("max_bytes", [1, 5 * 3 * 16 * 4, 2**20], ids=["one place at a time", "a site", "all"])
def test_every_place_of_every_site_in_order(
    tiny_model: TransformerBridge, tokens: torch.Tensor, max_bytes: int
) -> None:
    positions = torch.randint(0, 8, (5, 3), generator=torch.Generator().manual_seed(0))
    expected = activations(tiny_model, tokens, SITES, positions=positions)
    found = list(stream_places(tiny_model, tokens, SITES, positions, max_bytes=max_bytes, batch_size=2))
    assert [(site, column) for site, column, _ in found] == [(site, column) for site in SITES for column in range(3)]
    for site, column, rows in found:
        torch.testing.assert_close(rows, expected[site][:, column].flatten(1), atol=1e-5, rtol=0)


def test_parts_stay_within_their_bytes(
    tiny_model: TransformerBridge, tokens: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    stream = reading.stream_activations

    def counted(model, tokens, sites, *, positions, batch_size):  # type: ignore[no-untyped-def]
        for rows, found in stream(model, tokens, sites, positions=positions, batch_size=batch_size):
            read.append(sum(part.nbytes for part in found.values()))
            yield rows, found

    monkeypatch.setattr(reading, "stream_activations", counted)
    positions = torch.zeros(5, 3, dtype=torch.long)
    sites = [Site(kind, layer) for layer in (0, 1) for kind in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
    each = 5 * 3 * 16 * 4
    seen = Counter(site for site, _, _ in stream_places(tiny_model, tokens, sites, positions, max_bytes=2 * each))
    assert seen == dict.fromkeys(sites, 3)
    assert read == [2 * each] * 4


def test_sites_outside_the_model_are_refused(tiny_model: TransformerBridge, tokens: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="layers 0 to 1"):
        list(stream_places(tiny_model, tokens, [Site("resid_pre", 2)], torch.zeros(5, 1, dtype=torch.long)))


def live_bytes() -> int:
    """What all tensors that exist take, storage by storage."""
    held = (one.untyped_storage() for one in gc.get_objects() if type(one) is torch.Tensor)
    return sum({part.data_ptr(): part.nbytes() for part in held}.values())


def test_more_sites_need_no_more_memory_and_change_no_cell(
    make_tiny: Callable[..., TransformerBridge], monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = get_task("s3")
    problems = solve(s3, np.random.default_rng(0).permutation(np.array(list(product(range(6), repeat=4))))[:200])
    batch = collate([render(s3, problem, "cot") for problem in problems], Vocabulary.of(s3))
    model = make_tiny(d_vocab=len(batch.vocabulary), n_ctx=64, d_model=64, d_head=16, n_layers=8)
    options: dict[str, Any] = {
        "places": [(Role.EQUALS, 2), (Role.EQUALS, 3)],
        "targets": [3],
        "controls": Controls(n_shuffles=0),
    }
    peak: list[int] = []
    real = cells.solve

    def watched(*args: Any, **settings: Any) -> Any:
        for number, found in enumerate(real(*args, **settings)):
            if number == 0:
                peak.append(live_bytes())
            yield found

    monkeypatch.setattr(cells, "solve", watched)

    def highest(n_layers: int, max_bytes: int | None) -> tuple[int, Any]:
        sites = [Site(kind, layer) for layer in range(n_layers) for kind in ("resid_pre", "attn_out", "mlp_out")]
        peak.clear()
        gc.collect()
        before = live_bytes()
        result = probe_totals(model, batch, sites=sites, **options, fit=FitOptions(max_bytes=max_bytes))
        return max(peak) - before, result.frame()

    (four, _), (eight, table), (whole, at_once) = highest(4, 2**21), highest(8, 2**21), highest(8, None)
    assert eight < 1.1 * four
    assert eight < 2**21 < whole
    assert table.drop(columns=["ci_low", "ci_high"]).equals(at_once.drop(columns=["ci_low", "ci_high"]))
