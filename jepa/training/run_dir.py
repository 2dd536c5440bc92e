"""The run directory: made once, with the config that alone repeats the run."""

from typing import Any

from jepa.config import ConfigError, differences, plain, read_yaml, to_yaml
from jepa.training.config import Config


def prepare_run_dir(config: Config[Any, Any]) -> None:
    """Make the run directory and write the resolved config, which alone repeats the run, into it.

    Raises ConfigError where the directory holds a run with another config; what only tells how to run it may differ.
    """
    path = config.run_dir / "config.yaml"
    if path.exists():
        free = ["run_dir", "log_every", "checkpoint_every", "compute.", "evaluate.", "data.max_bad_fraction"]
        if config.loss.regulariser == config.model.contrast == "none":  # either sees a micro-batch at a time
            free.append("optim.accumulate")
        free += [f"data.{name} (None there" for name in config.data.completed]  # as before it was kept
        changed = [line for line in differences(read_yaml(path), plain(config)) if not line.startswith(tuple(free))]
        if changed:
            raise ConfigError(
                f"{config.run_dir} holds a run with another config: {'; '.join(changed[:5])}. "
                "Nothing was changed there; choose another run_dir, or remove that one"
            )
    try:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".partial")
        aside.write_text(to_yaml(config))
        aside.replace(path)
    except OSError as error:
        raise ConfigError(f"run_dir: {error}") from error
