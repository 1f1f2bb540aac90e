"""How it learns: specs of runs, one loop for every regime, checkpoints that are checked before they are believed."""
