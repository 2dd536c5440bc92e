"""Why a format cannot hold a model: the setting that its code does not have."""

from collections.abc import Sequence

from torch import Tensor

from jepa.encoder import Encoder
from jepa.ops.patches import PatchEmbedding
from jepa.weights.formats.export import Export
from jepa.weights.formats.last_layer import predicted_layers

SINCOS = ("sincos", "sincos_published")  # tables, which the files hold


def in_networks(export: Export) -> str:
    """The setting of encoder, predictor or inputs that I-JEPA, V-JEPA and V-JEPA 2 lack; "" if they have all."""
    return in_encoder(export) or _in_predictor(export) or _not_square(export)


def in_encoder(export: Export) -> str:
    """The setting of the encoder that the formats of other projects lack, beside positions; "" if they have all."""
    encoder = export.encoder
    if export.checkpoint is None:
        return "an encoder of another family"
    if type(encoder) is not Encoder or not isinstance(encoder.embedding, PatchEmbedding):
        return f"an encoder of type {type(encoder).__name__}"
    scale = getattr(export.modality.config, "change_scale", 1)
    return "" if scale == 1 else f"data.change_scale={scale}"


def in_positions(export: Export, kinds: Sequence[str]) -> str:
    """The setting of positions that a format with these `model.positions` lacks; "" if it has them.

    kinds: none for a format of any positions.
    """
    kind = export.config.model.positions
    if not kinds or kind in kinds:
        return ""
    known = " and ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))
    return f"model.positions={kind} (for modality {export.config.modality} it has {known})"


def _in_predictor(export: Export) -> str:
    model, predictor, visible = export.config.model, export.config.model.predictor, export.config.loss.visible
    if not export.weights("predictor"):
        return "an encoder without a predictor"
    if model.levels:
        return f"model.levels={list(model.levels)}"
    if visible != "none":
        return f"loss.visible={visible}"
    if predictor.attention != "self":
        return f"model.predictor.attention={predictor.attention}"
    if "latent" not in export.config.target_kinds:
        kinds = " and ".join(export.config.target_kinds)
        return f"a predictor of {kinds} (it has one of latent; see stages)"
    if model.depth not in predicted_layers(export):
        return f"model.target_layers={list(model.target_outputs)} without the last layer ({model.depth})"
    return ""


def several_mask_tokens(export: Export) -> str:
    """The setting of more mask tokens than one; "" if there is one."""
    count = export.config.model.predictor.mask_tokens
    return "" if count == 1 else f"model.predictor.mask_tokens={count}"


def _not_square(export: Export) -> str:
    """The setting of images, or frames of videos, that are not square; "" if they are."""
    height, width = export.modality.grid[-2:]
    return "" if height == width else f"data.image_size={list(export.modality.config.size)}"


def in_inputs(export: Export) -> str:
    """The form of inputs that are not one tensor of floats; "" if they are."""
    view = export.modality.example_view()
    if not isinstance(view, Tensor):
        return f"inputs of several parts ({type(view).__name__})"
    return "" if view.is_floating_point() else f"inputs of type {str(view.dtype).removeprefix('torch.')}"
