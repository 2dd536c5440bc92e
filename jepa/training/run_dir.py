"""The run directory and its config.yaml, which is enough to repeat the run."""

from dataclasses import replace
from typing import Any, cast

from jepa.config import ConfigError, build, differences, plain, read_yaml, to_yaml
from jepa.training.config import Config


def prepare_run_dir(config: Config[Any, Any]) -> None:
    """Create the run directory and write the resolved config into it.

    Raises ConfigError if it holds a run with another config; settings that do not change the weights may differ.
    """
    saved = saved_config(config)
    free = ["run_dir", "log_every", "checkpoint_every", "compute.", "evaluate.", "data.max_bad_fraction"]
    if config.loss.regulariser == config.model.contrast == "none":  # both depend on the micro-batch
        free.append("optim.accumulate")
    changed = differences(plain(completed(saved, config)), plain(config)) if saved else []
    if changed := [line for line in changed if not line.startswith(tuple(free))]:
        raise _other_run(config, changed)
    path = config.run_dir / "config.yaml"
    try:
        config.run_dir.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".partial")
        aside.write_text(to_yaml(config))
        aside.replace(path)
    except OSError as error:
        raise ConfigError(f"run_dir: {error}") from error


def saved_config(config: Config[Any, Any]) -> Config[Any, Any] | None:
    """The config of the run in `config.run_dir`, None if there is no run; raises ConfigError if its sections differ."""
    path = config.run_dir / "config.yaml"
    if not path.exists():
        return None
    tree = read_yaml(path)
    config_type: Any = Config[type(config.data), type(config.model)]  # type: ignore[misc]
    try:
        return cast(Config[Any, Any], build(config_type, [tree]))
    except ConfigError as error:
        raise _other_run(config, differences(tree, plain(config))) from error


def completed(config: Config[Any, Any], known: Config[Any, Any]) -> Config[Any, Any]:
    """The config, with null `DataConfig.completed` settings taken from another config of the same run."""
    names = [name for name in config.data.completed if getattr(config.data, name) is None]
    return replace(config, data=replace(config.data, **{name: getattr(known.data, name) for name in names}))


def _other_run(config: Config[Any, Any], changed: list[str]) -> ConfigError:
    return ConfigError(
        f"{config.run_dir} holds a run with another config: {'; '.join(changed[:5])}. "
        "Choose another run_dir, or remove this one; nothing in it was changed"
    )
