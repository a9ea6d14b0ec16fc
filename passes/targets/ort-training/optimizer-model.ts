/** The optimizer model: schedule, clipping and one node that updates all parameters in place. */
import { attr } from '../../../src/attribute.js';
import { Graph, Value } from '../../../src/graph.js';
import { Model } from '../../../src/model.js';
import { Builder } from '../../../src/ops/builder.js';
import { tensorType, type ValueType } from '../../../src/types.js';
import { applyEdit } from '../../edit.js';
import { TRAINING_OPSET } from '../../normalize/raise-opset.js';
import type { Json } from '../../options.js';
import type { Schedule } from '../manifest.js';
import type { NativeOptimizer } from './optimizers.js';
import type { AdamMode } from './options.js';
import { scheduleFactor } from './schedule.js';

export interface OptimizerSettings {
  readonly optimizer: NativeOptimizer;
  readonly config: Readonly<Record<string, Json>>;
  readonly decay: boolean;
  readonly mode: AdamMode;
  readonly schedule: Schedule;
  readonly rate: 'graph' | 'runtime';
  readonly lrScale: number;
  readonly maxNorm: number | null;
}

/** IR of opset 20, for which runtimes before opset 21 need no update. */
const IR = 9;
const SEQUENCE: ValueType = { kind: 'sequence', element: tensorType('float32', null) };

/** Inputs and their order are what the runtime feeds; it does not go by names alone. */
export function emitOptimizer(settings: OptimizerSettings): Model {
  const { optimizer, maxNorm } = settings;
  const model = new Model(new Graph());
  model.irVersion = IR;
  model.opsets.set('', TRAINING_OPSET).set('com.microsoft', 1);
  const { graph } = model;
  const input = (name: string, type: ValueType): Value => graph.addInput(new Value({ name, type }));
  const rate = input('learning_rate', tensorType('float32', [1]));
  const step = input('step', tensorType('int64', [1]));
  const params = input('params', SEQUENCE);
  const gradients = input('gradients', SEQUENCE);
  const moments = optimizer.moments.map((name) => input(name, SEQUENCE));

  const b = new Builder(model, { provenance: 'optimizer' });
  const contrib = { domain: 'com.microsoft' };
  const clip = { max_norm: attr.float(maxNorm ?? 0), norm_type: attr.string('fro') };
  const [clipped = gradients] =
    maxNorm === null ? [] : b.call('InplaceClipGradNorm', [gradients], clip, contrib);
  const flag = b.call(
    optimizer.op,
    optimizer.inputs({
      lr: learningRate(b, rate, step, settings),
      step,
      params,
      gradients: clipped,
      moments,
    }),
    optimizer.attributes(settings.config, settings.decay, settings.mode),
    contrib,
  )[0] as Value;
  flag.type = tensorType('bool', optimizer.flag);
  flag.name = 'updated';
  applyEdit({
    label: 'optimizer',
    graph,
    add: { nodes: b.nodes, at: 'end' },
    addInitializers: b.initializers,
  });
  graph.addOutput('updated', flag);
  return model;
}

/** float32 [1]. */
function learningRate(b: Builder, rate: Value, step: Value, settings: OptimizerSettings): Value {
  const { op } = b;
  const { schedule, lrScale } = settings;
  const fromGraph = settings.rate === 'graph';
  const factor = scheduleFactor(op, op.Cast(step, { to: 'float32' }), schedule);
  const peak = (fromGraph ? schedule.learningRate : 1) * lrScale;
  const value = fromGraph ? factor : factor === undefined ? rate : op.Mul(rate, factor);
  if (value === undefined) return b.operand([peak], 'float32', 'rate');
  return peak === 1 ? value : op.Mul(value, peak);
}
