"""Figures as files that need no browser to be read: drawn by the same plotly.js as the pages, through Kaleido."""

import asyncio
import importlib.util
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import plotly.graph_objects

FileFormat = Literal["svg", "pdf", "png"]
FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)

WIDTH = 1200
"""Pixels; that of the page that figures are drawn for."""
SCALE = {"png": 2.0}
"""Pixels of the file per pixel of the page, for print."""
NOWHERE = "127.0.0.1:9"
"""The proxy of the browser that draws, where nobody listens: Chromium by itself asks for updates and the time."""


def require_static(formats: Sequence[str]) -> str:
    """The browser that draws `formats`, known to be there; empty where none is asked for.

    Raises:
        ValueError: An unknown format.
        ModuleNotFoundError: Without Kaleido. FileNotFoundError: Without a Chromium. Each says what to install.
    """
    if isinstance(formats, str) or not set(formats) <= set(FORMATS):
        raise ValueError(
            f"formats={formats!r}: give some of {', '.join(FORMATS)}, such as formats=('svg', 'pdf'); the HTML page is "
            "written in any case"
        )
    if not formats:
        return ""
    if importlib.util.find_spec("kaleido") is None:
        raise ModuleNotFoundError("static figures need Kaleido, which is missing: `pip install cotinterp[static]`")
    from choreographer.browsers.chromium import Chromium

    found = Chromium.find_browser(skip_local=False)
    if found is None or shutil.which(found) is None:
        raise FileNotFoundError(
            f"static figures are drawn by Chromium, and there is none{f' at BROWSER_PATH={found}' if found else ''}: "
            "install it (Debian: `apt-get install chromium`), or name a Chromium or Chrome in BROWSER_PATH"
        )
    return str(found)


def static_images(figure: "plotly.graph_objects.Figure", formats: Sequence[str]) -> dict[str, bytes]:
    """`figure` in each of `formats` ("svg", "pdf", "png"), as the bytes of a file; one browser draws them all.

    Needs the extra `static` and a Chromium that is installed, which BROWSER_PATH may name. None is ever downloaded, and
    nothing is asked for on the network. Raises as `require_static` does.
    """
    browser = require_static(formats)
    if not formats:
        return {}
    # A notebook has an event loop of its own in this thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _drawn(figure, tuple(dict.fromkeys(formats)), browser)).result()


async def _drawn(figure: "plotly.graph_objects.Figure", formats: Sequence[str], browser: str) -> dict[str, bytes]:
    from kaleido import Kaleido  # type: ignore[import-untyped]

    # Left to itself, Kaleido asks a CDN for MathJax.
    async with Kaleido(mathjax=False, path=browser, proxy_server=NOWHERE) as kaleido:
        return {
            name: bytes(
                await kaleido.calc_fig(
                    figure,
                    opts={
                        "format": name,
                        "width": figure.layout.width or WIDTH,
                        "height": figure.layout.height,
                        "scale": SCALE.get(name, 1.0),
                    },
                )
            )
            for name in formats
        }
