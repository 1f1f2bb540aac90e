"""Tables as a run of two tasks and two regimes leaves them, from a seeded generator: a report needs no more."""

import numpy as np
import pandas as pd
import pytest

from cotinterp.depth.compute import accuracy_against_compute
from cotinterp.depth.frontier import depth_frontier
from cotinterp.depth.simulator import length_table
from cotinterp.figures.labels import RunKey
from cotinterp.report import AttentionView, Manifest, ReportInputs
from cotinterp.report.verdicts import verdict_tables
from cotinterp.results.intervals import wilson
from tests.depth.made_up_sweep import made_up_sweep
from tests.report.verdict_frames import made_up_verdicts

LAYERS, HEADS, TASKS, REGIMES, KS = 4, 4, ("digit-sum", "s3"), ("direct", "cot"), range(2, 7)
LABELS = ("total reader", "operand reader", "mixed")


def transcript(regime: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]:
    """Tokens, roles and steps of `<3+4+5>` with its response: 7 and 12, the 12 in two characters."""
    tokens = [("<", "prompt_start", -1)]
    for index, digit in enumerate("345"):
        tokens += [("+", "operator", index)] if index else []
        tokens.append((digit, "operand", index))
    tokens.append((">", "prompt_end", -1))
    if regime == "cot":
        tokens.append(("{", "trace_start", -1))
        for step, (previous, operand, total) in enumerate((("3", "4", "7"), ("7", "5", "12")), start=1):
            tokens += [(";", "step_end", step - 1)] if step > 1 else []
            tokens += [
                (previous, "previous_total", step),
                ("+", "step_operator", step),
                (operand, "step_operand", step),
            ]
            tokens += [("=", "equals", step), *((character, "total", step) for character in total)]
        tokens.append(("}", "trace_end", -1))
    tokens += [("1", "answer", 2), ("2", "answer", 2), ("#", "end", -1)]
    symbols, roles, steps = zip(*tokens, strict=True)
    return symbols, roles, steps


def places(regime: str) -> list[tuple[str, int]]:
    """The distinct (role, step) of the transcript in reading order."""
    _, roles, steps = transcript(regime)
    return list(dict.fromkeys(zip(roles, steps, strict=True)))


def _runs() -> list[dict[str, object]]:
    return [{"task": task, "regime": regime, "run_seed": 0} for task in TASKS for regime in REGIMES]


