"""One question a script: question, call, table, figure. `python -m analyses.head_attribution`."""
