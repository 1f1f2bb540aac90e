"""What single attention heads write, read, and are needed for, at the readout of a contrast.

`table.head_table` sets the evidence side by side and labels each head (`labels`). Its parts are instruments of their
own: `attribution.logit_attribution`, what each component writes; `ablation.compare_ablations`, what is lost without a
set of heads; `knock_outs.knock_out_reads`, what is lost without one of their reads (`reads`);
`backups.backup_heads`, which heads stand in for which; `attention.attention_by_role`, `read_scores.iteration_scores`
and `read_scores.peakiness`, where heads look. `losses` and `attention_edits` are what ablations and knock-outs share.

Names are imported from these modules. All but `peakiness`, which needs transcripts and no readout, are called as
`(model, contrast, *, ...)`.
"""
