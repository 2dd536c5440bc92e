"""The former name of `jepa.model_config`, which plug-ins of contract 1 import."""

from jepa.model_config import Contrast as Contrast, ModelConfig as ModelConfig, NetworksConfig as NetworksConfig
