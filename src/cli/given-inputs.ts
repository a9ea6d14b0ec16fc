/** Inputs of a model from a file. */
import { loadTensor } from '../../runtime/host-tensor.js';
import { readSafetensors } from '../../runtime/safetensors.js';
import type { Tensors } from '../../runtime/session.js';

/** Every tensor of a safetensors file, by name. Throws E_IO, E_INVALID_DATA. */
export async function readInputs(path: string): Promise<Tensors> {
  const inputs: Record<string, Tensors[string]> = {};
  for (const [name, tensor] of readSafetensors(path).tensors) inputs[name] = await loadTensor(tensor);
  return inputs;
}
