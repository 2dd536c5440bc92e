"""Why a format cannot hold a model: the setting that its code does not have."""

from collections.abc import Sequence

from torch import Tensor

from jepa.encoder import Encoder
from jepa.ops.patches import PatchEmbedding
from jepa.weights.formats.export import Export

SINCOS = ("sincos", "sincos_published")  # tables, which the files hold


def in_encoder(export: Export, positions: Sequence[str]) -> str:
    """The setting of the encoder that a format with these `model.positions` lacks; "" if it has all."""
    encoder = export.encoder
    if export.checkpoint is None:
        return "an encoder of another family"
    if type(encoder) is not Encoder or not isinstance(encoder.embedding, PatchEmbedding):
        return f"an encoder of type {type(encoder).__name__}"
    if encoder.position_kind not in positions:
        return f"model.positions={encoder.position_kind} (it has {' and '.join(positions)})"
    scale = getattr(export.modality.config, "change_scale", 1)
    return "" if scale == 1 else f"data.change_scale={scale}"


def in_predictor(export: Export) -> str:
    """The setting of the predictor that I-JEPA, V-JEPA and V-JEPA 2 lack; "" if they have all."""
    model, predictor, visible = export.config.model, export.config.model.predictor, export.config.loss.visible
    if not export.weights("predictor"):
        return "an encoder without a predictor"
    if model.levels:
        return f"model.levels={list(model.levels)}"
    if visible != "none":
        return f"loss.visible={visible}"
    if predictor.attention != "self":
        return f"model.predictor.attention={predictor.attention}"
    if export.config.target_kinds != ("latent",):
        kinds = " and ".join(export.config.target_kinds)
        return f"predictions of {kinds} (it predicts latent alone; see stages)"
    if len(export.weights("predictor")["project.weight"]) != export.config.model.vit.width:
        return f"model.target_join={model.target_join} of several model.target_layers"
    return ""


def several_mask_tokens(export: Export) -> str:
    """The setting of more mask tokens than one; "" if there is one."""
    count = export.config.model.predictor.mask_tokens
    return "" if count == 1 else f"model.predictor.mask_tokens={count}"


def not_square(export: Export) -> str:
    """The setting of images, or frames of videos, that are not square; "" if they are."""
    height, width = export.modality.grid[-2:]
    return "" if height == width else f"data.image_size={list(export.modality.config.size)}"


def in_inputs(export: Export) -> str:
    """The form of inputs that are not one tensor of floats; "" if they are."""
    view = export.modality.example_view()
    if not isinstance(view, Tensor):
        return f"inputs of several parts ({type(view).__name__})"
    return "" if view.is_floating_point() else f"inputs of type {str(view.dtype).removeprefix('torch.')}"
