"""Image towers of open_clip, without their text towers."""

import difflib
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from jepa.checkpoint import CheckpointError
from jepa.weights.families.encoder import Encoded, Family, FamilyEncoder, Pixels
from jepa.weights.families.files import downloaded, load_strictly, of_other_towers, read_weights
from jepa.weights.families.timm_models import TimmEncoder

_NO_DROPOUT = {"patch_dropout": 0.0, "timm_drop": 0.0, "timm_drop_path": None, "timm_model_pretrained": False}


class OpenClipEncoder(FamilyEncoder):
    """An image tower of open_clip: a vision transformer of its own, or a model of timm. It pools by a projection."""

    pooling = "image embedding"

    visual: Any

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual
        self.trunk = TimmEncoder(visual.trunk) if hasattr(visual, "trunk") else None
        if self.trunk is None:
            self.dim, self.depth = int(visual.transformer.width), len(visual.transformer.resblocks)
        else:
            self.dim, self.depth = self.trunk.dim, self.trunk.depth

    def encode(self, images: Tensor, count: int) -> Encoded:
        """Patch tokens, and what `encode_image` of open_clip gives, without normalisation."""
        if self.trunk is not None:
            (layers, _), final = self.trunk.with_final(images, count)
            return Encoded(layers, self.visual.head(self.visual.trunk.forward_head(final)))
        found = self.visual.forward_intermediates(images, indices=min(count, self.depth), output_fmt="NLC")
        layers = found["image_intermediates"]
        # CoCa pools by attention, before its `ln_post`; these are the tokens that it attends to.
        norm = self.visual.ln_post if self.visual.attn_pool is None else self.visual.attn_pool.ln_k
        return Encoded([*layers[:-1], norm(layers[-1])], found["image_features"])

    @property
    def patch(self) -> int:
        """Pixels per side of a token."""
        return int(self.visual.patch_size[0]) if self.trunk is None else self.trunk.patch

    def set_size(self, size: tuple[int, int]) -> None:
        """Set the resolution; a tower of open_clip itself is built and loaded at it."""
        if self.trunk is not None:
            self.trunk.set_size(size)
        self.grid = (size[0] // self.patch, size[1] // self.patch)


class OpenClipFamily(Family):
    """A model of open_clip by name; its weights are a tag of open_clip or a file."""

    def check(self) -> None:
        """Raise CheckpointError for an unknown name, a name without weights, or another activation."""
        from open_clip import list_models

        model, known = self._architecture, list_models()
        if model not in known:
            near = difflib.get_close_matches(model, known, n=1)
            hint = f", did you mean '{near[0]}'?" if near else ";"
            raise CheckpointError(f"open_clip has no model '{model}'{hint} `open_clip.list_models()` lists all")
        if isinstance(self._vision.get("layers"), list):
            raise CheckpointError(f"{self.name} gives no patch tokens, as its image tower is a ResNet of open_clip")
        if self._tag and self._tag not in self._tags:
            raise CheckpointError(
                f"open_clip has no weights '{self._tag}' of {model}; tags: {', '.join(self._tags) or 'none'}"
            )
        if not self.name.weights:
            raise CheckpointError(
                f"{self.name} names no weights; add a tag or a file, as in {self.name}@{(self._tags or ['FILE'])[0]}, "
                f"or {self.name}@random; tags: {', '.join(self._tags) or 'none'}"
            )
        if not self._tag and not self.name.is_random and len({self._pixels(tag) for tag in self._tags}) > 1:
            raise CheckpointError(
                f"{self.name}: published weights of {model} expect different pixel statistics; name the tag of yours, "
                f"as in open_clip:{model}.{self._tags[0]}@{self.name.weights}; tags: {', '.join(self._tags)}"
            )
        wanted = bool(self._entry(self._tag).get("quick_gelu", False))
        if self._tag and wanted != bool(self._model.get("quick_gelu", False)):
            other = f"{model}-quickgelu" if wanted else model.removesuffix("-quickgelu")
            raise CheckpointError(f"{self.name}: these weights expect another activation; use open_clip:{other}")

    def build(self, size: tuple[int, int]) -> OpenClipEncoder:
        """The tower with random weights."""
        from open_clip.model import CLIPVisionCfg, _build_vision_tower

        vision = self._vision | _NO_DROPOUT | ({} if "timm_model_name" in self._vision else {"image_size": size})
        known = CLIPVisionCfg.__dataclass_fields__
        config = CLIPVisionCfg(**{key: value for key, value in vision.items() if key in known})
        return OpenClipEncoder(
            _build_vision_tower(self._model["embed_dim"], config, self._model.get("quick_gelu", False))
        )

    def load(self, encoder: FamilyEncoder) -> None:
        """Load the image tower of a whole model; raises CheckpointError."""
        from open_clip.model import resize_pos_embed

        assert isinstance(encoder, OpenClipEncoder)
        path = self._downloaded() if self.name.weights in self._tags else self.name.file
        weights = read_weights(path)
        shell = nn.Module()
        shell.visual = encoder.visual
        try:
            resize_pos_embed(weights, shell)
        except RuntimeError as error:
            raise CheckpointError(f"the positions in {path} are no square grid, as those of {self.name} are") from error
        own = {key.removeprefix("visual."): value for key, value in weights.items() if key.startswith("visual.")}
        load_strictly(encoder.visual, own, (), path, self.name, of_other_towers(weights))

    @property
    def native(self) -> tuple[int, int]:
        """Height and width that the model expects."""
        size = self._vision.get("image_size", 224)
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def pixels(self) -> Pixels:
        """Those of the tag; without one, those that all tags of the model share, or CLIP's."""
        found = {self._pixels(tag) for tag in ([self._tag] if self._tag else self._tags)}
        return found.pop() if len(found) == 1 else self._pixels("")

    @property
    def _architecture(self) -> str:
        return self.name.model.partition(".")[0]

    @property
    def _tag(self) -> str:
        """The tag of the weights, `NAME@TAG` or `NAME.TAG@FILE`; empty if none is named."""
        return self.name.weights if self.name.weights in self._tags else self.name.model.partition(".")[2]

    @property
    def _model(self) -> dict[str, Any]:
        from open_clip.factory import get_model_config

        return get_model_config(self._architecture)  # type: ignore[no-any-return]

    @property
    def _vision(self) -> dict[str, Any]:
        return self._model["vision_cfg"]  # type: ignore[no-any-return]

    @property
    def _tags(self) -> list[str]:
        from open_clip.pretrained import list_pretrained_tags_by_model

        return list_pretrained_tags_by_model(self._architecture)  # type: ignore[no-any-return]

    def _entry(self, tag: str) -> dict[str, Any]:
        from open_clip.pretrained import get_pretrained_cfg

        return get_pretrained_cfg(self._architecture, tag) if tag in self._tags else {}

    def _pixels(self, tag: str) -> Pixels:
        from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

        entry = self._entry(tag)
        mean, std = entry.get("mean") or OPENAI_DATASET_MEAN, entry.get("std") or OPENAI_DATASET_STD
        return tuple(map(float, mean)), tuple(map(float, std))  # type: ignore[return-value]

    def _downloaded(self) -> Path:
        from open_clip.pretrained import download_pretrained

        entry = self._entry(self.name.weights)
        where = str(entry.get("hf_hub") or entry.get("url"))
        name = f"open_clip:{self._architecture}"
        return downloaded(name, where, lambda: download_pretrained(entry))
