"""Start-up: `cotinterp --help` and `import cotinterp` against the imports of a script that uses TransformerLens.

Timed: a fresh Python process from its start to its end. The peer imports torch and TransformerLens, as a script does
before its first line. Equal: neither of the two is loaded by ours. Floor: a Python process that does nothing.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import cotinterp
from benchmarks.comparison import Agreement, Comparison
from benchmarks.workload import Amounts, Workload

HEAVY = ("torch", "transformer_lens")
_SAY = f"print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)"
STARTS: Mapping[str, str] = {
    "cotinterp --help": (
        f"import sys\nfrom cotinterp.cli import main\ntry:\n    main(['--help'])\nfinally:\n    {_SAY}"
    ),
    "import cotinterp": f"import sys\nimport cotinterp\n{_SAY}",
}


def start_ups(_: Workload, __: Amounts) -> Iterator[Comparison]:
    """Both commands."""
    for work, code in STARTS.items():
        yield Comparison(
            work=work,
            peer="import torch, transformer_lens",
            ours=partial(run_python, code),
            theirs=partial(run_python, f"import {', '.join(HEAVY)}"),
            agree=lambda ours, _: nothing_heavy(ours),
            floor=lambda _: bare_start(),
        )


def run_python(code: str) -> str:
    """What a fresh process that runs `code` writes to stderr. RuntimeError where it fails."""
    environment = os.environ | {"PYTHONPATH": str(Path(cotinterp.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{code!r} ended with status {done.returncode}: {done.stderr[-500:]}")
    return done.stderr


def nothing_heavy(stderr: str) -> Agreement:
    """Equal where the last line names no package that takes seconds to load."""
    loaded = (stderr.splitlines() or [""])[-1].strip()
    return Agreement(not loaded, f"loads {loaded}" if loaded else "loads neither torch nor transformer_lens")


def bare_start(repeats: int = 5) -> float:
    """Seconds of a Python process that does nothing, the median of several."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run_python("pass")
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[repeats // 2]
