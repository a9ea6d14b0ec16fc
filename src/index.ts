/**
 * `peft-compile` as a library: everything the command line does, and the graph it does it with.
 *
 * ```ts
 * import { emit, fold, insert, load, train } from 'peft-compile';
 *
 * const model = load('bert.onnx');
 * await insert(model, { method: 'lora', config: { rank: 8 }, targeting: { targets: ['query', 'value'] } });
 * const artifacts = await emit(model, { target: 'step', loss: 'classification' });
 * await train({ artifacts, data: 'train.jsonl', out: 'run' });
 * await fold({ model: 'bert.onnx', adapter: 'run/adapter.safetensors', out: 'merged.onnx', verify: true });
 * ```
 *
 * Everything that fails throws a {@link PeftCompileError} with a stable `code`, the place and what to do about it.
 *
 * @packageDocumentation
 */

// The road: load, inspect, insert, emit, train, fold, verify, save.

export {
  type AdapterParam,
  type AdapterRecord,
  type AdapterSite,
  readAdapterRecord,
} from '../passes/adapter-record.js';
export type { CombineBy, CombineReport, CombineSettings } from '../passes/combine/combine.js';
export type { SharedPolicy, Unfolded } from '../passes/fold/plan.js';
export {
  type AttachOptions,
  attachAdapter,
  type InsertOptions,
  type InsertReport,
  type InsertSettings,
} from '../passes/insert/insert.js';
export type { SkippedSite } from '../passes/insert/plan.js';
export type * from '../passes/inspect/report.js';
export {
  checkSymbols,
  type MemoryOptions,
  type MemoryPlan,
  planMemory,
  sharedPeak,
} from '../passes/memory/plan.js';
export type { DimSizes } from '../passes/memory/sizes.js';
export type { InputSetting, InputSettings } from '../passes/normalize/fixed-inputs.js';
export type { DeviceNeeds } from '../passes/portable/device.js';
export type { HalfDType } from '../passes/precision/lowered-tensor.js';
export type { PrecisionOptions } from '../passes/precision/options.js';
export type { FormatId } from '../passes/quantize/formats.js';
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
export type { ScalePlace, ServingInput, ServingOptions } from '../passes/targets/serving.js';
export type { GroupOptions, StepOptions } from '../passes/targets/step.js';
export type { TrainingOptions } from '../passes/targets/training.js';
export { type GraphName, loadArtifacts, type TrainArtifacts } from '../runtime/artifacts.js';
export type { Difference } from '../runtime/compare.js';
export { digestWeights } from '../runtime/digest.js';
export type { ExecutionProvider, Finding, Surroundings } from '../runtime/ep/index.js';
export { decodeOnnxAdapter, readOnnxAdapter } from '../runtime/export/onnx-adapter/read.js';
export type { AdapterVersions, OnnxAdapter } from '../runtime/export/onnx-adapter/schema.js';
export {
  type EncodeOnnxAdapterOptions,
  type WriteOnnxAdapterOptions,
  writeOnnxAdapter,
} from '../runtime/export/onnx-adapter/write.js';
export { type ServingTensorOptions, servingTensors } from '../runtime/export/serving-tensors.js';
export type { Fidelity } from '../runtime/fold/fidelity.js';
export { type FoldedTensorReport, type FoldOptions, type FoldReport, fold } from '../runtime/fold/fold.js';
export type { FoldProof } from '../runtime/fold/proof.js';
export type { ComputeDType } from '../runtime/fold/weight.js';
export { type AttachTrainedOptions, attach } from '../runtime/library/attach.js';
export { type Combined, type CombineOptions, combine } from '../runtime/library/combine.js';
export {
  type EmitAdaptedOptions,
  type EmitOrtTrainingOptions,
  type EmitStepOptions,
  emit,
  type StepDevice,
} from '../runtime/library/emit.js';
export {
  type EvaluatedModel,
  type EvaluateEvent,
  type EvaluateListener,
  type EvaluateOptions,
  type EvaluateResult,
  evaluate,
} from '../runtime/library/evaluate.js';
export { insert } from '../runtime/library/insert.js';
export { type InspectOptions, inspect } from '../runtime/library/inspect.js';
export { type ServeOptions, type ServingModel, serve } from '../runtime/library/serving.js';
export type { QuantisedChoice } from '../runtime/quantize/choice.js';
export {
  type QuantizedTensorReport,
  type QuantizeOptions,
  type QuantizeReport,
  quantize,
} from '../runtime/quantize/quantize.js';
export type { WeightAccuracy } from '../runtime/quantize/quantizing.js';
export type { DataLoadOptions } from '../runtime/train/batches.js';
export type { EvalResult, StopReason, TrainEvent, TrainListener } from '../runtime/train/events.js';
export type { TrainOptions, TrainResult } from '../runtime/train/options.js';
export { adapterOfCheckpoint, type OfCheckpointOptions } from '../runtime/train/save.js';
export type { ScheduleConfig } from '../runtime/train/schedule.js';
export { train } from '../runtime/train/train.js';
export {
  type CaseReport,
  type OutputReport,
  type VerifyOptions,
  type VerifyReport,
  verify,
} from '../runtime/verify.js';
export {
  decodeModel,
  type ExternalMode,
  encodeModel,
  readModel as load,
  type WriteOptions,
  type WriteReport,
  type WrittenFile,
  writeModel as save,
} from './onnx/index.js';

