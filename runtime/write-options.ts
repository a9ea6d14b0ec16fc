/** How a model is written that is a base with other numbers. */
import { dirname, join } from 'node:path';
import type { Model } from '../src/model.js';
import { ExternalData, type ExternalMode, isSameFile, type WriteOptions } from '../src/onnx/index.js';
import { refuseBaseFiles } from './fold/base-files.js';
import { placedTensors } from './fold/placed-tensors.js';

interface Output {
  readonly out: string;
  readonly write?: Pick<WriteOptions, 'externalData' | 'weights'> | undefined;
  readonly force?: boolean | undefined;
}

/** What `writeModel` is told, unless the caller says more. Throws E_USAGE for an output that is a file of the base. */
export function writeOptionsFor(base: Model, { out, write, force = false }: Output): WriteOptions {
  // Links and copies are of the base's files.
  const externalData =
    write?.externalData ?? (write?.weights === undefined ? dataModeFor(base, out) : 'keep');
  refuseBaseFiles(base, externalData === 'file' ? [out, `${out}.data`] : [out]);
  return { ...write, externalData, force };
}

/**
 * As in the base where its data files lie beside the output already, or it has none. Elsewhere those would have to be
 * copied with numbers that nobody reads any more: then all weights go into one file of their own.
 */
function dataModeFor(base: Model, out: string): ExternalMode {
  const seen = new Set<string>();
  for (const { tensor } of placedTensors(base)) {
    const { data } = tensor;
    if (!(data instanceof ExternalData) || seen.has(data.location)) continue;
    seen.add(data.location);
    if (!isSameFile(join(dirname(out), data.location), data.file)) return 'file';
  }
  return 'keep';
}
