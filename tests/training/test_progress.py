"""The live line shows what the event says."""

import io

from rich.console import Console

from cotinterp.training.progress import StepEvent, rich_progress


def test_the_line_shows_step_loss_rate_and_time_left():
    stream = io.StringIO()
    with rich_progress("digit-sum-cot", Console(file=stream, force_terminal=True, width=160)) as report:
        report(StepEvent(step=40, total=2000, loss=1.23456, lr=4e-4, tokens_per_second=20123.4, seconds_left=194.6))
    shown = stream.getvalue()
    for text in ("digit-sum-cot", "40/2000", "loss 1.2346", "lr 4.00e-04", "20,123 tokens/s", "3:15 left"):
        assert text in shown, text
