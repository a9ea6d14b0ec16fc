/** Operators that exist at older opsets in another form: inputs that were attributes, attributes that did not exist. */
import { attr } from '../../attribute.js';
import { drop, implied, intsToAttribute, type Lowering, scalarsToAttributes } from './step.js';

const reduction = (before: number): readonly Lowering[] => [
  { before, step: implied('noop_with_empty_axes', 0n) },
  { before, step: intsToAttribute(1, 'axes') },
];

export const forms: Readonly<Record<string, readonly Lowering[]>> = {
  ...Object.fromEntries(
    [
      'ReduceMean',
      'ReduceMax',
      'ReduceMin',
      'ReduceProd',
      'ReduceL1',
      'ReduceL2',
      'ReduceLogSum',
      'ReduceLogSumExp',
      'ReduceSumSquare',
    ].map((op) => [op, reduction(18)]),
  ),
  ReduceSum: reduction(13),
  Squeeze: [{ before: 13, step: intsToAttribute(1, 'axes') }],
  Unsqueeze: [{ before: 13, step: intsToAttribute(1, 'axes') }],
  Split: [
    { before: 18, step: drop('num_outputs') },
    { before: 13, step: intsToAttribute(1, 'split') },
  ],
  Clip: [{ before: 11, step: scalarsToAttributes(1, ['min', 'max']) }],
  TopK: [{ before: 10, step: scalarsToAttributes(1, ['k'], attr.int) }],
};
