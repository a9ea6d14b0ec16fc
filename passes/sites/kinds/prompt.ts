import { fail } from '../../../src/errors.js';
import type { Use, Value } from '../../../src/graph.js';
import { tensorOf } from '../../../src/literals.js';
import type { Builder } from '../../../src/ops/builder.js';
import { DTYPE_CODES, type DType } from '../../../src/types.js';
import { dtypeOf, rankOf, sizeAt } from '../../../src/value-type.js';
import type { Redirect } from '../../edit.js';
import type { PromptSite } from '../site.js';
import type { PromptDims } from '../views.js';
import type { Kind } from './kind.js';
import { lazily } from './lazily.js';
import { currentMatrix, storedMatrix } from './weights.js';

/**
 * Virtual tokens in front of a sequence. Inside the model the sequence is longer: graph inputs are extended where they
 * enter, embeddings of the new tokens replaced, and rows of the new tokens cut off where results leave. Names and shapes
 * of inputs and outputs stay.
 */
export const prompt: Kind<PromptSite> = {
  dims: ({ path, dtype, vocab, dim }): PromptDims => ({ path, dtype, vocab, dim }),

  stored: ({ weight, vocab, dim, node }) => ({ w: storedMatrix(weight, vocab, node, dim) }),

  open(builder, site, stack) {
    const { op } = builder;
    const { node, weight, vocab, path, y } = site;
    const joined = stack.current.get('prompt');
    const view = lazily(prompt.dims(site), {
      y: () => joined ?? y,
      w: () => currentMatrix(op, weight, vocab, node, path),
    });
    return {
      view,
      slots: {
        prompt: (value) => {
          const length = lengthOf(value, site);
          const before = joined?.producer?.inputs.slice(0, -1).filter((part) => part !== null) ?? [];
          const done = before.reduce((sum, part) => sum + (sizeAt(part, 1) ?? 0), 0);
          const tokens = op.Slice(y, [done + length], [END], [1]);
          const extended = op.Concat([rows(builder, value, site), ...before, tokens], { axis: 1 });
          const redirects: Redirect[] = [{ from: joined ?? y, to: extended }];
          for (const input of site.inputs)
            redirects.push({ from: input.value, to: FILLS[input.fill](builder, input.value, length) });
          const retyped = redirects.map(({ to }) => to);
          for (const output of site.outputs) {
            const from = currentOutput(site, output.value);
            const to = op.Slice(from, [length], [END], [output.axis]);
            redirects.push({ from, to, only: isOutput(site) });
          }
          return { at: { before: node }, redirects, replaced: extended, retyped };
        },
      },
    };
  },
};

/** Behind every axis. */
const END = Number.MAX_SAFE_INTEGER;

function lengthOf(value: Value, { path, dim }: PromptSite): number {
  const rank = rankOf(value);
  const length = rank === 2 || rank === 3 ? sizeAt(value, -2) : undefined;
  if (length !== undefined && length > 0 && sizeAt(value, -1) === dim) return length;
  return fail('E_TYPE', {
    message: `A prompt is [length, ${dim}], perhaps with a batch axis before, of a known length`,
    where: path,
  });
}

/** The prompt once per row of the batch. */
function rows(builder: Builder, value: Value, { y, dtype }: PromptSite): Value {
  const { op } = builder;
  const wanted = dtypeOf(y) ?? dtype;
  const typed = dtypeOf(value) === wanted ? value : op.Cast(value, { to: DTYPE_CODES[wanted] });
  return rankOf(value) === 3
    ? typed
    : op.Expand(typed, op.Concat([batchOf(builder, y), [1, 1]], { axis: 0 }));
}

/** The first dimension as a vector of one. */
function batchOf({ op }: Builder, value: Value): Value {
  return op.Slice(op.Shape(value), [0], [1], [0]);
}

type Fill = (builder: Builder, input: Value, length: number) => Value;

/** What virtual tokens are in a graph input [batch, time]. Their ids are looked up and then replaced: any will do. */
const FILLS: Readonly<Record<PromptSite['inputs'][number]['fill'], Fill>> = {
  token: constant(() => 0),
  one: constant(() => 1),
  zero: constant(() => 0),
  position: (builder, input, length) =>
    constant((i) => i)(builder, input, length, builder.op.Add(input, length)),
};

function constant(
  at: (index: number) => number,
): (builder: Builder, input: Value, length: number, own?: Value) => Value {
  return (builder, input, length, own = input) => {
    const { op } = builder;
    const dtype: DType = dtypeOf(input) ?? 'int64';
    const numbers = Array.from({ length }, (_, i) => at(i));
    const row = builder.constant(tensorOf(dtype, [1, length], numbers), 'virtual');
    return op.Concat([op.Expand(row, op.Concat([batchOf(builder, input), [1]], { axis: 0 })), own], {
      axis: 1,
    });
  };
}

function isOutput({ graph }: PromptSite): (use: Use) => boolean {
  return (use) => use.kind === 'output' && use.graph === graph;
}

/** What the slot of a graph output holds by now: prompts before this one have cut it. */
function currentOutput({ graph }: PromptSite, value: Value): Value {
  for (const output of graph.outputs)
    for (let at: Value | undefined = output.value; at !== undefined; ) {
      if (at === value) return output.value;
      at = at.producer?.qualifiedOp === 'Slice' ? at.producer.input(0) : undefined;
    }
  return value;
}
