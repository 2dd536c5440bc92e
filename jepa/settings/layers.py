"""The layers of a run's settings: defaults, recipe, what is taken over with networks, overrides."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

from jepa.compat.stages import former
from jepa.config import ConfigError, Tree, build, defaults, differences, merge, plain
from jepa.config.recipes import plain_name
from jepa.modality import Modality
from jepa.training.config import Config


@dataclass(frozen=True)
class Layers:
    """What the settings of a run are made of; later layers win.

    is_default: the recipe is the modality's default one, not one that the user chose. taken: settings taken over with
    the networks of `start_from`; what the user chose wins over them.
    """

    modality_name: str
    modality_type: type[Modality[Any]]
    recipe: Tree
    changes: Tree
    is_default: bool = False
    taken: Tree = field(default_factory=dict)

    @property
    def config_type(self) -> Any:
        """The type of the config."""
        return Config.of(self.modality_type)

    @property
    def chosen(self) -> Tree:
        """The settings that the user chose."""
        return self.changes if self.is_default else merge(self.recipe, self.changes)

    @property
    def start_from(self) -> str | None:
        """The source of networks that these settings name, None for random ones."""
        source = merge(self.recipe, self.changes).get("start_from")
        return source if isinstance(source, str) and source else None

    def built(self) -> Config[Any, Any]:
        """The config, with a run_dir."""
        config: Config[Any, Any] = build(self.config_type, self._trees(self.taken))
        return replace(config, run_dir=self.run_dir) if plain(config.run_dir) == "." else config

    def before_start(self) -> Tree:
        """The settings without those that are taken over, as plain data that need not be valid."""
        return dict(reduce(merge, self._trees({}), defaults(self.config_type)))

    @property
    def run_dir(self) -> Path:
        """The run directory, by default named by a hash of the settings without those that are taken over."""
        given = merge(self.recipe, self.changes).get("run_dir")
        if isinstance(given, str) and str(Path(given)) != ".":
            return Path(given)
        return Path("runs") / f"{plain_name(self.modality_name)}-{self._digest()}"

    def _digest(self) -> str:
        """A hash of the settings. Defaults are left out, so that a setting added later does not rename runs."""
        known, settings = former(defaults(self.config_type)), former(self._as_given())
        for tree in (known, settings):  # a null source was the name of the generated data, and runs keep their names
            tree["data"]["source"] = tree["data"].get("source") or self.modality_type.config_type.world
            if isinstance(tree["data"].get("masking"), list):  # lists are compared whole, with what was added later
                tree["data"]["masking"] = [_without_later_default(one) for one in tree["data"]["masking"]]
        text = json.dumps(differences(known, settings))
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()

    def _as_given(self) -> Tree:
        trees = self._trees({})
        try:
            return dict(plain(build(self.config_type, trees)))
        except ConfigError:
            if self.start_from is None:
                raise
        return dict(plain(self.before_start()))  # these settings fit the networks of start_from only

    def _trees(self, taken: Tree) -> list[Tree]:
        between = [self.recipe, taken] if self.is_default else [taken, self.recipe]
        return [{"run_dir": ""}, *between, self.changes, {"modality": self.modality_name}]


def _without_later_default(masking: Any) -> Any:
    """A masking strategy without a setting that came after names of runs, at its default."""
    if not isinstance(masking, dict) or masking.get("predicted") != 1:
        return masking
    return {name: value for name, value in masking.items() if name != "predicted"}
