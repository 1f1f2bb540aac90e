"""`python -m cotinterp.cli`."""

from cotinterp.cli import main

main()