// ONNX Runtime's on-device training: what `emit` gives for it, and its checkpoints.

export type {
  AdamMode,
  CheckpointPlan,
  OrtTrainingModels,
  OrtTrainingOptions,
} from '../passes/targets/ort-training/emit.js';
export type { FrozenWeight } from '../passes/targets/ort-training/frozen.js';
export { adapterOfOrtCheckpoint, writeOrtAdapter } from '../runtime/ort-training/adapter.js';
export type { OrtTrainingArtifacts, WriteOrtTrainingOptions } from '../runtime/ort-training/artifacts.js';
export type { OptimizerState, OrtCheckpoint, Property } from '../runtime/ort-training/checkpoint.js';
export type { ProducedOrtTraining, ProduceOptions } from '../runtime/ort-training/produce.js';
export {
  isOrtCheckpoint,
  readCheckpoint as readOrtCheckpoint,
} from '../runtime/ort-training/read-checkpoint.js';
export {
  checkpointBytes as ortCheckpointBytes,
  nominalOf,
  type WriteCheckpointOptions,
  writeCheckpoint as writeOrtCheckpoint,
} from '../runtime/ort-training/write-checkpoint.js';

// Data, adapter files and running models.

export { type AdapterFile, readAdapter, writeAdapter } from '../runtime/adapter-file.js';
export { type CollapsedAdapter, collapseAdapter } from '../runtime/collapse.js';
export type { BatchInputSpec, CollateOptions } from '../runtime/data/batch.js';
export type { Dataset, Example, ExampleTensor } from '../runtime/data/dataset.js';
export type { LoadOptions } from '../runtime/data/load.js';
export { type Encoded, loadTokenizer, type TextTokenizer } from '../runtime/data/tokenizer.js';
export { type HostTensor, type NumericArray, numbersOf, tensorOfNumbers } from '../runtime/host-tensor.js';
export { datasetOf } from '../runtime/library/dataset.js';
export type { ModelSource } from '../runtime/model-session.js';
export type { ReadPeftOptions } from '../runtime/peft/read.js';
export { type PeftReport, type WritePeftOptions, writePeft } from '../runtime/peft/write.js';
export type { Sizes } from '../runtime/random-inputs.js';
export type { WritableTensor } from '../runtime/safetensors.js';
export {
  createSession,
  type LogLevel,
  type RunRequest,
  type Session,
  type SessionOptions,
  type TensorInfo,
  type Tensors,
} from '../runtime/session.js';
export type { WeightedOptions } from '../runtime/weighted/combine.js';

// Methods of one's own. `z` is the zod that their configurations are written with.

