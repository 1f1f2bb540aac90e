"""What many runs say of depth: the frontier of solved lengths, the laws fitted to it, what tokens and layers cost."""
