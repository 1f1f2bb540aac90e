"""A scan finds a model that knows the names, keeps its level on models that do not, and says when it cannot tell."""

from itertools import product

import numpy as np
import pytest
import torch

from cotinterp.mechanism.probing.controls import Controls, hold_out, renamed_totals, renamings
from cotinterp.mechanism.probing.coordinates import coordinates
from cotinterp.mechanism.probing.fit import Target, fit_probes
from cotinterp.mechanism.probing.linear_probe import ProbedAt
from cotinterp.mechanism.probing.result import ProbeResult
from cotinterp.tasks import get_task

Z6 = get_task("z6")
PAIRS = np.array(list(product(range(6), repeat=2)))
ONE_HOT = torch.eye(6)


def ignorant(operands: np.ndarray, seed: int) -> torch.Tensor:
    """Random features of the unordered operands: what an untrained average of embeddings has, and no arithmetic."""
    generator = torch.Generator().manual_seed(seed)
    bag = sum(ONE_HOT[torch.from_numpy(column)] for column in operands.T)
    return torch.relu(bag @ torch.randn(6, 30, generator=generator))


def scanned(features: dict[str, torch.Tensor], operands: np.ndarray, seed: int, n_controls: int = 1) -> ProbeResult:
    names = renamings(Z6, operands, 19, rng=np.random.default_rng([seed, 2]))
    return fit_probes(
        {ProbedAt(site=name): rows for name, rows in features.items()},
        {"s_1": Target(truth=Z6.steps(operands).total[:, 0], renamed=renamed_totals(Z6, operands, 1, names))},
        hold_out(np.arange(len(operands)), seed=seed),
        controls=Controls(n_controls=n_controls, n_shuffles=0, seed=seed),
    )


def twice(seed: int) -> np.ndarray:
    """Every ordered pair of operands twice, less a few: enough rows, and each pair has its mirror image."""
    return np.random.default_rng(seed).permutation(np.concatenate([PAIRS, PAIRS]))[:66]


def test_what_knows_the_names_is_flagged_and_noise_beside_it_is_not() -> None:
    operands = twice(0)
    known = ONE_HOT[torch.from_numpy(operands.sum(1) % 6)]
    noise = torch.randn(66, 6, generator=torch.Generator().manual_seed(0))
    scan = scanned({"known": known, "bag": ignorant(operands, 0), "noise": noise}, operands, 0).scan()
    table = scan.frame().set_index("site")
    assert table["flagged"].to_dict() == {"known": True, "bag": False, "noise": False}
    assert table.loc["known", "p_adjusted"] == 1 / 20
    assert table.loc["known", "accuracy"] == 1.0
    assert (table["n_null"] == 19).all()
    assert (table["null_max"] >= table["null_mean"]).all()


def test_level_is_kept_without_knowledge_and_random_labels_would_not_keep_it() -> None:
    flagged = {"renamed": 0, "control": 0}
    for seed in range(14):
        operands = twice(seed)
        features = {"a": ignorant(operands, seed), "b": ignorant(operands, 100 + seed)}
        flagged["renamed"] += int(scanned(features, operands, seed).scan().frame()["flagged"].any())
        if seed < 6:
            known = scanned(features, operands, seed, n_controls=19)
            flagged["control"] += int(known.scan(null="control").frame()["flagged"].any())
    # Binomial: more than 4 of 14 at a true 5% happens once in 2,000 times.
    assert flagged["renamed"] <= 4
    # Sums do not depend on the order, and these features cannot see it: no knowledge is needed to do well at s_1.
    assert flagged["control"] >= 4


def test_coordinates_share_their_draws_and_are_corrected_together() -> None:
    task = get_task("digit-sum")
    operands = np.array(list(product(range(10), repeat=2)))
    total = task.steps(operands).total[:, 0]
    parity_alone = torch.cat([ONE_HOT[:2][torch.from_numpy(total % 2)], torch.randn(100, 4)], dim=1)
    names = renamings(task, operands, 19, rng=np.random.default_rng(0))
    result = fit_probes(
        {"x": parity_alone},
        {"s_1": Target(truth=total, renamed=renamed_totals(task, operands, 1, names))},
        hold_out(np.arange(100)),
        coordinates=coordinates(task),
        controls=Controls(n_controls=2),
    )
    table = result.scan().frame().set_index("target")
    assert table["flagged"].to_dict() == {
        "s_1": False,
        "parity of s_1": True,
        "units of s_1": False,
        "tens of s_1": False,
    }
    value, parity, units, _ = result.cells
    assert (value.control_truth % 2 == parity.control_truth).all()
    assert (value.control_truth % 10 == units.control_truth).all()


