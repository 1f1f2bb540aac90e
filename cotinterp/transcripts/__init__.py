"""What is written: vocabulary, roles, regimes, problems to batches, minimal pairs, parsing of what a model wrote."""
