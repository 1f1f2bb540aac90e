"""The bar on the terminal, and the log of training that a killed process leaves behind."""

import io

import pytest
from rich.console import Console

from cotinterp.models.weights import CheckpointError
from cotinterp.training.progress import (
    MetricsLog,
    StepEvent,
    last_metrics,
    metrics_line,
    read_metrics,
    rich_progress,
    sealed_metrics,
)


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
    path.write_text(metrics_line({"step": 20}) + '{"step": 40, "lo')
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
    lines = [metrics_line({"step": step, "loss": 0.123456789}) for step in range(1000)]
    path.write_text("".join(lines) + '{"step": 10')
    assert last_metrics(path) == {"step": 999, "loss": 0.123456789}


@pytest.mark.parametrize(
    "line",
    [
        metrics_line({"step": 40, "loss": 0.5}).replace("0.5", "0.4"),
        metrics_line({"step": 40, "loss": 0.5}).replace("loss", "lost"),
        metrics_line({"step": 40, "loss": 0.5}).replace("0.5", "1e999"),
        '{"step": 40, "loss": 0.5}\n',
        "\0\0\n",
        "[40]\n",
        "\xff\n",
    ],
)
def test_a_line_that_is_not_what_was_logged_is_named(tmp_path, line):
    """A changed digit is a line of the log like any other, but for its digest."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(metrics_line({"step": 20, "loss": 1.0}).encode() + line.encode("latin-1"))
    for read in (read_metrics, lambda path: MetricsLog(path, after=40)):
        with pytest.raises(
            CheckpointError, match=r"metrics.jsonl, line 2 .* Only the log is concerned: delete the file"
        ):
            read(path)
    with pytest.raises(CheckpointError, match="metrics.jsonl, last line "):
        last_metrics(path)


def test_lines_of_the_first_version_are_sealed_and_damaged_ones_are_not(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 20, "loss": 1.0}\n' + metrics_line({"step": 40}))
    path.write_text(sealed_metrics(path))
    assert read_metrics(path) == [{"step": 20, "loss": 1.0}, {"step": 40}]
    path.write_text(path.read_text().replace("1.0", "2.0"))
    with pytest.raises(CheckpointError, match="line 1 is damaged"):
        sealed_metrics(path)


def test_a_log_that_finds_no_room_names_its_file(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl", after=0) as log, open("/dev/full", "ab", buffering=0) as full:
        file, log._file = log._file, full
        with pytest.raises(OSError, match="cannot write .*metrics.jsonl: No space left on device"):
            log.write({"step": 1})
        log._file = file
