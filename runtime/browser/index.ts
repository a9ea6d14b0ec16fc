/** `peft-compile/browser`: training graphs in a page. No import of Node, no package but the caller's onnxruntime-web. */
export type { StepManifest } from '../../passes/targets/manifest.js';
export { type Batch, type CollateOptions, Collator } from '../data/batch.js';
export type { Example } from '../data/dataset.js';
export type { HostTensor } from '../host-tensor.js';
export { InitialValues } from './initial-values.js';
export {
  type Feeds,
  type OnnxRuntime,
  StepDriver,
  type StepDriverOptions,
  type StepFiles,
  type StepResult,
} from './step-driver.js';
