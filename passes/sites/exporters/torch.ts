/** The three generations of torch.onnx. */
import { walkNodes } from '../../../src/graph.js';
import type { Model } from '../../../src/model.js';
import { asIs, type Exporter } from './exporter.js';

function someNode(
  model: Model,
  test: (node: { name: string | undefined; keys: string[] }) => boolean,
): boolean {
  for (const node of walkNodes(model.graph))
    if (test({ name: node.name, keys: [...node.metadata.keys()] })) return true;
  return false;
}

/** torch.export: module scopes in node metadata. */
export const dynamo: Exporter = {
  id: 'torch-dynamo',
  title: 'torch.onnx (dynamo)',
  matches: (model) => someNode(model, ({ keys }) => keys.some((key) => key.startsWith('pkg.torch.'))),
  path: asIs,
};

/** TorchScript since 1.13: module scopes in node names. */
export const torchScript: Exporter = {
  id: 'torch-torchscript',
  title: 'torch.onnx (TorchScript)',
  matches: (model) =>
    model.producerName === 'pytorch' && someNode(model, ({ name }) => name?.startsWith('/') === true),
  path: asIs,
};

/** TorchScript before 1.13: numbered nodes and values. */
export const legacyTorch: Exporter = {
  id: 'torch-legacy',
  title: 'torch.onnx (before 1.13)',
  matches: (model) => model.producerName === 'pytorch',
  path: asIs,
};
