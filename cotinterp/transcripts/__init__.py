"""What is written: problems become transcripts, transcripts become batches, and what a model wrote is parsed back.

`problems` samples and solves problems and decides the side of the split that each is on; `regimes` says how a solved
problem becomes a response; `render` writes a `Transcript` whose tokens have roles, steps and values (`roles`);
`batch.collate` lays transcripts side by side as a `Batch`, which finds places by role and never by arithmetic on
positions. `tags` are the states that a model of the regime `tagging` is to name at its operands. `pairs` and
`pair_families` make minimal pairs: two transcripts of one layout that differ in one thing. `parsing` reads responses.

Names are imported from these modules, most of which load neither torch nor pandas.
"""
