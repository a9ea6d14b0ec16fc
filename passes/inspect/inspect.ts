/** What a model holds, where methods can attach, and what stands in the way. */
import { type Value, walkGraphs } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { formatType } from '../../src/types.js';
import { exporterOf } from '../sites/exporters/index.js';
import { findWeightSites } from '../sites/find.js';
import { hazardsOf } from './hazards.js';
import { type GradientTest, operatorInfo, trainableNodes } from './operators.js';
import { parameterInfo } from './parameters.js';
import type { InspectReport, ModelInfo, ValueInfo } from './report.js';
import { sharedWeights } from './shared.js';
import { siteRows } from './sites.js';

export interface InspectOptions {
  /** Module paths by node name, weight name or output name. */
  readonly paths?: ReadonlyMap<string, string>;
  /** Whether a gradient rule exists for an operator; without it the report does not speak of gradients. */
  readonly hasGradient?: GradientTest;
}

/** Reads a model without changing it (but for the types of values that had none). */
export function inspect(model: Model, options: InspectOptions = {}): InspectReport {
  const sites = findWeightSites(model, options.paths === undefined ? {} : { paths: options.paths });
  const shared = sharedWeights(model, sites);
  const trainable = trainableNodes(sites);
  const { hasGradient } = options;
  return {
    model: modelInfo(model),
    inputs: model.graph.inputs
      .filter(({ tensor }) => tensor === undefined)
      .map((value) => valueInfo(value.label, value.type)),
    outputs: model.graph.outputs.map(({ name, value, type }) =>
      valueInfo(name ?? value.label, type ?? value.type),
    ),
    sites: siteRows(sites),
    parameters: parameterInfo(model),
    shared,
    operators: operatorInfo(model, trainable, hasGradient),
    hazards: hazardsOf({ model, sites, shared, trainable, hasGradient }),
  };
}

function modelInfo(model: Model): ModelInfo {
  const graphs = [...walkGraphs(model.graph)];
  const { id, title } = exporterOf(model);
  return {
    path: model.path ?? null,
    irVersion: model.irVersion,
    opsets: Object.fromEntries(
      [...model.opsets].map(([domain, version]) => [domain === '' ? 'ai.onnx' : domain, version]),
    ),
    producer: `${model.producerName} ${model.producerVersion}`.trim(),
    exporter: { id, title },
    nodes: graphs.reduce((count, graph) => count + graph.nodeCount, 0),
    nestedGraphs: graphs.length - 1,
    localFunctions: model.functions.length,
  };
}

function valueInfo(name: string, type: Value['type']): ValueInfo {
  const tensor = type?.kind === 'tensor' ? type : undefined;
  return {
    name,
    type: formatType(type),
    dtype: tensor?.dtype ?? null,
    shape: tensor?.shape ?? null,
  };
}

export type { GradientTest } from './operators.js';
export type * from './report.js';
