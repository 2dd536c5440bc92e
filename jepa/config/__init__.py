"""YAML and overrides -> frozen, typed config; unknown keys and wrong values are errors."""

from jepa.config.build import (
    ConfigError,
    Tree,
    build,
    defaults,
    differences,
    merge,
    parse_yaml,
    plain,
    read_yaml,
    to_yaml,
)
from jepa.config.overrides import as_tree, parse_override, parse_overrides
