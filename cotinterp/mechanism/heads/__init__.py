"""What single attention heads write, read, and are needed for.

`table` puts it together and labels each head; `attribution` is what a head writes, `ablation` what is lost without it,
`knock_outs` what is lost without one of its reads, `backups` who stands in for whom.
"""
