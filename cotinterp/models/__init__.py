"""Who learns it: specs of small transformers, built as TransformerLens native bridges."""
