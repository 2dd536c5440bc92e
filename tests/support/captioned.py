"""Settings of tiny runs on captioned images."""

STEPS = 40


TOWERS = """{
    embed_dim: 24, vision_cfg: {image_size: 32, patch_size: 8, width: 32, layers: 1, head_width: 16},
    text_cfg: {context_length: 12, vocab_size: 49408, width: 24, heads: 2, layers: 1, no_causal_mask: true}}"""


TINY = [
    *f"""data.source=folder model.predictor.width=32 model.predictor.depth=1 model.predictor.heads=2
    model.predictor.blocks=joint loss.regulariser=sigreg optim.batch_size=8 steps={STEPS} log_every=1
    checkpoint_every=10 evaluate.enabled=false evaluate.report=false
    compute.precision=fp32""".split(),
    f"model.size={' '.join(TOWERS.split())}",
]
