/** A fold never writes to its base: outputs that are a file of the base, by any name, are refused. */
import { fail } from '../../src/errors.js';
import type { Model } from '../../src/model.js';
import { FileData } from '../../src/onnx/index.js';
import { fileAt } from '../../src/onnx/source.js';
import { placedTensors } from './placed-tensors.js';

/** Throws E_USAGE when a path of `outputs` leads to the base's model file or to a file its weights are read from. */
export function refuseBaseFiles(base: Model, outputs: readonly string[]): void {
  const files = new Set<string>();
  const add = (path: string | undefined): void => {
    const id = path === undefined ? undefined : fileAt(path);
    if (id !== undefined) files.add(id);
  };
  add(base.path);
  const paths = new Set<string>();
  for (const { tensor } of placedTensors(base))
    if (tensor.data instanceof FileData && tensor.data.path !== undefined) paths.add(tensor.data.path);
  for (const path of paths) add(path);
  for (const path of outputs) {
    const id = fileAt(path);
    if (id !== undefined && files.has(id))
      fail('E_USAGE', {
        message: 'The merged model would overwrite its base model',
        where: path,
        remedy: 'Choose another output; the base is needed to fold other adapters and to prove this fold',
      });
  }
}
