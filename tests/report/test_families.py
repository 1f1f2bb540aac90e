"""The figure and the sentences of the pair families."""

from cotinterp.report.families import families_figure, family_findings

from cotinterp.report.inputs import ReportInputs


def test_the_sentence_names_the_source_and_the_four_shares(inputs: ReportInputs) -> None:
    sentence = family_findings(inputs.tables["pair_families"])[0]
    assert "total 2 comes from the trace." in sentence
    assert "prompt operand in 2.0% of 100 (0.6% to 7.0%)" in sentence
    assert "written total in 95.0% of 100" in sentence
    assert "both in 99.0% of 100" in sentence
    assert "unrelated operand in 0.0% of 100" in sentence


def test_every_other_source_has_words_of_its_own(inputs: ReportInputs) -> None:
    frame = inputs.tables["pair_families"]
    said = {source: family_findings(frame.assign(source=source))[0] for source in ("prompt", "either", "undecided")}
    assert "total 2 comes from the prompt." in said["prompt"]
    assert "total 2 follows either change." in said["either"]
    assert "total 2 is undecided." in said["undecided"]


def test_bars_are_whole_and_stand_in_the_order_of_the_changes(inputs: ReportInputs) -> None:
    figure = families_figure(inputs.tables["pair_families"].query("task == 's3'"))
    totals: dict[str, float] = {}
    for trace in figure.data:
        for change, share in zip(trace.x, trace.y, strict=True):
            totals[change] = totals.get(change, 0.0) + share
    assert list(figure.layout.xaxis.categoryarray) == ["prompt operand", "written total", "both", "unrelated operand"]
    assert {round(total, 9) for total in totals.values()} == {1.0}
    assert {trace.name for trace in figure.data} == {"as before", "follows the change", "neither"}
