/**
 * `peft-compile` as a library: everything the command line does, and the graph it does it with.
 *
 * ```ts
 * import { emit, fold, insert, load, train } from 'peft-compile';
 *
 * const model = load('bert.onnx');
 * await insert(model, { method: 'lora', config: { rank: 8 }, targeting: { targets: ['query', 'value'] } });
 * const artifacts = await emit(model, { target: 'step', loss: 'classification' });
 * const { adapter } = await train({ artifacts, data: 'train.jsonl', out: 'run' });
 * await fold({ model: 'bert.onnx', adapter, out: 'merged.onnx', verify: true });
 * ```
 *
 * Everything that fails throws a `PeftCompileError` with a stable `code`, the place and what to do about it.
 *
 * @packageDocumentation
 */

/** The zod that configuration schemas are written with; the same instance as the package's own. */
export { z } from 'zod';
export type { AdapterParam, AdapterRecord, AdapterSite } from '../passes/adapter-record.js';
export { readAdapterRecord } from '../passes/adapter-record.js';
export type { BackwardOptions, BackwardResult } from '../passes/backward.js';
export { backward } from '../passes/backward.js';
export type { Anchor, Edit, Redirect } from '../passes/edit.js';
export { applyEdit } from '../passes/edit.js';
export type { SharedPolicy } from '../passes/fold.js';
export type { GradientContext } from '../passes/grad/context.js';
export type { Contribution, Gradient, GradientRule, GradientSpec, Scaled } from '../passes/grad/rule.js';
export { defineGradient } from '../passes/grad/rule.js';
export type { InsertOptions, InsertReport } from '../passes/insert.js';
export { attachAdapter } from '../passes/insert.js';
export type * from '../passes/inspect/report.js';
export type {
  BuiltLoss,
  ConfiguredLoss,
  LabelInput,
  Loss,
  LossContext,
  LossDefinition,
  LossMetric,
} from '../passes/losses/index.js';
// Losses, optimizers, gradient rules and passes of one's own.
export { defineLoss, LOSSES as losses } from '../passes/losses/index.js';
export type {
  AttachContext,
  Attached,
  EmbeddingDims,
  EmbeddingView,
  Fold,
  FoldView,
  LinearDims,
  LinearView,
  Method,
  MethodDefinition,
  Paper,
  ParamSpec,
  SiteRules,
} from '../passes/methods/method.js';
// Methods of one's own.
export { defineMethod, siteKindsOf } from '../passes/methods/method.js';
export { METHODS as methods } from '../passes/methods/registry.js';
export type {
  ConfiguredOptimizer,
  Optimizer,
  OptimizerDefinition,
  StateSlot,
  TensorUpdate,
  UpdatedTensor,
} from '../passes/optimizers/index.js';
export { defineOptimizer, OPTIMIZERS as optimizers } from '../passes/optimizers/index.js';
export type { Pass } from '../passes/pass.js';
export { definePass } from '../passes/pass.js';
export type { EditLog, RunOptions, RunResult } from '../passes/runner.js';
export { runPasses } from '../passes/runner.js';
export type {
  ColumnRange,
  EmbeddingSite,
  FindOptions,
  LinearSite,
  PathGuess,
  Site,
  SiteBias,
  SiteKind,
  WeightStorage,
  WeightView,
} from '../passes/sites/index.js';
export { findSites } from '../passes/sites/index.js';
export type { Targeting } from '../passes/sites/targeting.js';
export type { AdaptedOptions } from '../passes/targets/adapted.js';
export type {
  BatchInput,
  CarriedTensor,
  FlatMember,
  ManifestParameter,
  Schedule,
  StepManifest,
} from '../passes/targets/manifest.js';
export type { GroupOptions, StepOptions } from '../passes/targets/step.js';
export type { AdapterFile } from '../runtime/adapter-file.js';
export { readAdapter, writeAdapter } from '../runtime/adapter-file.js';
export type { GraphName, TrainArtifacts } from '../runtime/artifacts.js';
export { loadArtifacts } from '../runtime/artifacts.js';
export type { Difference } from '../runtime/compare.js';
export type { CollateOptions } from '../runtime/data/batch.js';
export type { Dataset, Example, ExampleTensor } from '../runtime/data/dataset.js';
export type { LoadOptions } from '../runtime/data/load.js';
export type { TextTokenizer } from '../runtime/data/tokenizer.js';
export { loadTokenizer } from '../runtime/data/tokenizer.js';
export { digestWeights } from '../runtime/digest.js';
export type { Fidelity } from '../runtime/fold/fidelity.js';
export type { FoldedTensorReport, FoldOptions, FoldReport } from '../runtime/fold/fold.js';
export { fold } from '../runtime/fold/fold.js';
export type { ComputeDType } from '../runtime/fold/folded-tensor.js';
export type { FoldProof } from '../runtime/fold/proof.js';
export type { HostTensor, NumericArray } from '../runtime/host-tensor.js';
export { numbersOf, tensorOfNumbers } from '../runtime/host-tensor.js';
// Data, adapters and running models.
export { datasetOf } from '../runtime/library/dataset.js';
export type { EmitAdaptedOptions, EmitStepOptions } from '../runtime/library/emit.js';
export { emit } from '../runtime/library/emit.js';
export { insert } from '../runtime/library/insert.js';
export type { InspectOptions } from '../runtime/library/inspect.js';
// The road: inspect, insert, emit, train, fold, verify.
export { inspect } from '../runtime/library/inspect.js';
export type { ModelSource } from '../runtime/model-session.js';
export type { Sizes } from '../runtime/random-inputs.js';
export type {
  LogLevel,
  RunRequest,
  Session,
  SessionHost,
  SessionOptions,
  TensorInfo,
  Tensors,
} from '../runtime/session.js';
export { createSession } from '../runtime/session.js';
export type { EvalResult, StopReason, TrainEvent, TrainListener } from '../runtime/train/events.js';
export type { TrainOptions, TrainResult } from '../runtime/train/options.js';
export type { ScheduleConfig } from '../runtime/train/schedule.js';
export { train } from '../runtime/train/train.js';
export type { CaseReport, OutputReport, VerifyOptions, VerifyReport } from '../runtime/verify.js';
export { verify } from '../runtime/verify.js';
export type { Attribute, SparseTensor } from './attribute.js';
export { attr } from './attribute.js';
export type { UserConfig } from './cli/config.js';
export { defineConfig } from './cli/config.js';
export type { ClonedModel } from './clone.js';
export { cloneModel } from './clone.js';
export type { ErrorCode, ErrorDetails } from './errors.js';
// Errors.
export { EXIT, PeftCompileError } from './errors.js';
export type { Annotations, NodeInit, Use } from './graph.js';
// The graph.
export { Graph, Node, Output, redirectUses, Value, walkGraphs, walkNodes } from './graph.js';
export type { Diagnostic } from './infer/index.js';
export { constantOf, inferModel, intsOf, symbolicIntsOf } from './infer/index.js';
export type { Initializer, Random } from './initializer.js';
export { constant, normal, ones, uniform, zeros } from './initializer.js';
export type { NumberLike } from './literals.js';
export { decodeNumbers, tensorOf } from './literals.js';
export type { LocalFunction } from './model.js';
export { Model } from './model.js';
export type { ExternalMode, WriteOptions, WriteReport, WrittenFile } from './onnx/index.js';
// Models and files.
export { decodeModel, encodeModel, readModel as load, writeModel as save } from './onnx/index.js';
export type { BuilderOptions, CallOptions } from './ops/builder.js';
export { Builder } from './ops/builder.js';
export type { Int, Literal, Operand, Outputs } from './ops/operand.js';
export type { MicrosoftOps, Ops } from './ops/ops.generated.js';
export { sortTopologically } from './order.js';
export type { Tensor, TensorData } from './tensor.js';
export type { ParseOptions, PrintOptions } from './text/index.js';
export { parseModel, printModel } from './text/index.js';
export type { Dim, DType, Shape, TensorType, ValueType } from './types.js';
export { formatType, tensorType } from './types.js';
export type { Problem, ValidateOptions } from './validate.js';
export { assertValid, validateModel } from './validate.js';
export { definedValues, findNode, findValue, nodesAfter, nodesBefore } from './walk.js';
