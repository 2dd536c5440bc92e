"""YAML and overrides -> frozen, typed config; what is not understood is refused."""

from jepa.config.build import (
    ConfigError,
    Tree,
    build,
    default_tree,
    differences,
    merge,
    parse_override,
    parse_yaml,
    plain,
    read_yaml,
    to_yaml,
)

__all__ = [
    "ConfigError",
    "Tree",
    "build",
    "default_tree",
    "differences",
    "merge",
    "parse_override",
    "parse_yaml",
    "plain",
    "read_yaml",
    "to_yaml",
]
