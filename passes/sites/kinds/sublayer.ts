import type { Node, Value } from '../../../src/graph.js';
import type { Builder } from '../../../src/ops/builder.js';
import { shapeOf } from '../../../src/value-type.js';
import type { SublayerSite } from '../site.js';
import { normalizeLike, sumBias } from '../structure/sums.js';
import type { SublayerDims } from '../views.js';
import { traceConstant } from '../weight.js';
import type { Kind } from './kind.js';
import { lazily } from './lazily.js';
import { at } from './weights.js';

/** `sum = residual + z`: what a block adds to the stream. Values are those that the nodes read by now. */
export const sublayer: Kind<SublayerSite> = {
  dims: ({ path, dtype, role, dim, norm }): SublayerDims => ({
    path,
    dtype,
    role,
    dim,
    postNorm: norm.length > 0,
  }),

  stored: () => ({}),

  open(builder, site) {
    const { op } = builder;
    const { node, input, residual, entry } = site;
    const stream = site.stream ?? { node, index: residual };
    // A fused sum adds the bias of the block's last linear itself.
    const bias = sumBias(node);
    const view = lazily(
      {
        ...sublayer.dims(site),
        normalize: (value: Value) => normalized(builder, site.norm, value),
      },
      {
        x: () => entry.node.input(entry.index),
        z: () => (bias === undefined ? node.input(input) : op.Add(node.input(input), node.input(bias))),
        residual: () => stream.node.input(stream.index),
      },
    );
    return {
      view,
      slots: {
        z: (value) => {
          const redirects = [{ from: node.input(input), to: value, only: at(node, input) }];
          if (bias !== undefined) {
            const from = node.input(bias);
            redirects.push({ from, to: op.Mul(from, 0), only: at(node, bias) });
          }
          return { at: { before: node }, redirects, replaced: value };
        },
      },
    };
  },
};

/** The normalization behind the sum on another value: its nodes again, with gain and offset as they are now. */
function normalized(builder: Builder, norm: readonly Node[], value: Value): Value {
  const [first] = norm;
  const last = norm.at(-1);
  if (first === undefined || last === undefined) return value;
  const alike = normalizeLike(builder.op, first, value);
  if (alike !== undefined) return alike;
  const own = new Set(norm.flatMap(({ outputs }) => outputs));
  const copies = new Map<Value, Value>();
  for (const node of norm) {
    const inputs = node.inputs.map((input) => {
      if (input === null) return null;
      if (own.has(input)) return copies.get(input) ?? null;
      return isVector(input) ? input : value;
    });
    const { op, domain, attributes } = node;
    const made = builder.emit({
      domain,
      op,
      inputs,
      attributes,
      outputs: node.outputs.map((o) => o !== null),
    });
    const present = node.outputs.filter((output) => output !== null);
    for (const [i, output] of present.entries()) copies.set(output, made[i] as Value);
  }
  return copies.get(last.output(0)) ?? value;
}

/** Gains, offsets and numbers, whether constant or computed by a method: everything but what is normalized. */
function isVector(value: Value): boolean {
  if (traceConstant(value) !== undefined) return true;
  const shape = shapeOf(value);
  return shape !== undefined && shape.length <= 1;
}
