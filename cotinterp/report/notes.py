"""What stands in place of a section of the report whose table takes more than one command to make."""

_SWEPT = (
    "Not here yet: no <code>tables/{}.csv</code>. <code>cotinterp sweep analyses/grids/depth_frontier.toml --root "
    "RUNS</code> trains the sweep, <code>cotinterp collect</code> with the same grid and root writes "
    "analyses/out/depth_frontier.csv, and <code>cotinterp reproduce</code> draws it."
)

NOTES: dict[str, str] = {
    "verdicts": (
        "Not judged: no <code>tables/verdicts.csv</code>. Verdicts need evidence from several seeds: "
        "<code>cotinterp claims --from checkpoints --train</code> trains what is missing, measures it, and stores the "
        "evidence; <code>cotinterp reproduce</code> then judges it."
    ),
    "frontier": _SWEPT.format("frontier"),
    "compute": _SWEPT.format("compute"),
}
"""By the name of the section; HTML."""
