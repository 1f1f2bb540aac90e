"""The explorer in a notebook: the same module over the same session, as an anywidget (extra `notebook`)."""

from typing import Any

import anywidget
import traitlets

from cotinterp.explore.server import WEB
from cotinterp.explore.session import Explorer


class ExplorerWidget(anywidget.AnyWidget):
    """Shows `Explorer(runs)` where it is displayed.

    `state` is what the page has behind its `#`: numbers that open the same view, there or here.
    """

    _esm = WEB / "explore.js"
    _css = WEB / "explore.css"
    state = traitlets.Unicode("").tag(sync=True)

    def __init__(self, explorer: Explorer, **fields: Any) -> None:
        super().__init__(**fields)
        self.explorer = explorer
        self.on_msg(self._asked)

    def _asked(self, _: object, content: Any, __: object) -> None:
        """Answers one message of the module."""
        fields = content if isinstance(content, dict) else {}
        request = fields.get("request")
        answer = self.explorer.answer(request if isinstance(request, dict) else {})
        self.send({"id": fields.get("id"), "answer": answer})