export { z } from 'zod';
export type { EntryTargeting, InsertEntry } from '../passes/insert/entry.js';
export { savedModules } from '../passes/insert/saved-modules.js';
export type { ByRow, RowLayout } from '../passes/methods/contract/by-row.js';
export type { Configurable } from '../passes/methods/contract/configurable.js';
export {
  baseValue,
  type DerivedInit,
  derived,
  type HostArray,
  type HostTransform,
} from '../passes/methods/contract/derived.js';
export {
  type AnyCollapse,
  type AnyFold,
  type AnySiteRules,
  type AttachContext,
  type Collapse,
  defineMethod,
  type Fold,
  type Folded,
  type Impossible,
  type Method,
  type MethodDefinition,
  type Paper,
  type ParamSpec,
  type ParamSpecs,
  type ParamValues,
  type SharedDims,
  type SiteRules,
  siteKindsOf,
} from '../passes/methods/contract/method.js';
export type {
  PeftConfig,
  PeftFile,
  PeftFormat,
  PeftModule,
  PeftSlice,
  PeftTarget,
  PeftTensor,
  PeftWhole,
  WrittenModule,
} from '../passes/methods/contract/peft-format.js';
export type { Procedure, ProcedureParam, ProcedureStep } from '../passes/methods/contract/procedure.js';
export type {
  Found,
  Survey,
  SurveyContext,
  SurveyedSite,
  SurveyedTensor,
  SurveyResult,
} from '../passes/methods/contract/survey.js';
export type { Weighted, WeightedFactors, WeightedParameters } from '../passes/methods/contract/weighted.js';
export { METHODS as methods } from '../passes/methods/registry.js';
export { unfuseAttention } from '../passes/normalize/unfuse.js';
export { definePreset, type Preset, type PresetDefinition } from '../passes/presets/preset.js';
export { PRESETS as presets } from '../passes/presets/registry.js';
export type {
  AttentionDims,
  Dims,
  EmbeddingDims,
  LinearDims,
  NormDims,
  PositionDims,
  PromptDims,
  SiteDims,
  SiteSlots,
  SiteViews,
  Stored,
  StoredSlots,
  StoredValues,
  SublayerDims,
} from '../passes/sites/views.js';
export { type ConfigFile, defineConfig, type TrainConfig, type UserConfig } from './cli/config.js';
export {
  type ConstantInitializer,
  constant,
  type Initializer,
  type NormalInitializer,
  normal,
  ones,
  type Random,
  type UniformInitializer,
  uniform,
  zeros,
} from './initializer.js';

// Passes, losses, optimizers and gradient rules of one's own.

export { type Anchor, applyEdit, type Edit, type Redirect } from '../passes/edit.js';
export { type BackwardOptions, type BackwardResult, backward } from '../passes/grad/backward.js';
export type { GradientContext } from '../passes/grad/context.js';
export {
  type Contribution,
  defineGradient,
  type Gradient,
  type GradientRule,
  type GradientSpec,
  type Scaled,
} from '../passes/grad/rule.js';
export {
  type BuiltLoss,
  type ConfiguredLoss,
  defineLoss,
  type LabelInput,
  LOSSES as losses,
  type Loss,
  type LossContext,
  type LossDefinition,
  type LossMetric,
} from '../passes/losses/index.js';
export {
  type ConfiguredOptimizer,
  defineOptimizer,
  OPTIMIZERS as optimizers,
  type Optimizer,
  type OptimizerDefinition,
  type StateSlot,
  type TensorUpdate,
  type UpdatedTensor,
} from '../passes/optimizers/index.js';
export type { Json } from '../passes/options.js';
export { definePass, type Pass } from '../passes/pass.js';
export { type EditLog, type RunOptions, type RunResult, runPasses } from '../passes/runner.js';

// The graph: walk, build, infer, validate, print, parse.

export {
  type AttentionSite,
  type ColumnRange,
  type EmbeddingSite,
  type FindOptions,
  findSites,
  findWeightSites,
  type LinearRole,
  type LinearSite,
  type NormSite,
  type PackedRange,
  type PathGuess,
  type PositionSite,
  type PromptSite,
  type Site,
  type SiteBias,
  type SiteKind,
  type SublayerSite,
  type WeightSite,
  type WeightStorage,
  type WeightView,
} from '../passes/sites/index.js';
export { type Attribute, attr, type SparseTensor } from './attribute.js';
export { type ClonedModel, cloneModel } from './clone.js';
export { type ErrorCode, type ErrorDetails, EXIT, PeftCompileError } from './errors.js';
export {
  type Annotations,
  Graph,
  Node,
  type NodeInit,
  Output,
  redirectUses,
  type Use,
  Value,
  walkGraphs,
  walkNodes,
} from './graph.js';
export { constantOf, type Diagnostic, inferModel, intsOf, symbolicIntsOf } from './infer/index.js';
export { decodeNumbers, type NumberLike, tensorOf } from './literals.js';
export { type LocalFunction, Model } from './model.js';
export type { AttributeInput } from './ops/attributes.js';
export { Builder, type BuilderOptions, type CallOptions } from './ops/builder.js';
export type { OpCall } from './ops/op-call.js';
export type { Int, Literal, Operand, Outputs } from './ops/operand.js';
export type * as operators from './ops/ops.generated.js';
export type { MicrosoftOps, Ops } from './ops/ops.generated.js';
export { sortTopologically } from './order.js';
export type { Tensor, TensorData } from './tensor.js';
export { type ParseOptions, type PrintOptions, parseModel, printModel } from './text/index.js';
export {
  type Dim,
  type DType,
  formatType,
  type Shape,
  type TensorType,
  tensorType,
  type ValueType,
} from './types.js';
export { assertValid, type Problem, type ValidateOptions, validateModel } from './validate.js';
export { definedValues, findNode, findValue, nodesAfter, nodesBefore } from './walk.js';
