"""cotinterp: what written reasoning tokens buy a fixed-depth transformer, and by which mechanism."""
