"""Image encoders of timm: MAE, DINO, DINOv2, DINOv3, CLIP, SigLIP, and others that give a grid of tokens."""

import difflib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jepa.checkpoint import CheckpointError
from jepa.weights.families.encoder import Encoded, Family, FamilyEncoder, Pixels
from jepa.weights.families.files import downloaded, load_strictly, of_other_towers, read_weights, say_left_out

_LEFT_OUT = ("head.", "head_dist.", "fc.", "classifier.", "decoder", "mask_token", "dino_head.", "ibot_head.")
_OTHER_MODEL = "the weights in {path} are not those of {name}: timm cannot bring them into the shapes of this model"
_TRANSFORMER = ("num_prefix_tokens", "blocks", "patch_embed", "forward_intermediates", "fc_norm", "set_input_size")

_CLASS_TOKEN = "class token"


class TimmEncoder(FamilyEncoder):
    """A model of timm: a vision transformer, or any other whose features are a map."""

    network: Any

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.is_transformer = all(hasattr(network, name) for name in _TRANSFORMER)
        self.dim, self.pooling = int(network.num_features), self._pooling()
        self.depth = len(network.blocks) if self.is_transformer else 1

    def encode(self, images: Tensor, count: int) -> Encoded:
        """Of transformers, outputs of blocks; of others, the last map of features."""
        return self.with_final(images, count)[0]

    def with_final(self, images: Tensor, count: int) -> tuple[Encoded, Tensor]:
        """What `encode` returns, and timm's features of the last layer, with class token and registers."""
        network = self.network
        if not self.is_transformer:
            features = network.forward_features(images)  # [B, D, rows, columns], or D last
            tokens = features.flatten(1, 2) if features.shape[-1] == self.dim else features.flatten(2).transpose(1, 2)
            return Encoded([tokens], None), features
        final, layers = network.forward_intermediates(images, indices=min(count, self.depth), output_fmt="NLC")
        normed = network.fc_norm(final) if isinstance(network.norm, nn.Identity) else final
        pooled = None
        if self.pooling:
            pooled = normed[:, 0] if self.pooling == _CLASS_TOKEN else network.forward_head(final, pre_logits=True)
        return Encoded([*layers[:-1], normed[:, network.num_prefix_tokens :]], pooled), final

    def _pooling(self) -> str:
        network = self.network
        if self.is_transformer and getattr(network, "attn_pool", None) is not None:
            return "attention pooling"
        if not self.is_transformer or network.cls_token is None:
            return ""
        # Without a norm after it, timm's average is the mean of the tokens; DINOv3's own vector is its class token.
        is_mean = network.global_pool == "avg" and isinstance(network.fc_norm, nn.Identity)
        return _CLASS_TOKEN if is_mean or network.global_pool in ("", "token") else "average of tokens, then norm"

    @property
    def patch(self) -> int:
        """Pixels per side of a token; raises CheckpointError if tokens are no square patches."""
        if not self.is_transformer:
            return int(self.network.feature_info[-1]["reduction"])
        height, width = self.network.patch_embed.patch_size
        if height != width:
            raise CheckpointError(f"its patches of {height} x {width} pixels are not square")
        return int(height)

    def set_size(self, size: tuple[int, int]) -> None:
        """Set the resolution; positions are interpolated."""
        if hasattr(self.network, "set_input_size"):
            self.network.set_input_size(img_size=size)
        self.grid = (size[0] // self.patch, size[1] // self.patch)


class TimmFamily(Family):
    """A model of timm by name, with or without the tag of its pretrained weights."""

    def check(self) -> None:
        """Raise CheckpointError for an unknown name, or weights whose pixel statistics are unknown."""
        import timm

        architecture, _, tag = self.name.model.partition(".")
        tags = self._tags(architecture)
        if not timm.is_model(architecture):
            near = difflib.get_close_matches(architecture, timm.list_models(), n=1)
            hint = f", did you mean '{near[0]}'?" if near else ";"
            raise CheckpointError(f"timm has no model '{architecture}'{hint} `timm.list_models()` lists all")
        if tag and tag not in tags:
            raise CheckpointError(f"timm has no weights '{tag}' of {architecture}; tags: {', '.join(tags) or 'none'}")
        if tag or not self.name.weights or self.name.is_random:
            return
        statistics = {self._pixels(f"{architecture}.{one}") for one in tags}
        if len(statistics) > 1:
            raise CheckpointError(
                f"{self.name}: published weights of {architecture} expect different pixel statistics; name the tag of "
                f"yours, as in timm:{architecture}.{tags[0]}@{self.name.weights}; tags: {', '.join(tags)}"
            )

    def build(self, size: tuple[int, int]) -> TimmEncoder:
        """The encoder with random weights."""
        import timm

        encoder = TimmEncoder(timm.create_model(self.name.model, num_classes=0).eval())
        if encoder.is_transformer:
            encoder.set_size(self.native)  # at which the weights have their positions
        if not encoder.is_transformer:
            with torch.inference_mode():
                found = encoder.network.forward_features(torch.zeros(1, 3, *self.native))
            if found.dim() != 4:
                raise CheckpointError(f"{self.name} gives no map of features; use a vision transformer or a CNN")
        return encoder

    def load(self, encoder: FamilyEncoder) -> None:
        """Load the weights of the name; raises CheckpointError."""
        assert isinstance(encoder, TimmEncoder)
        path = self.name.file if self.name.weights else self._downloaded()
        load_timm(encoder.network, path, self.name)

    @property
    def native(self) -> tuple[int, int]:
        """Height and width that the pretrained weights expect."""
        return self._config(self.name.model).input_size[1:]  # type: ignore[no-any-return]

    @property
    def pixels(self) -> Pixels:
        """Mean and standard deviation that the weights expect."""
        return self._pixels(self.name.model)

    def _downloaded(self) -> Path:
        from huggingface_hub import hf_hub_download
        from timm.models._hub import download_cached_file, hf_split

        config = self._config(self.name.model)
        if config.hf_hub_id:
            repository, revision = hf_split(config.hf_hub_id)
            file = config.hf_hub_filename or "model.safetensors"
            return downloaded(self.name, repository, lambda: hf_hub_download(repository, file, revision=revision))
        if config.url:
            return downloaded(self.name, config.url, lambda: download_cached_file(config.url))
        raise CheckpointError(f"timm has no weights of {self.name.model}; name a file, as in {self.name}@FILE")

    @staticmethod
    def _tags(architecture: str) -> list[str]:
        from timm.models import list_pretrained

        return [name.partition(".")[2] for name in list_pretrained(f"{architecture}.*")]

    @staticmethod
    def _config(model: str) -> Any:
        from timm.models import get_pretrained_cfg

        return get_pretrained_cfg(model, allow_unregistered=True)

    def _pixels(self, model: str) -> Pixels:
        config = self._config(model)
        return tuple(map(float, config.mean)), tuple(map(float, config.std))  # type: ignore[return-value]


def load_timm(network: Any, path: Path, name: object) -> None:
    """Load a file in timm's layout, or in an original one that timm knows; raises CheckpointError."""
    if path.suffix == ".npz":
        try:
            network.load_pretrained(str(path))
            with np.load(path) as arrays:
                names = list(arrays)
        except Exception as error:  # the models raise no common type for a file that does not fit
            raise CheckpointError(_OTHER_MODEL.format(path=path, name=name)) from error
        say_left_out(path, [key.removeprefix("params/") for key in of_other_towers(names)])
        return
    weights = read_weights(path)
    if any(key.startswith("decoder") for key in weights):  # a whole MAE, whose mask token looks like DINOv2's
        weights.pop("mask_token", None)
    towers = of_other_towers(weights)
    rename = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if rename is not None:
        try:
            weights = rename(dict(weights), network)
        except (KeyError, RuntimeError, ValueError, AttributeError) as error:
            raise CheckpointError(_OTHER_MODEL.format(path=path, name=name)) from error
    load_strictly(network, weights, _LEFT_OUT, path, name, [key for key in towers if key not in weights])
