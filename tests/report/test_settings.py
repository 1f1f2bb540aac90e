"""What is equal in all runs is said once, above the sections and in one table; what is not stays with each run."""

import pandas as pd

from cotinterp.report import ReportInputs, build_report
from cotinterp.report.settings import settings, settings_line, the_seed, without_the_seed

SPECS = {
    "a": {"seed": 0, "k_min": 2, "k_max": 6, "regime": "direct", "model": {"n_layers": 4, "ks": [1, 2]}},
    "b": {"seed": 0, "k_min": 2, "k_max": 6, "regime": "cot", "model": {"n_layers": 4, "ks": [1, 2], "new": 1}},
}


def test_equal_settings_stand_once_and_the_rest_by_run() -> None:
    equal, apart = settings(SPECS)
    assert equal == {"seed": 0, "k_min": 2, "k_max": 6, "model.n_layers": 4, "model.ks": [1, 2]}
    assert apart.to_dict("list") == {"setting": ["regime", "model.new"], "a": ["direct", ""], "b": ["cot", "1"]}
    assert settings({})[0] == {}


def test_one_seed_is_said_above_the_sections_and_not_in_them(inputs: ReportInputs) -> None:
    line = settings_line(SPECS, inputs.tables)
    assert line.startswith("All models below, unless said otherwise: training seed 0, 4 layers, 2 to 6 operands.")
    page = build_report(inputs)
    findings = page[page.index('id="accuracy"') : page.index('id="attention"')].split('<ul class="finding">')[1:]
    assert line.split(":")[0] in page
    assert not [part for part in findings if "seed" in part.split("</ul>")[0].replace("training seeds", "")]


def test_several_seeds_stay_where_they_are(inputs: ReportInputs) -> None:
    frame = inputs.tables["accuracy"]
    tables = {"accuracy": pd.concat([frame, frame.assign(run_seed=1)]), "claim_seeds": inputs.tables["claim_seeds"]}
    assert the_seed(tables) is None
    assert "run_seed" in without_the_seed(tables)["accuracy"]
    assert "seed" not in settings_line({}, tables)
    alone = without_the_seed({"accuracy": frame, "claim_seeds": tables["claim_seeds"]})
    assert "run_seed" not in alone["accuracy"]
    assert "run_seed" in alone["claim_seeds"]
