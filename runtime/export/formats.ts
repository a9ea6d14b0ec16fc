/** Formats that adapters are exported to. */
import { allParams } from '../../passes/adapter-record.js';
import type { Tensor } from '../../src/tensor.js';
import { type AdapterFile, modelTensors } from '../adapter-file.js';
import { type WritePeftOptions, writePeft } from '../peft/write.js';
import { writeNpz } from './npz.js';
import { fingerprint } from './onnx-adapter/fingerprint.js';
import type { AdapterVersions } from './onnx-adapter/schema.js';
import { writeOnnxAdapter } from './onnx-adapter/write.js';
import { type ServingTensorOptions, servingTensors } from './serving-tensors.js';

/** What was written, for a report. */
export interface Exported {
  readonly out: string;
  readonly format: string;
  /** Tensors in the file. */
  readonly tensors: number;
  /** `peft_type` of a folder. */
  readonly type?: string;
}

export interface ExportOptions extends WritePeftOptions, ServingTensorOptions, Partial<AdapterVersions> {}

export interface ExportFormat {
  readonly id: string;
  readonly summary: string;
  write(adapter: AdapterFile, out: string, options: ExportOptions): Promise<Exported>;
}

/** Tensors by name of the initializer in the adapted model, in its dtypes. */
async function byName(adapter: AdapterFile): Promise<Map<string, Tensor>> {
  const tensors = await modelTensors(adapter);
  return new Map(
    allParams(adapter.record).map(({ name, key }): [string, Tensor] => [name, tensors.get(key) as Tensor]),
  );
}

export const EXPORT_FORMATS: readonly ExportFormat[] = [
  {
    id: 'peft',
    summary: "the folder that PEFT's PeftModel.from_pretrained loads",
    async write(adapter, out, options) {
      const { tensors, type } = await writePeft(adapter, out, options);
      return { out, format: 'peft', tensors, type };
    },
  },
  {
    id: 'npz',
    summary: 'numpy arrays by name of the parameter in the adapted model',
    async write(adapter, out, { force = false }) {
      const tensors = await byName(adapter);
      await writeNpz(out, tensors, { force });
      return { out, format: 'npz', tensors: tensors.size };
    },
  },
  {
    id: 'onnx_adapter',
    summary: 'what ONNX Runtime feeds as an active adapter, for emit --target adapted --adapter-io inputs',
    async write(adapter, out, { force = false, adapterVersion = 1, modelVersion, ...options }) {
      const tensors = await servingTensors(adapter, options);
      const { base } = adapter.record;
      await writeOnnxAdapter(out, tensors, {
        force,
        adapterVersion,
        modelVersion: modelVersion ?? fingerprint(base) ?? 1,
      });
      return { out, format: 'onnx_adapter', tensors: tensors.size };
    },
  },
];
