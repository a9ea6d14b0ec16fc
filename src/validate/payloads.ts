/** Payloads of initializers and tensor attributes: as long as dtype and dims call for, and of the declared type. */
import { tensorsOf } from '../attribute.js';
import { type Graph, walkGraphs } from '../graph.js';
import { elementsOf, expectedBytes, type Tensor } from '../tensor.js';
import { formatType, tensorType } from '../types.js';
import type { Report } from './problem.js';
import { contradiction } from './types.js';

export function checkPayloads(root: Graph, place: string, report: Report): void {
  const complain = (where: string, message: string, remedy: string): void =>
    report({ rule: 'payload', where: `${place}${where}`, message, remedy });
  for (const graph of walkGraphs(root)) {
    for (const value of graph.initializers) {
      const { tensor, type } = value;
      if (tensor === undefined) continue;
      const message = lengthProblem(tensor);
      if (message !== undefined) complain(value.label, message, LENGTH_REMEDY);
      const own = tensorType(tensor.dtype, tensor.dims);
      if (type !== undefined && contradiction(type, own) !== undefined)
        complain(
          value.label,
          `The value is declared as ${formatType(type)} but its payload is ${formatType(own)}`,
          'Set value.type with value.tensor',
        );
    }
    for (const node of graph.nodes()) {
      for (const [name, attribute] of node.attributes) {
        for (const tensor of tensorsOf(attribute)) {
          const message = lengthProblem(tensor);
          if (message !== undefined) complain(node.label, `Attribute '${name}': ${message}`, LENGTH_REMEDY);
        }
      }
    }
  }
}

const LENGTH_REMEDY = 'Make tensors with tensorOf, which encodes as many elements as the dims say';

function lengthProblem(tensor: Tensor): string | undefined {
  const type = formatType(tensorType(tensor.dtype, tensor.dims));
  if (tensor.dtype === 'string') {
    const count = tensor.strings?.length ?? 0;
    return count === elementsOf(tensor) ? undefined : `${type} holds ${count} strings`;
  }
  const expected = expectedBytes(tensor);
  const { byteLength } = tensor.data;
  return byteLength === expected
    ? undefined
    : `${type} takes ${expected} bytes, the payload has ${byteLength}`;
}
