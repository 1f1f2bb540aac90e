"""Does the depth that a task needs grow with its length, and do written totals lift the need?

From a task, yours too, to the verdict in one command. Trains direct models of several depths, cot beside them, and what
cot has to be compared with: filler (equal tokens) and a direct model as dear as cot in operations an answer, deeper and
wider. Begun again, it goes on where it was. The same as `cotinterp depth`.

    python -m analyses.serial_depth path/to/file.py:ClassName [--quick]
"""

from cotinterp.cli.experiments import depth_command
from cotinterp.cli.parsing import script

if __name__ == "__main__":
    script(depth_command, __doc__, resumed=True)
