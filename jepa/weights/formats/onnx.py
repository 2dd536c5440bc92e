"""ONNX: the graph of an encoder for other languages and runtimes, with a free batch size."""

import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch.export import Dim

from jepa.weights.formats.export import PLACE, Export, FormatError, Written, check_features
from jepa.weights.formats.obstacles import in_inputs

OPSETS = range(18, 24)
INPUT, OUTPUT = "inputs", "tokens"
_ONE_FILE = 1_800_000_000  # bytes of weights; protobuf allows files of 2 GB


def obstacle(export: Export) -> str:
    """What the inputs of a graph cannot be."""
    return in_inputs(export)


def write(export: Export, path: Path) -> Written:
    """Write the encoder as a graph: `inputs` [batch, ...] -> `tokens` [batch, N, D]; facts are in its metadata."""
    if export.opset not in OPSETS:
        raise FormatError(f"--opset {export.opset}: allowed are {OPSETS[0]} to {OPSETS[-1]}")
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise FormatError(f"--to onnx needs {' and '.join(missing)}: pip install 'openjepa[onnx]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program = torch.onnx.export(
            export.encoder,
            (export.example(),),
            dynamo=True,
            dynamic_shapes=({0: Dim("batch")},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=export.opset,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(export.facts)
    size = sum(value.numel() * value.element_size() for value in export.encoder.state_dict().values())
    program.save(path, external_data=size > _ONE_FILE)
    return Written(f'onnxruntime.InferenceSession({PLACE}).run(None, {{"{INPUT}": array}})')


def check(path: Path, export: Export) -> str:
    """Compare features of onnxruntime; raises ImportError if it is not installed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return check_features(export, lambda inputs: torch.from_numpy(session.run(None, {INPUT: inputs.numpy()})[0]))
