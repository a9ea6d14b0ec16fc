/**
 * The form of a graph that stays on a device. The graphs of the step target use operators that every provider has
 * kernels for; what is left is the base's own integer arithmetic, and that is settled here, when sizes are known and by
 * what the device says of itself.
 */
import { cloneModel } from '../../src/clone.js';
import type { Node } from '../../src/graph.js';
import { inferModel } from '../../src/infer/index.js';
import type { Model } from '../../src/model.js';
import { constantsPass } from '../normalize/constants.js';
import { expandWhere } from '../normalize/expand.js';
import { inlineFunctions } from '../normalize/inline-functions.js';
import { replaceNode } from '../normalize/rewrite.js';
import { definePass } from '../pass.js';
import { runPasses } from '../runner.js';
import { bindSizes, type InputSizes } from './bind-sizes.js';
import { foldConstants } from './fold-constants.js';
import { FORMULAS } from './missing.js';
import { moveAsFloats } from './move-as-floats.js';
import { narrowIntegers } from './narrow-integers.js';
import { wideSplits } from './wide-splits.js';

/** What a device has to say about the graphs that it is given. */
export interface DeviceNeeds {
  /** Shapes are computed on the host: with every size fixed there is nothing to compute. */
  readonly fixedSizes: boolean;
  /** 64-bit integers have no kernels. */
  readonly narrowIntegers: boolean;
  /** Operators of ai.onnx without a kernel. */
  readonly missing: ReadonlySet<string>;
  /** Operators of ai.onnx that move data, whose kernels move floating-point numbers only. */
  readonly floatOnly: ReadonlySet<string>;
  /** Operators of ai.onnx that move data, whose kernels move numbers and no truth values. */
  readonly numbersOnly: ReadonlySet<string>;
  /** Most outputs of one kernel. */
  readonly maxOutputs: number;
}

/**
 * A copy of `model` for the device, its inputs of the given sizes. Inputs and outputs keep their names and order;
 * int64 ones become int32 where the device has no such integers.
 * @throws E_TYPE for sizes that contradict the model.
 */
export function lowerForDevice(model: Model, needs: DeviceNeeds, sizes: InputSizes): Model {
  const copy = cloneModel(model).model;
  const lacking = (node: Node) => node.domain === '' && needs.missing.has(node.op);
  const summary = 'replaces fused operators that a device lacks by standard ones';
  runPasses(copy, [inlineFunctions, constantsPass]);
  inferModel(copy);
  runPasses(copy, [expandWhere(lacking, 'expand-fused', summary)]);
  if (needs.fixedSizes) {
    bindSizes(copy, sizes);
    runPasses(copy, [foldConstants]);
  } else inferModel(copy);
  runPasses(copy, [expandMissing(needs.missing), wideSplits(needs.maxOutputs)]);
  const narrow = needs.narrowIntegers ? narrowIntegers(copy) : copy;
  runPasses(narrow, [moveAsFloats(needs)]);
  return narrow;
}

function expandMissing(missing: ReadonlySet<string>) {
  return definePass({
    name: 'expand-missing',
    summary: 'writes operators that a device lacks as formulas',
    *run(model: Model) {
      for (const node of [...model.graph.nodes()]) {
        const formula = node.domain === '' && missing.has(node.op) ? FORMULAS[node.op] : undefined;
        if (formula === undefined) continue;
        let covered = true;
        const edit = replaceNode(model, node, 'expand-missing', (b) => {
          const output = formula(b, node);
          covered = output !== undefined;
          return output === undefined ? [] : [output];
        });
        if (covered) yield edit;
      }
    },
  });
}
