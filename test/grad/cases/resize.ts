/** Resize: every rule of coordinates and rounding, sizes up and down, by scales and by sizes. */
import type { Value } from '../../../src/graph.js';
import { tensorOf } from '../../../src/literals.js';
import type { Builder } from '../../../src/ops/builder.js';
import type { GradientCase } from '../harness.js';

type Attributes = Readonly<Record<string, string | number | number[]>>;

interface To {
  readonly scales?: readonly number[];
  readonly sizes?: readonly number[];
}

function resize(attributes: Attributes, to: To, more: Partial<GradientCase> = {}): GradientCase {
  const { opset = 21 } = more;
  const absent = (b: Builder): Value | null => (opset < 13 ? b.constant(tensorOf('float32', [0], [])) : null);
  return {
    name: `Resize-${opset} ${Object.values(attributes).join(' ')} ${JSON.stringify(to)}`,
    inputs: [{ shape: [2, 3, 4, 5] }],
    build: (b, [x]) => {
      const { scales, sizes } = to;
      const given =
        scales === undefined ? absent(b) : b.constant(tensorOf('float32', [scales.length], scales));
      const inputs = [x!, absent(b), given, ...(sizes === undefined ? [] : [b.ints(sizes)])];
      // Squared, so that the gradient is not the same everywhere.
      return b.call('Resize', [b.op.Mul(inputs[0] as Value, x!), ...inputs.slice(1)], attributes)[0]!;
    },
    dtype: 'float32',
    variants: ['static'],
    ...more,
  };
}

const EVERY: Partial<GradientCase> = { variants: ['static', 'symbolic', 'unknown'] };
const up: To = { scales: [1, 1, 2, 3] };
const between: To = { scales: [1, 1, 1.7, 0.6] };
const sizes: To = { sizes: [2, 3, 7, 4] };

const nearest = (rule: string, rounding: string, to: To, more: Partial<GradientCase> = {}): GradientCase =>
  resize({ mode: 'nearest', coordinate_transformation_mode: rule, nearest_mode: rounding }, to, more);
const linear = (rule: string, to: To, more: Partial<GradientCase> = {}): GradientCase =>
  resize({ mode: 'linear', coordinate_transformation_mode: rule }, to, more);

export const resizing: Record<string, GradientCase[]> = {
  Resize: [
    nearest('asymmetric', 'floor', up, EVERY),
    nearest('half_pixel', 'round_prefer_ceil', up),
    nearest('tf_half_pixel_for_nn', 'floor', up, { opset: 11 }),
    nearest('tf_half_pixel_for_nn', 'round_prefer_floor', between, { opset: 11 }),
    nearest('asymmetric', 'ceil', up),
    nearest('asymmetric', 'floor', { scales: [2, 1, 2, 1] }, EVERY),
    nearest('asymmetric', 'floor', sizes, EVERY),
    nearest('half_pixel', 'round_prefer_floor', between),
    nearest('half_pixel_symmetric', 'round_prefer_ceil', between, EVERY),
    nearest('pytorch_half_pixel', 'ceil', { sizes: [2, 3, 1, 9] }),
    nearest('align_corners', 'round_prefer_floor', sizes, { opset: 13, ...EVERY }),
    linear('half_pixel', up, EVERY),
    linear('half_pixel', sizes, { opset: 11 }),
    linear('asymmetric', between, { opset: 11 }),
    linear('half_pixel_symmetric', between),
    linear('pytorch_half_pixel', { sizes: [2, 3, 1, 9] }, { opset: 13 }),
    linear('align_corners', sizes, EVERY),
    resize({ mode: 'linear', axes: [-1, 2] }, { sizes: [3, 8] }, { opset: 18, ...EVERY }),
    resize({ mode: 'linear', antialias: 1 }, { scales: [1, 1, 0.5, 0.6] }),
    resize({ mode: 'linear', antialias: 1 }, sizes),
    resize({ mode: 'cubic', exclude_outside: 1 }, between),
    resize({ mode: 'cubic', cubic_coeff_a: -0.5 }, sizes),
  ],
};
