"""Parses texts on stdin (one JSON object per line: path of the model, text) with onnx.parser and compares with the model."""
import json
import sys

import onnx
import onnx.parser


def nodes(graph):
    for node in graph.node:
        yield (node.op_type, node.domain, node.overload, node.name, list(node.input), list(node.output))
        for attribute in sorted(node.attribute, key=lambda a: a.name):
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes(attribute.g)
            elif attribute.type != onnx.AttributeProto.TENSOR:
                yield (attribute.name, attribute.type, repr(onnx.helper.get_attribute_value(attribute)))
            elif len(attribute.t.raw_data) <= 1024:
                yield (attribute.name, onnx.numpy_helper.to_array(attribute.t).tobytes())


def parts(model):
    graph = model.graph
    yield from nodes(graph)
    for function in model.functions:
        yield from nodes(function)
    for info in [*graph.input, *graph.output]:
        yield (info.name, str(info.type))
    for tensor in graph.initializer:
        yield (tensor.name, tensor.data_type, list(tensor.dims))


for line in sys.stdin:
    case = json.loads(line)
    parsed = onnx.parser.parse_model(case["text"])
    original = onnx.load(case["path"], load_external_data=False)
    same = list(parts(parsed)) == list(parts(original))
    print(json.dumps({"path": case["path"], "same": same}))
