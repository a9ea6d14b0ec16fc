/**
 * What the training API's last release, 1.19.2, lacks of ONNX Runtime's own operators as later releases have them. Found by
 * giving every operator of onnxruntime 1.31, with each of its attributes, inputs and outputs, to onnxruntime-training 1.19.2.
 */
import type { Attribute } from '../../../src/attribute.js';
import { fail } from '../../../src/errors.js';
import { type Node, walkNodes } from '../../../src/graph.js';
import { inferModel } from '../../../src/infer/index.js';
import type { Model } from '../../../src/model.js';
import { schemaOf } from '../../../src/ops/schema.js';
import { expandWhere } from '../../normalize/expand.js';
import { replaceNode } from '../../normalize/rewrite.js';
import { definePass } from '../../pass.js';
import type { Formula } from '../../portable/missing.js';
import { runPasses } from '../../runner.js';
import { QUANTISED_FORMULAS } from './quantised-formulas.js';

const RUNTIME = 'ONNX Runtime 1.19.2, the last release with the training API,';

interface OlderForm {
  /** Most inputs. */
  readonly inputs?: number;
  /** Fewest and most outputs. */
  readonly outputs?: readonly [number, number];
  /** Attributes that came later; ones that hold what they mean when they are absent are taken off. */
  readonly lacks?: readonly string[];
  /** Integer attributes of which it takes these values. */
  readonly values?: Readonly<Record<string, readonly number[]>>;
  /** Integer attributes that have to be said, and what later releases take them for. */
  readonly required?: Readonly<Record<string, number>>;
}

const OLDER: Readonly<Record<string, OlderForm>> = {
  GroupQueryAttention: {
    inputs: 9,
    outputs: [3, 3],
    lacks: [
      'causal',
      'k_quant_type',
      'kv_cache_bit_width',
      'qk_norm_epsilon',
      'qk_output',
      'sliding_window_cache',
      'softcap',
      'v_quant_type',
    ],
  },
  MatMulNBits: { lacks: ['weight_prepacked'], values: { bits: [4] }, required: { bits: 4 } },
  MoE: { lacks: ['activation_alpha', 'activation_beta', 'swiglu_fusion', 'swiglu_limit'] },
  MultiHeadAttention: { inputs: 8, outputs: [1, 3] },
  QMoE: { inputs: 11 },
};

const ABSENT = new Set(
  (
    'BranchwiseRMSNorm CausalConvWithState DynamicSparseAttention EngramGate GatedAdd GatedDeltaNet GatedRMSNorm ' +
    'GatherBlockQuantized HyperConnectionPostMix HyperConnectionPreMix LinearAttention LinearAttentionGate ' +
    'MatMulBlockQuantizedFp4Weight MatMulBlockQuantizedFp8Weight MatMulNBitsMlp MatMulNBitsQkv MRotaryEmbedding ' +
    'NGramHashMapping PackedSparseAttentionIndexer PagedAttention ScaledSiLU SparseAttentionIndexer ' +
    'SparsePagedAttention VarlenCausalConvWithState VarlenNGramHashMapping'
  ).split(' '),
);

/**
 * Says the model in operators that the runtime has: attributes in their older form, fused operators and quantised ones
 * written out where they have to be. Types are inferred anew.
 * @throws E_UNSUPPORTED naming the operator, and what of it is missing.
 */
export function fitOperators(model: Model): void {
  for (const node of ownNodes(model)) settleAttributes(node);
  if (ownNodes(model).some(isPadded)) {
    inferModel(model);
    runPasses(model, [trimInputs]);
  }
  const lacking = (node: Node) => shortage(node) !== undefined;
  if (!ownNodes(model).some(lacking)) return;
  inferModel(model);
  runPasses(model, [expandWhere(lacking, 'expand-later', SUMMARY), writeOut(lacking, QUANTISED_FORMULAS)]);
  for (const node of ownNodes(model)) {
    const found = shortage(node);
    if (found !== undefined)
      fail('E_UNSUPPORTED', {
        message: `${RUNTIME} ${found}`,
        where: node.label,
        remedy:
          'Train with peft-compile train or the step target, or export the base without this operator (unfused, or quantised to 4 bits with MatMulNBits)',
      });
  }
  inferModel(model);
}

