"""Static files of a figure: its words as text, no network, and a clear word where something is missing."""

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cotinterp.results import static
from tests.results.test_result import TABLE, Accuracy


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What the browser that draws asks of its proxy, where otherwise nobody listens."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                heard.append(connection.recv(4096))

    threading.Thread(target=listen, daemon=True).start()
    monkeypatch.setattr(static, "NOWHERE", f"127.0.0.1:{listener.getsockname()[1]}")
    yield heard
    listener.close()


@pytest.mark.browser
def test_words_are_text_in_the_svg_and_the_figure_asks_for_nothing(tmp_path: Path, asked: list[bytes]) -> None:
    written = Accuracy(TABLE).save(tmp_path, "accuracy", formats=("svg", "pdf", "png"))
    assert [path.name for path in written] == [
        "accuracy.csv",
        "accuracy.html",
        "accuracy.svg",
        "accuracy.pdf",
        "accuracy.png",
    ]
    svg, pdf, png = (path.read_bytes() for path in written[2:])
    for words in (b"Accuracy of &#60;prompt&#62;</text>", b">k</text>", b">accuracy</text>"):
        assert words in svg
    assert b'width="1200"' in svg
    assert b"<image" not in svg
    assert pdf.startswith(b"%PDF")
    assert png.startswith(b"\x89PNG")
    # What Chromium asks for by itself reaches nobody; a figure would ask for MathJax.
    assert [request for request in asked if b"cdnjs" in request or b"plot" in request] == []


@pytest.mark.parametrize("formats", [("svg", "gif"), "svg", ("html",)])
def test_an_unknown_format_is_refused_before_anything_is_written(formats, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give some of svg, pdf, png"):
        Accuracy(TABLE).save(tmp_path, "accuracy", formats=formats)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"BROWSER_PATH=.*nowhere: install it"):
        Accuracy(TABLE).save(tmp_path, "accuracy", formats=["pdf"])
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install cotinterp\[static\]"):
        Accuracy(TABLE).save(tmp_path, "accuracy", formats=["pdf"])
    assert list(tmp_path.iterdir()) == []
    assert len(Accuracy(TABLE).save(tmp_path, "accuracy")) == 2  # the page needs neither
