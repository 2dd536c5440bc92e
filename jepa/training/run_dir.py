"""The run directory and its config.yaml, which is enough to repeat the run."""

from dataclasses import replace
from typing import Any, cast

from jepa.checkpoint import latest
from jepa.checkpoint.file import read_facts
from jepa.compat.stages import current
from jepa.config import ConfigError, build, differences, plain, read_yaml, to_yaml
from jepa.console import CONSOLE, shown
from jepa.disk import write_text
from jepa.distributed import World
from jepa.training.config import Config


def prepare_run_dir(config: Config[Any, Any]) -> None:
    """Create the run directory and write the resolved config into it; raises ConfigError as `check_run_dir`."""
    check_run_dir(config)
    path = config.run_dir / "config.yaml"
    write_text(path, to_yaml(config), path.with_suffix(".partial"))


def check_run_dir(config: Config[Any, Any]) -> None:
    """Raise ConfigError if the run directory holds another run; settings that do not change the weights may differ."""
    saved = saved_config(config)
    free = ["run_dir", "log_every", "checkpoint_every", "keep_every"]
    free += ["compute.", "probe.", "evaluate.", *(f"data.{name}" for name in config.data.may_change)]
    if config.loss.regulariser == config.model.contrast == "none":  # both depend on the micro-batch
        free.append("optim.accumulate")
    changed = differences(plain(completed(saved, config)), plain(config)) if saved else []
    if changed := [line for line in changed if not line.startswith(tuple(free))]:
        raise _other_run(config, changed)


def saved_config(config: Config[Any, Any]) -> Config[Any, Any] | None:
    """The config of the run in `config.run_dir`, None if there is no run; raises ConfigError if its sections differ."""
    path = config.run_dir / "config.yaml"
    if path.exists():
        tree = current(read_yaml(path))
    elif latest(config.run_dir).exists() and (stored := read_facts(latest(config.run_dir)).config):
        tree = current(stored)  # somebody removed the file
    else:
        return None
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
        f"Choose another run_dir, or remove this one; nothing in it was changed{_about_steps(config, changed)}"
    )


def _about_steps(config: Config[Any, Any], changed: list[str]) -> str:
    """What to do for more or fewer steps than a run has."""
    if not any(line.startswith("steps (") for line in changed):
        return ""
    return (
        ". A run keeps its number of steps, as its schedules depend on it; to train further, start a run with a new "
        f"run_dir and start_from={config.run_dir}"
    )


def say_finished(config: Config[Any, Any], world: World) -> None:
    """Say why nothing is trained."""
    if world.is_main:
        CONSOLE.print(
            f"{shown(config.run_dir)} is finished: all {config.steps} steps are done, so nothing was trained; to train "
            f"further, start a run with a new run_dir and start_from={shown(config.run_dir)}"
        )
