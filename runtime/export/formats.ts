/** Formats that adapters are exported to. */
import { type AdapterRecord, allParams, trainableParams } from '../../passes/adapter-record.js';
import type { Tensor } from '../../src/tensor.js';
import { type AdapterFile, modelTensors } from '../adapter-file.js';
import { type WritePeftOptions, writePeft } from '../peft/write.js';
import { writeOnnxAdapter } from './onnx-adapter/write.js';
import { writeNpz } from './npz.js';

/** What was written, for a report. */
export interface Exported {
  readonly out: string;
  readonly format: string;
  /** Tensors in the file. */
  readonly tensors: number;
  /** `peft_type` of a folder. */
  readonly type?: string;
}

export interface ExportFormat {
  readonly id: string;
  readonly summary: string;
  write(adapter: AdapterFile, out: string, options: WritePeftOptions): Promise<Exported>;
}

/** Tensors by name of the initializer or graph input in the adapted model, in its dtypes. */
async function byName(
  adapter: AdapterFile,
  params: ReturnType<typeof allParams>,
): Promise<Map<string, Tensor>> {
  const tensors = await modelTensors(adapter);
  return new Map(params.map(({ name, key }) => [name, tensors.get(key) as Tensor]));
}

function named(
  id: string,
  summary: string,
  params: (record: AdapterRecord) => ReturnType<typeof allParams>,
  write: (path: string, tensors: ReadonlyMap<string, Tensor>, options: { force?: boolean }) => Promise<void>,
): ExportFormat {
  return {
    id,
    summary,
    async write(adapter, out, { force = false }) {
      const tensors = await byName(adapter, params(adapter.record));
      await write(out, tensors, { force });
      return { out, format: id, tensors: tensors.size };
    },
  };
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
  named('npz', 'numpy arrays by name of the parameter in the adapted model', allParams, writeNpz),
  named(
    'onnx_adapter',
    'what ONNX Runtime feeds as an active adapter, for emit --target adapted --adapter-io inputs',
    trainableParams,
    writeOnnxAdapter,
  ),
];
