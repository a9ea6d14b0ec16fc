/** ONNX Runtime's own on-device training, as its last release for the web has it, run in Node on one thread. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { OrtTrainingArtifacts } from '../../runtime/ort-training/artifacts.js';
import { checkpointBytes } from '../../runtime/ort-training/write-checkpoint.js';
import { encodeModel } from '../../src/onnx/index.js';
import { repositoryRoot } from '../helpers/fixtures.js';

export interface WebTensor {
  readonly dims: readonly number[];
  readonly type: string;
  readonly data: ArrayLike<number | bigint>;
}

/** What the package declares of its training entry, as far as tests use it. */
export interface TrainingSession {
  readonly trainingInputNames: readonly string[];
  readonly trainingOutputNames: readonly string[];
  readonly evalInputNames: readonly string[];
  readonly evalOutputNames: readonly string[];
  runTrainStep(feeds: Readonly<Record<string, WebTensor>>): Promise<Readonly<Record<string, WebTensor>>>;
  runOptimizerStep(): Promise<void>;
  lazyResetGrad(): Promise<void>;
  runEvalStep(feeds: Readonly<Record<string, WebTensor>>): Promise<Readonly<Record<string, WebTensor>>>;
  getParametersSize(trainableOnly: boolean): Promise<number>;
  getContiguousParameters(trainableOnly: boolean): Promise<WebTensor>;
  loadParametersBuffer(buffer: Uint8Array, trainableOnly: boolean): Promise<void>;
  release(): Promise<void>;
}

interface TrainingFiles {
  readonly checkpointState: string | Uint8Array;
  readonly trainModel: string | Uint8Array;
  readonly evalModel?: string | Uint8Array;
  readonly optimizerModel?: string | Uint8Array;
}

interface TrainingRuntime {
  readonly env: { readonly wasm: { numThreads: number }; logLevel: string };
  readonly Tensor: new (
    type: string,
    data: ArrayLike<number> | BigInt64Array,
    dims: readonly number[],
  ) => WebTensor;
  readonly TrainingSession: {
    create(files: TrainingFiles, options: { logSeverityLevel: number }): Promise<TrainingSession>;
  };
}

/** The package hides this file from Node; by its path it loads. */
const PATH = join(repositoryRoot, 'node_modules/onnxruntime-web-training/dist/ort.training.wasm.min.mjs');

export const installed = existsSync(PATH);

let loaded: Promise<TrainingRuntime> | undefined;

export function trainingRuntime(): Promise<TrainingRuntime> {
  loaded ??= import(pathToFileURL(PATH).href).then((runtime: TrainingRuntime) => {
    runtime.env.wasm.numThreads = 1;
    runtime.env.logLevel = 'error';
    return runtime;
  });
  return loaded;
}

/** A session over files or bytes. */
export async function openFiles(files: TrainingFiles): Promise<TrainingSession> {
  const { TrainingSession } = await trainingRuntime();
  // Its SGD gives a flag of another rank than it declares, and says so at every step.
  return TrainingSession.create(files, { logSeverityLevel: 3 });
}

/** A session over emitted artifacts, from memory. */
export async function openTraining(artifacts: OrtTrainingArtifacts): Promise<TrainingSession> {
  return openFiles({
    checkpointState: await checkpointBytes(artifacts.state),
    trainModel: encodeModel(artifacts.training),
    evalModel: encodeModel(artifacts.evaluation),
    optimizerModel: encodeModel(artifacts.optimizer),
  });
}

/** Parameters by name, read from the session; `names` in the order of the training model's inputs. */
export async function parametersOf(
  session: TrainingSession,
  params: readonly { readonly key: string; readonly shape: readonly number[] }[],
): Promise<Map<string, number[]>> {
  const { data } = await session.getContiguousParameters(true);
  const numbers = Array.from(data, Number);
  const found = new Map<string, number[]>();
  let at = 0;
  for (const { key, shape } of params) {
    const count = shape.reduce((product, dim) => product * dim, 1);
    found.set(key, numbers.slice(at, at + count));
    at += count;
  }
  return found;
}
