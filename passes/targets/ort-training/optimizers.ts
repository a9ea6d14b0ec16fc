/**
 * Optimizers of the runtime. An optimizer model holds exactly one node of them over all parameters at once, so what
 * differs between parameters has to be done to the gradients, or cannot be done.
 */
import { type Attribute, attr } from '../../../src/attribute.js';
import { fail } from '../../../src/errors.js';
import type { Value } from '../../../src/graph.js';
import type { Json } from '../../options.js';
import type { AdamMode } from './options.js';

type Config = Readonly<Record<string, Json>>;

/** What all parameters of one training model have in common, or do not. */
export interface ParameterSettings {
  readonly key: string;
  readonly weightDecay: boolean;
  readonly lrScale: number;
}

export interface OptimizerInputs {
  /** float32 [1]. */
  readonly lr: Value;
  /** int64 [1]. */
  readonly step: Value;
  readonly params: Value;
  readonly gradients: Value;
  /** Sequences, by moment. */
  readonly moments: readonly Value[];
}

/** What is left of the settings when the gradients are done with. */
export interface Divided {
  /** Factor on the learning rate of every parameter. */
  readonly lrScale: number;
  readonly decay: boolean;
  /** Per parameter, in order: g ← scale·(g + decay·p); absent where nothing is to be done. */
  readonly gradients: readonly ({ readonly scale: number; readonly decay: number } | undefined)[];
}

export interface NativeOptimizer {
  readonly op: string;
  /** Inputs of the optimizer model that hold moments, in order. */
  readonly moments: readonly string[];
  /** Slots of our optimizer of the same id, as far as there are as many; the rest of the moments stays zero. */
  readonly slots: readonly string[];
  /** Shape of the flag that the node gives. */
  readonly flag: readonly number[];
  inputs(values: OptimizerInputs): readonly Value[];
  attributes(config: Config, decay: boolean, mode: AdamMode): Record<string, Attribute>;
  /** Throws E_UNSUPPORTED for settings that the runtime cannot carry. */
  divide(params: readonly ParameterSettings[], config: Config, clipped: boolean): Divided;
}

const number = (config: Config, name: string): number => Number(config[name] ?? 0);

const adamw: NativeOptimizer = {
  op: 'AdamWOptimizer',
  moments: ['first_order_moments', 'second_order_moments'],
  slots: ['m', 'v'],
  flag: [1],
  inputs: ({ lr, step, params, gradients, moments }) => [lr, step, params, gradients, ...moments],
  attributes: (config, decay, mode) => ({
    alpha: attr.float(number(config, 'beta1')),
    beta: attr.float(number(config, 'beta2')),
    epsilon: attr.float(number(config, 'eps')),
    weight_decay: attr.float(decay ? number(config, 'weightDecay') : 0),
    adam_mode: attr.int(mode === 'torch' ? 0 : 1),
    correct_bias: attr.int(1),
  }),
  divide(params, config) {
    const decays = number(config, 'weightDecay') > 0;
    const lrScale = same(params, ({ lrScale }) => lrScale, 'learning rate', 'Give all groups one factor');
    const decay =
      decays && same(params, ({ weightDecay }) => weightDecay, 'weight decay', 'Set the weight decay to 0');
    return { lrScale, decay, gradients: params.map(() => undefined) };
  },
};

const sgd: NativeOptimizer = {
  op: 'SGDOptimizerV2',
  moments: ['first_order_moments'],
  slots: [],
  flag: [],
  inputs: ({ lr, params, gradients }) => [lr, params, gradients],
  attributes: () => ({}),
  divide(params, config, clipped) {
    if (number(config, 'momentum') > 0)
      fail('E_UNSUPPORTED', {
        message: 'SGD of ONNX Runtime Training has no momentum',
        remedy: 'Set momentum to 0, or train with adamw',
      });
    const λ = number(config, 'weightDecay');
    const wanted = params.map(({ lrScale, weightDecay }) => ({ scale: lrScale, decay: weightDecay ? λ : 0 }));
    const idle = wanted.every(({ scale, decay }) => scale === 1 && decay === 0);
    // The runtime clips what the training model gives, and then there is no place left for these.
    if (clipped && !idle)
      fail('E_UNSUPPORTED', {
        message:
          'SGD of ONNX Runtime Training cannot combine clipping with weight decay or learning-rate factors',
        remedy: 'Drop the clipping, or set the weight decay to 0 and give all groups one rate',
      });
    return {
      lrScale: 1,
      decay: false,
      gradients: wanted.map((one) => (one.scale === 1 && one.decay === 0 ? undefined : one)),
    };
  },
};

/** By the id of our optimizer with the same formula. */
const NATIVE: ReadonlyMap<string, NativeOptimizer> = new Map([
  ['adamw', adamw],
  ['sgd', sgd],
]);

/** Throws E_UNSUPPORTED for an optimizer that the runtime does not have. */
export function nativeOptimizer(id: string): NativeOptimizer {
  return (
    NATIVE.get(id) ??
    fail('E_UNSUPPORTED', {
      message: `ONNX Runtime Training has no optimizer '${id}'`,
      remedy: `Use one of ${[...NATIVE.keys()].join(', ')}, or the step target, which takes any formula`,
    })
  );
}

function same<T>(
  params: readonly ParameterSettings[],
  of: (param: ParameterSettings) => T,
  what: string,
  remedy: string,
): T {
  const [first] = params as readonly [ParameterSettings];
  const other = params.find((param) => of(param) !== of(first));
  if (other !== undefined)
    fail('E_UNSUPPORTED', {
      message: `AdamW of ONNX Runtime Training has one ${what} for all parameters; here it is ${of(first)} for '${first.key}' and ${of(other)} for '${other.key}'`,
      remedy: `${remedy}, or use the step target`,
    });
  return of(first);
}
