"""Runs the exports of fixtures/models in ONNX Runtime with every tensor as an output, and writes the shapes that occur.

Pinned: onnx 1.23.2, onnxruntime 1.31.1.   Run: python test/infer/measured_shapes.py
"""

import json
import pathlib

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

ROOT = pathlib.Path(__file__).parents[2]
SIZES = {"batch": 3, "sequence": 7}
NUMPY = {1: np.float32, 7: np.int64, 10: np.float16, 9: np.bool_, 6: np.int32}


def measure(path: pathlib.Path) -> list[list[int]]:
    model = onnx.load(path)
    known = {o.name for o in model.graph.output}
    names = [o for n in model.graph.node for o in n.output if o]
    for name in names:
        if name not in known:
            model.graph.output.append(helper.ValueInfoProto(name=name))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    feeds = {}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        dims = [d.dim_value or SIZES[d.dim_param] for d in tensor.shape.dim]
        feeds[value.name] = np.ones(dims, dtype=NUMPY[tensor.elem_type])
    results = session.run(names, feeds)
    return [list(np.shape(result)) for result in results]


def main() -> None:
    shapes = {}
    for path in sorted((ROOT / "fixtures/models").glob("*.onnx")):
        if "bf16" in path.name:
            continue  # No CPU kernels.
        try:
            shapes[path.stem] = measure(path)
        except Exception as error:  # noqa: BLE001
            print(path.name, str(error)[:200])
    # One index into the pool of shapes per node output, in file order, keeps the file small.
    pool: dict[str, int] = {}
    table = {
        model: [pool.setdefault(json.dumps(dims, separators=(",", ":")), len(pool)) for dims in values]
        for model, values in shapes.items()
    }
    out = {"sizes": SIZES, "shapes": [json.loads(text) for text in pool], "models": table}
    target = pathlib.Path(__file__).parent / "generated" / "measured_shapes.json"
    target.write_text(json.dumps(out, separators=(",", ":")) + "\n")
    print(len(table), "models", target.stat().st_size, "bytes")


main()
