"""Many runs: dealt to processes, watched while they work, and what became of each."""
