"""The bar on the terminal, and the log of training that a killed process leaves behind."""

import io

import pytest
from rich.console import Console

from cotinterp.training.progress import MetricsLog, StepEvent, last_metrics, read_metrics, rich_progress


def test_the_line_shows_step_loss_rate_and_time_left():
    stream = io.StringIO()
    with rich_progress("digit-sum-cot", Console(file=stream, force_terminal=True, width=160)) as report:
        report(StepEvent(step=40, total=2000, loss=1.23456, lr=4e-4, tokens_per_second=20123.4, seconds_left=194.6))
    shown = stream.getvalue()
    for text in ("digit-sum-cot", "40/2000", "loss 1.2346", "lr 4.00e-04", "20,123 tokens/s", "3:15 left"):
        assert text in shown, text


def test_lines_can_be_read_while_the_log_is_open(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, after=0) as log:
        log.write({"step": 20, "loss": 0.125})
        assert read_metrics(path) == [{"step": 20, "loss": 0.125}]


def test_lines_past_the_step_of_resumption_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, after=0) as log:
        for step in (20, 40, 60):
            log.write({"step": step})
    with MetricsLog(path, after=40) as log:
        log.write({"step": 60, "loss": 1.0})
    assert read_metrics(path) == [{"step": 20}, {"step": 40}, {"step": 60, "loss": 1.0}]


def test_an_unfinished_last_line_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 20}\n{"step": 40, "lo')
    assert read_metrics(path) == [{"step": 20}]
    with MetricsLog(path, after=100) as log:
        log.write({"step": 40})
    assert read_metrics(path) == [{"step": 20}, {"step": 40}]


def test_no_log_has_no_lines(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_the_file_is_closed_when_the_run_fails(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", after=0)
    with pytest.raises(KeyboardInterrupt), log:
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="closed"):
        log.write({"step": 1})


def test_the_last_line_is_read_from_the_end_of_the_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert last_metrics(path) == {}
    path.write_text('{"step": 2')
    assert last_metrics(path) == {}
    lines = [f'{{"step": {step}, "loss": 0.123456789}}\n' for step in range(1000)]
    path.write_text("".join(lines) + '{"step": 10')
    assert last_metrics(path) == {"step": 999, "loss": 0.123456789}