def test_a_parity_of_six_symbols_has_too_few_other_names_to_be_found() -> None:
    # Ten ways of splitting six symbols into two halves of three: one in ten namings has the true one's parity.
    operands = np.array(list(product(range(6), repeat=3)))
    names = renamings(Z6, operands, 39, rng=np.random.default_rng(0))
    total = Z6.steps(operands).total[:, 1]
    result = fit_probes(
        {"x": ONE_HOT[:2][torch.from_numpy(total % 2)]},
        {"s_2": Target(truth=total % 2, renamed=renamed_totals(Z6, operands, 2, names) % 2)},
        hold_out(np.arange(216)),
    )
    row = result.scan().frame().iloc[0]
    assert (row["accuracy"], row["null_max"], row["flagged"]) == (1.0, 1.0, False)


def test_circles_report_how_much_they_explain() -> None:
    total = twice(0).sum(1) % 6
    angle = 2 * np.pi * total / 6
    rows = torch.from_numpy(np.stack([np.cos(angle), np.sin(angle)], axis=1)).float()
    result = fit_probes(
        {"x": rows},
        {"s_1": total},
        hold_out(np.arange(66)),
        coordinates=coordinates(Z6),
        controls=Controls(n_controls=4),
    )
    table = result.detail().set_index("target")
    assert table.loc["fourier 1 of s_1", ["accuracy", "r_squared"]].tolist() == pytest.approx([1.0, 1.0], abs=2e-3)
    assert table.loc["fourier 2 of s_1", "r_squared"] < 0.2
    assert (table["control_r_squared"].dropna() < 0.3).all()
    assert table["r_squared"].isna().tolist() == [True, True, False, False]


def test_too_few_or_unequal_labelings_are_refused() -> None:
    operands = twice(0)
    result = scanned({"a": ignorant(operands, 0)}, operands, 0)
    with pytest.raises(ValueError, match=r"19 renamed labelings.*at level 0.01 .* fewer than 99.*n_renamings"):
        result.scan(0.01)
    with pytest.raises(ValueError, match=r"1 control labelings.*n_controls of 19"):
        result.scan(null="control")
    plain = fit_probes({"a": ignorant(operands, 0)}, {"s_1": operands.sum(1) % 6}, hold_out(np.arange(66)))
    with pytest.raises(ValueError, match="0 renamed labelings"):
        plain.scan()
    with pytest.raises(ValueError, match="strictly between"):
        result.scan(1.0)
    more = fit_probes(
        {"b": ignorant(operands, 0)},
        {"s_1": operands.sum(1) % 6},
        hold_out(np.arange(66)),
        controls=Controls(n_controls=20),
    )
    joined = ProbeResult(scanned({"a": ignorant(operands, 0)}, operands, 0, n_controls=19).cells + more.cells)
    with pytest.raises(ValueError, match=r"\[19, 20\] control labelings"):
        joined.scan(null="control")


def test_models_are_scanned_one_by_one_and_the_baseline_is_left_out() -> None:
    operands = twice(0)
    known = ONE_HOT[torch.from_numpy(operands.sum(1) % 6)]
    names = renamings(Z6, operands, 19, rng=np.random.default_rng(0))
    at = [ProbedAt(site="x", model=model) for model in ("trained", "untrained")]
    result = fit_probes(
        {at[0]: known, at[1]: ignorant(operands, 0), ProbedAt(site="input"): known},
        {"s_1": Target(truth=operands.sum(1) % 6, renamed=renamed_totals(Z6, operands, 1, names))},
        hold_out(np.arange(66)),
        labels={"task": "z6"},
    )
    scan = result.scan()
    assert scan.frame()[["task", "model", "flagged"]].values.tolist() == [
        ["z6", "trained", True],
        ["z6", "untrained", False],
    ]
    assert scan.skipped == 1
    grids = [
        np.array(trace.z, dtype=float) for trace in scan.figure().data if trace.type == "heatmap" and trace.coloraxis
    ]
    assert sorted(float(grid[0, 0]) for grid in grids if np.isfinite(grid).all()) == [1.0]
