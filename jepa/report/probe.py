"""Words about the probe during training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jepa.checkpoint.file import best as best_checkpoint, read_step
from jepa.evaluate.online.probe import NEIGHBOURS
from jepa.report.charts import percent
from jepa.training.config import Config
from jepa.training.log import PROBE


def probe_words(metrics: Sequence[Mapping[str, Any]], config: Config[Any, Any]) -> str:
    """What the probe measured, and at which step it was best, as HTML that ends in a space; empty without a probe."""
    lines = [line for line in metrics if PROBE in line]
    if not lines:
        return ""
    probe, best, last = config.probe, max(lines, key=lambda line: line[PROBE]), lines[-1]
    words = (
        f"Every {probe.every:,} steps, a probe classified up to {probe.validation_samples:,} validation samples by "
        f"their {NEIGHBOURS} nearest neighbours among up to {probe.train_samples:,} training samples. The "
        f"standard error of such an accuracy is up to {50 / probe.validation_samples**0.5:.1f} percentage points. "
    )
    if best is last:
        return f"{words}It was best at its last step, {last['step']:,}: {percent(best[PROBE], 1)}. "
    return (
        f"{words}It was best at step {best['step']:,}: {percent(best[PROBE], 1)}, against {percent(last[PROBE], 1)} at "
        f"step {last['step']:,}. <code>checkpoints/best.pt</code>{_step(config.run_dir)} is the best one; "
        "<code>--step best</code> names it. "
    )


def _step(run_dir: Path) -> str:
    """The step of the best checkpoint: other than that of the best score, if samples changed during the run."""
    path = best_checkpoint(run_dir)
    return f" of step {read_step(path):,}" if path.exists() else ""