const SUMMARY = 'writes out operators that came after the last release with the training API';

function ownNodes(model: Model): Node[] {
  return [model.graph, ...model.functions.map(({ graph }) => graph)].flatMap((graph) =>
    [...walkNodes(graph)].filter(({ domain }) => domain === 'com.microsoft'),
  );
}

function settleAttributes(node: Node): void {
  const { lacks = [], required = {} } = OLDER[node.op] ?? {};
  const known = schemaOf('com.microsoft', node.op, 1);
  for (const name of lacks) {
    const attribute = node.attributes.get(name);
    if (attribute !== undefined && isUsual(attribute, known?.attributes.get(name)?.default ?? 0))
      node.attributes.delete(name);
  }
  for (const [name, value] of Object.entries(required))
    if (!node.attributes.has(name)) node.attributes.set(name, { type: 'int', value: BigInt(value) });
}

/** Whether inputs that are left out at the end are more than the older form has: it counts them. */
function isPadded({ op, inputs }: Node): boolean {
  const { inputs: most = Number.POSITIVE_INFINITY } = OLDER[op] ?? {};
  return inputs.length > most && inputs.slice(most).every((input) => input === null);
}

const trimInputs = definePass({
  name: 'trim-inputs',
  summary: 'takes off inputs at the end that are left out and that an older form of the operator lacks',
  *run(model: Model) {
    for (const node of ownNodes(model).filter(isPadded))
      yield replaceNode(model, node, 'trim-inputs', (b) =>
        b.emit({
          domain: node.domain,
          op: node.op,
          inputs: node.inputs.slice(0, OLDER[node.op]?.inputs),
          attributes: node.attributes,
          outputs: node.outputs.length,
        }),
      );
  },
});

function isUsual(attribute: Attribute, usual: unknown): boolean {
  if (attribute.type === 'string') return attribute.value === usual;
  if (attribute.type !== 'int' && attribute.type !== 'float') return false;
  return Math.fround(Number(attribute.value)) === Math.fround(Number(usual));
}

/** What of a node the runtime does not have, as the end of a sentence; undefined for nothing. */
function shortage(node: Node): string | undefined {
  if (node.domain !== 'com.microsoft') return undefined;
  if (ABSENT.has(node.op)) return `has no operator ${node.qualifiedOp}`;
  const form = OLDER[node.op];
  if (form === undefined) return undefined;
  const { inputs = Number.POSITIVE_INFINITY, outputs: [fewest, most] = [0, Number.POSITIVE_INFINITY] } = form;
  const count = (values: readonly unknown[]) => 1 + values.findLastIndex((value) => value !== null);
  const given = count(node.inputs);
  if (given > inputs) return `takes ${inputs} inputs of ${node.qualifiedOp}, and this one has ${given}`;
  const made = count(node.outputs);
  if (made < fewest || made > most)
    return `gives ${fewest === most ? '' : `${fewest} to `}${most} outputs of ${node.qualifiedOp}, and this one has ${made}`;
  const unknown = (form.lacks ?? []).find((name) => node.attributes.has(name));
  if (unknown !== undefined) return `knows no attribute '${unknown}' of ${node.qualifiedOp}`;
  for (const [name, values] of Object.entries(form.values ?? {})) {
    const attribute = node.attributes.get(name);
    if (attribute?.type === 'int' && !values.includes(Number(attribute.value)))
      return `takes no ${node.qualifiedOp} with ${name} ${attribute.value}`;
  }
  return undefined;
}

function writeOut(select: (node: Node) => boolean, formulas: Readonly<Record<string, Formula>>) {
  return definePass({
    name: 'write-out-later',
    summary: SUMMARY,
    *run(model: Model) {
      for (const node of [...model.graph.nodes()]) {
        const formula = select(node) ? formulas[node.op] : undefined;
        if (formula === undefined) continue;
        let covered = true;
        const edit = replaceNode(model, node, 'write-out-later', (b) => {
          const output = formula(b, node);
          covered = output !== undefined;
          return output === undefined ? [] : [output];
        });
        if (covered) yield edit;
      }
    },
  });
}