def _accuracy(rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for run in _runs():
        for split in ("heldout", "train"):
            for k in KS:
                n = min(1000, 20 * 4**k // 3)
                share = 0.99 if run["regime"] == "cot" else 0.95 - 0.13 * (k - 2) + 0.03 * (split == "train")
                correct = int(rng.binomial(n, share))
                low, high = wilson(correct, n)
                measured = {"n": n, "correct": correct, "accuracy": correct / n, "ci_low": low, "ci_high": high}
                rows.append(run | {"split": split, "k": k} | measured)
    return pd.DataFrame(rows)


def _errors(rng: np.random.Generator) -> pd.DataFrame:
    faults = {"direct": ("wrong_answer", "never_ended")}
    cot = (
        "correct_with_faulty_trace",
        "arithmetic_slip",
        "copied_wrong_total",
        "wrong_number_of_steps",
        "malformed_trace",
    )
    rows = []
    for run in _runs():
        for k in KS:
            names = faults.get(str(run["regime"]), cot)
            counts = rng.integers(0, 6 * k if run["regime"] == "cot" else 90 * k, size=len(names))
            total = 1000
            rows.append(
                run | {"k": k, "category": "correct", "count": total - counts.sum(), "share": 1 - counts.sum() / total}
            )
            rows += [
                run | {"k": k, "category": name, "count": count, "share": count / total}
                for name, count in zip(names, counts, strict=True)
            ]
    return pd.DataFrame(rows)


def _trace_edits(rng: np.random.Generator) -> pd.DataFrame:
    shares = {"substitute_total": (0.9, 0.06), "none": (0.98, 0.0), "shuffled_target": (0.04, 0.05)}
    rows = []
    for run in (run for run in _runs() if run["regime"] == "cot"):
        for edit, (follows, ignores) in shares.items():
            for step in range(1, 6):
                counts = rng.multinomial(600, (follows, ignores, 1 - follows - ignores))
                for outcome, count in zip(("follows", "ignores", "other"), counts, strict=True):
                    if edit == "none" and outcome == "ignores":
                        continue
                    low, high = wilson(int(count), 600)
                    measured = {"n": 600, "rate": count / 600, "ci_low": low, "ci_high": high}
                    rows.append(run | {"edit": edit, "step": step, "outcome": outcome} | measured)
    return pd.DataFrame(rows)


def _trace_edit_kinds(rng: np.random.Generator) -> pd.DataFrame:
    """Two kinds that are cut, two that are closed, one with nothing to follow, and the control in both forms."""
    kinds = {
        ("substitute_total", False): (0.9, 0.06, 0.0),
        ("none", False): (0.98, 0.0, 0.0),
        ("none", True): (0.99, 0.0, 0.0),
        ("swap_prefix", False): (0.8, 0.1, 0.0),
        ("truncate", True): (0.5, 0.1, 0.3),
        ("swap", True): (0.95, 0.02, 0.0),
        ("fill_totals", True): (0.0, 0.2, 0.6),
    }
    rows = []
    for run in (run for run in _runs() if run["regime"] == "cot"):
        for (edit, closed), (follows, ignores, resumed) in kinds.items():
            *counts, rest = rng.multinomial(500, (follows, ignores, resumed, 1 - follows - ignores - resumed))
            shares = {"follows": counts[0], "ignores": counts[1], "other": counts[2] + rest}
            undefined = {"none": "ignores", "fill_totals": "follows"}.get(edit)
            shares |= {"resumed": counts[2]} if closed else {}
            for outcome, count in shares.items():
                if outcome != undefined:
                    low, high = wilson(int(count), 500)
                    measured = {"n": 500, "rate": count / 500, "ci_low": low, "ci_high": high}
                    rest_of_chance = 0.95 if edit == "fill_totals" else 0.85
                    chance = {"follows": 0.1, "ignores": 0.05, "other": rest_of_chance, "resumed": None}[outcome]
                    by_chance = {"by_chance": None if edit == "none" else chance}
                    rows.append(run | {"edit": edit, "closed": closed, "outcome": outcome} | measured | by_chance)
    return pd.DataFrame(rows).astype({"by_chance": float})


def _probes(rng: np.random.Generator) -> pd.DataFrame:
    sites = [(-1, "input"), *((layer, "resid_pre") for layer in range(LAYERS)), (LAYERS - 1, "resid_post")]
    rows = []
    for run in _runs():
        for role, step in places(str(run["regime"])):
            for model in ("trained", "untrained"):
                for layer, kind in sites if model == "trained" else sites[1:]:
                    for target in (1, 2):
                        if role in ("total", "answer") and step == target:
                            continue
                        accuracy = float(
                            np.clip(rng.normal(0.2 + 0.15 * layer * (model == "trained"), 0.08), 0.01, 0.99)
                        )
                        control = float(rng.uniform(0.02, 0.1))
                        low, high = wilson(round(accuracy * 400), 400)
                        site = kind if layer < 0 else f"L{layer}.{kind}"
                        cell = {"model": model, "site": site, "kind": kind, "layer": layer, "head": -1}
                        cell |= {"role": role, "step": step}
                        size = {"target": f"s_{target}", "left_out": "problems", "n_train": 1600, "n_test": 400}
                        found = {"accuracy": accuracy, "control_accuracy": control, "selectivity": accuracy - control}
                        rows.append(run | cell | size | found | {"chance": 0.05, "ci_low": low, "ci_high": high})
    return pd.DataFrame(rows)


def _patching(rng: np.random.Generator) -> pd.DataFrame:
    kinds = [("resid_pre", -1), ("attn_out", -1), ("mlp_out", -1), *(("z", head) for head in range(HEADS))]
    rows = []
    for run in _runs():
        for pair in ("operand 1", "written_total 1") if run["regime"] == "cot" else ("operand 1",):
            for direction in ("denoise", "noise"):
                shared = run | {"pair": pair, "direction": direction, "metric": "logit_diff", "n": 64, "reason": ""}
                for baseline, effect in (("self", 0.0), ("full", 1.0), ("random_donor", 0.02)):
                    cell = {"site": baseline, "kind": baseline, "layer": -1, "head": -1, "role": "all", "step": -1}
                    rows.append(shared | cell | {"effect": effect, "ci_low": effect, "ci_high": effect})
                for kind, head in kinds:
                    for layer in range(LAYERS):
                        site = f"L{layer}.{kind}" if head < 0 else f"L{layer}H{head}.{kind}"
                        for role, step in places(str(run["regime"])):
                            effect = float(np.clip(rng.normal(0.0, 0.25), -0.4, 1.1))
                            cell = {
                                "site": site,
                                "kind": kind,
                                "layer": layer,
                                "head": head,
                                "role": role,
                                "step": step,
                            }
                            rows.append(
                                shared | cell | {"effect": effect, "ci_low": effect - 0.05, "ci_high": effect + 0.05}
                            )
    return pd.DataFrame(rows)


def _heads(rng: np.random.Generator) -> pd.DataFrame:
    rows = [
        run
        | {
            "site": f"L{layer}H{head}.z",
            "kind": "z",
            "layer": layer,
            "head": head,
            "attribution": rng.normal(),
            "ablation_effect": rng.normal(0.2, 0.3),
        }
        | {"attention_to_previous_total": rng.uniform(), "attention_to_next_operand": rng.uniform()}
        | {"label": LABELS[(layer * HEADS + head) % 3], "readout": "total 3", "n": 40, "dropped": 0, "note": ""}
        for run in _runs()
        for layer in range(LAYERS)
        for head in range(HEADS)
    ]
    return pd.DataFrame(rows)


def _budget() -> pd.DataFrame:
    rows = [
        (task, regime, k, LAYERS, k - 1, int(np.ceil(np.log2(k))), tokens, tokens * LAYERS, slots)
        for task in TASKS
        for regime in REGIMES
        for k in KS
        for tokens, slots in [(2.6, 4.0) if regime == "direct" else (8.0 * k - 4, 32.0 * k - 26)]
    ]
    columns = [
        "task",
        "regime",
        "k",
        "n_layers",
        "additions",
        "tree_levels",
        "response_tokens",
        "layer_operations",
        "slots_before_answer",
    ]
    return pd.DataFrame(rows, columns=columns)


def _view(run: dict[str, object], rng: np.random.Generator) -> AttentionView:
    tokens, roles, steps = transcript(str(run["regime"]))
    raw = rng.exponential(size=(LAYERS, HEADS, len(tokens), len(tokens))) ** 2
    patterns = np.tril(raw)
    key = RunKey(str(run["task"]), str(run["regime"]), 0)
    return AttentionView(key, tokens, roles, steps, patterns / patterns.sum(-1, keepdims=True))


def _manifest() -> Manifest:
    spec = {"k_min": 2, "k_max": 6, "n_train": 3000, "model": {"n_layers": LAYERS, "d_model": 128}, "seed": 0}
    specs = {f"{run['task']}-{run['regime']}-0f0f0f0f": run | spec for run in _runs()}
    return Manifest(
        command="cotinterp reproduce --out out/example",
        specs=specs,
        seeds=[0],
        weight_hashes=dict.fromkeys(specs, "a3" * 32),
        data_hashes=dict.fromkeys(specs, "b4" * 32),
        versions={"python": "3.11.2", "torch": "2.13.0", "transformer-lens": "4.3.0", "cotinterp": None},
        git_revision="c5" * 20,
        git_dirty=True,
        platform="Linux-6.1-x86_64",
        cpu_count=2,
        threads=2,
        wall_time_seconds=321.5,
    )


def _pair_families() -> pd.DataFrame:
    """What a reader of the trace shows, with a few slips."""
    counts = {"prompt_operand": (97, 2, 1), "written_total": (4, 95, 1), "both": (1, 99, 0), "unrelated": (98, 0, 2)}
    rows = []
    for run in (run for run in _runs() if run["regime"] == "cot"):
        for family, cells in counts.items():
            for prediction, count in zip(("answer", "foil", "other"), cells, strict=True):
                low, high = wilson(count, 100)
                measured = {"count": count, "n": 100, "share": count / 100, "ci_low": low, "ci_high": high}
                place = {"family": family, "readout": "total 2", "prediction": prediction}
                rows.append(run | place | measured | {"source": "trace", "would_decide": ""})
    return pd.DataFrame(rows)


def _patching_scan() -> pd.DataFrame:
    cell = {"pair": "operand 1 -> answer 3", "direction": "denoise", "site": "L0H1.z", "kind": "z"}
    place = {"layer": 0, "head": 1, "role": "operand", "step": 1, "metric": "logit_diff", "family": "scan"}
    found = {"effect": 0.5, "ci_low": 0.3, "ci_high": 0.7, "p_adjusted": 0.001, "flagged": True, "reason": ""}
    counts = {"n": 40, "dropped": 0, "distinguished": 0.9}
    return pd.DataFrame([run | cell | place | found | counts for run in _runs()])


def _circuits() -> dict[str, pd.DataFrame]:
    """Three edges of each run, and what the first of them keep."""
    pair = {"pair": "total 2 -> total 3"}
    sizes = {0: 0.0, 1: 0.55, 2: 0.95, 3: 1.0}
    edges = {"embed->L0H1.v": 0.6, "L0H1->logits": 0.5, "embed->L0H1.k": 0.01}
    kept = [
        run
        | pair
        | {"size": size, "connected": max(0, size - 1), "faithfulness": value, "accuracy": value, "n": 20}
        | {"ci_low": value - 0.02, "ci_high": value + 0.02}
        for run in _runs()
        for size, value in sizes.items()
    ]
    found = [
        run
        | pair
        | {"edge": edge, "effect": value, "ci_low": value - 0.02, "ci_high": value + 0.02, "n": 20, "rank": i}
        for run in _runs()
        for i, (edge, value) in enumerate(edges.items(), start=1)
    ]
    agreed = [run | pair | {"method": "eap-ig", "edges": "all", "n": 3, "pearson": 0.9} for run in _runs()]
    return {"faithfulness": pd.DataFrame(kept), "edges": pd.DataFrame(found), "edge_agreement": pd.DataFrame(agreed)}


def _attention_by_role() -> pd.DataFrame:
    cell = {
        "site": "L0H1.pattern",
        "kind": "pattern",
        "layer": 0,
        "head": 1,
        "dest": "equals",
        "src": "total",
        "attention": 0.4,
        "ci_low": 0.3,
        "ci_high": 0.5,
    }
    return pd.DataFrame([run | cell | {"chance": 0.1, "n": 20} for run in _runs()])


def _swept() -> dict[str, pd.DataFrame]:
    """What a report takes from a sweep over depth and length."""
    table = made_up_sweep(TASKS, direct=(1, 2), cot=(1,), k_max=6)
    return {
        "frontier": depth_frontier(table).frame(),
        "answer_lengths": length_table(list(TASKS)),
        "compute": accuracy_against_compute(table).frame(),
    }


@pytest.fixture(scope="session")
def inputs() -> ReportInputs:
    """Two tasks by two regimes, every table, with attention and manifest."""
    rng = np.random.default_rng(0)
    tables = {
        "accuracy": _accuracy(rng),
        "errors": _errors(rng),
        "trace_edits": _trace_edits(rng),
        "trace_edit_kinds": _trace_edit_kinds(np.random.default_rng(1)),
        "probes": _probes(rng),
        "pair_families": _pair_families(),
        "patching": _patching(rng),
        "patching_scan": _patching_scan(),
        "heads": _heads(rng),
        "budget": _budget(),
        "attention_by_role": _attention_by_role(),
        **_circuits(),
        "label_rules": pd.DataFrame({"label": LABELS[:2], "rule": ["mass > 0.5 on <the total>", "mass > 0.5"]}),
        **_swept(),
        **verdict_tables(made_up_verdicts()),
    }
    rules = dict(zip(LABELS[:2], ["mass > 0.5 on <the total>", "mass > 0.5"], strict=True))
    return ReportInputs(
        tables, tuple(_view(run, rng) for run in _runs()), _manifest(), rules, made_up_verdicts().json()
    )
