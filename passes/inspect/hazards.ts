/** What can go wrong with a model, check by check. A check says what it finds; the list at the end is all of them. */
import { intAttribute } from '../../src/attribute.js';
import { type Node, walkNodes } from '../../src/graph.js';
import type { Model } from '../../src/model.js';
import { schemaHistory } from '../../src/ops/schema.js';
import type { WeightSite } from '../sites/site.js';
import type { GradientTest } from './operators.js';
import type { Hazard, Severity, SharedWeight } from './report.js';
import { conflictsOf } from './sites.js';

export interface HazardContext {
  readonly model: Model;
  readonly sites: readonly WeightSite[];
  readonly shared: readonly SharedWeight[];
  readonly trainable: ReadonlySet<Node>;
  readonly hasGradient: GradientTest | undefined;
}

interface Check {
  readonly code: string;
  readonly severity: Severity;
  message(count: number): string;
  /** Places where the hazard is; none when it is absent. */
  find(context: HazardContext): readonly string[];
}

/** Newest versions that ONNX Runtime 1.30 loads, and those its training API 1.19 does. */
const LIMITS = {
  runtime: { ir: 13, opset: 27 },
  training: { ir: 10, opset: 21 },
} as const;

function nodesWhere(model: Model, test: (node: Node) => boolean): string[] {
  return [...walkNodes(model.graph)].filter(test).map(({ label }) => label);
}

const paths = (sites: readonly WeightSite[]): string[] => sites.map(({ path }) => path);

const QUANTIZED =
  /^(MatMulInteger|ConvInteger|QLinear\w+|QGemm|QAttention|DynamicQuantize\w+|MatMulIntegerToFloat|MatMulNBits|MatMulBnb4|GatherBlockQuantized|QMoE)$/;

const CHECKS: readonly Check[] = [
  {
    code: 'no-sites',
    severity: 'error',
    message: () => 'No linear layer or embedding was found: nothing can be adapted',
    find: ({ sites, model }) => (sites.length === 0 ? [model.graph.name || 'graph'] : []),
  },
  {
    code: 'no-gradient',
    severity: 'error',
    message: (n) => `${n} operators between adaptable layers and the outputs have no gradient rule`,
    find: ({ trainable, hasGradient }) =>
      hasGradient === undefined
        ? []
        : [
            ...new Set(
              [...trainable]
                .filter(({ op, domain, subgraphs }) => subgraphs.length === 0 && !hasGradient(op, domain))
                .map(({ qualifiedOp }) => qualifiedOp),
            ),
          ].sort(),
  },
  {
    code: 'quantized-ops',
    severity: 'warning',
    message: (n) => `${n} nodes compute in integers: adapters run beside them in float and do not fold`,
    find: ({ model }) => nodesWhere(model, ({ op }) => QUANTIZED.test(op)),
  },
  {
    code: 'quantized-weights',
    severity: 'warning',
    message: (n) => `${n} weights are stored quantised: folding needs them in float or a new quantisation`,
    find: ({ sites }) => paths(sites.filter(({ weight }) => weight.storage !== 'dense')),
  },
  {
    code: 'prepacked-weights',
    severity: 'warning',
    message: (n) =>
      `${n} nodes hold weights in a layout prepacked for one device; they cannot be folded into`,
    find: ({ model }) => nodesWhere(model, (node) => intAttribute(node, 'weight_prepacked', 0) !== 0),
  },
  {
    code: 'fused-ops',
    severity: 'info',
    message: (n) => `${n} nodes are fused or contributed operators; training expands them where it can`,
    find: ({ model }) => nodesWhere(model, ({ domain, op }) => domain !== '' && !QUANTIZED.test(op)),
  },
  {
    code: 'weight-form-only',
    severity: 'info',
    message: (n) => `${n} projections have no output of their own: only methods with a weight formula attach`,
    find: ({ sites }) =>
      paths(sites.filter((site) => site.y === undefined && !('packedIn' in site && site.packedIn))),
  },
  {
    code: 'missing-names',
    severity: 'warning',
    message: (n) => `${n} module paths are guesses from the structure; give a map of paths to name them`,
    find: ({ sites }) => paths(sites.filter(({ confidence }) => confidence <= 0.5)),
  },
  {
    code: 'path-conflicts',
    severity: 'warning',
    message: (n) => `${n} module paths are contradicted by another trusted source`,
    find: ({ sites }) =>
      sites
        .filter((site) => conflictsOf(site, sites).length > 0)
        .map((site) => `${site.path} (${conflictsOf(site, sites).join(', ')})`),
  },
  {
    code: 'shared-weights',
    severity: 'warning',
    message: (n) =>
      `${n} weights have several readers: adapting one of them copies the weight for it when folding`,
    find: ({ shared }) =>
      shared
        .filter(({ kind }) => kind === 'tied')
        .map(({ weight, readers }) => `${weight} (${readers.join(', ')})`),
  },
  {
    code: 'deduplicated-vectors',
    severity: 'info',
    message: (n) =>
      `${n} vectors are read by several modules, probably merged because their values were equal`,
    find: ({ shared }) => shared.filter(({ kind }) => kind === 'deduplicated').map(({ weight }) => weight),
  },
  {
    code: 'untied-copies',
    severity: 'info',
    message: (n) =>
      `${n} output heads have the dims of an embedding table and may be copies of a tied weight`,
    find: ({ shared }) =>
      shared.filter(({ kind }) => kind === 'untied').map(({ readers }) => readers.join(' ~ ')),
  },
  {
    code: 'nested-graphs',
    severity: 'info',
    message: (n) => `${n} control-flow nodes hold graphs of their own; training does not pass through them`,
    find: ({ model }) => nodesWhere(model, ({ subgraphs }) => subgraphs.length > 0),
  },
  {
    code: 'local-functions',
    severity: 'warning',
    message: (n) => `${n} local functions are called: layers inside them are found only after inlining`,
    find: ({ model }) => model.functions.map(({ domain, name }) => `${domain}.${name}`),
  },
  {
    code: 'unknown-ops',
    severity: 'warning',
    message: (n) => `${n} nodes use operators that are in no known operator set`,
    find: ({ model }) => {
      const local = new Set(model.functions.map(({ domain, name }) => `${domain}:${name}`));
      return nodesWhere(
        model,
        ({ op, domain }) =>
          !local.has(`${domain}:${op}`) &&
          domain !== 'com.microsoft' &&
          schemaHistory(domain, op).length === 0,
      );
    },
  },
  {
    code: 'optional-inputs',
    severity: 'warning',
    message: (n) => `${n} inputs have defaults; JavaScript runtimes ignore or refuse values fed for them`,
    find: ({ model }) =>
      model.irVersion < 4
        ? []
        : model.graph.inputs.filter(({ tensor }) => tensor !== undefined).map(({ label }) => label),
  },
  {
    code: 'runtime-version',
    severity: 'error',
    message: () =>
      `Newer than ONNX Runtime 1.30 loads (IR ${LIMITS.runtime.ir}, opset ${LIMITS.runtime.opset})`,
    find: (context) => beyond(context.model, LIMITS.runtime),
  },
  {
    code: 'ort-training-version',
    severity: 'info',
    message: () =>
      `Newer than the ort-training target takes (IR ${LIMITS.training.ir}, opset ${LIMITS.training.opset}); it is lowered for that target`,
    find: (context) => beyond(context.model, LIMITS.training),
  },
  {
    code: 'bfloat16',
    severity: 'info',
    message: (n) => `${n} layers store bfloat16: a short fine-tune folded into it loses part of its update`,
    find: ({ sites }) => paths(sites.filter(({ weight }) => weight.value.tensor?.dtype === 'bfloat16')),
  },
];

function beyond(model: Model, limit: { readonly ir: number; readonly opset: number }): string[] {
  const found: string[] = [];
  if (model.irVersion > limit.ir) found.push(`IR ${model.irVersion}`);
  const opset = model.opsets.get('') ?? 0;
  if (opset > limit.opset) found.push(`opset ${opset}`);
  return found;
}

/** Places listed per hazard; the rest is counted. */
const SHOWN = 10;

export function hazardsOf(context: HazardContext): Hazard[] {
  const hazards: Hazard[] = [];
  for (const { code, severity, message, find } of CHECKS) {
    const where = find(context);
    if (where.length === 0) continue;
    hazards.push({
      code,
      severity,
      message: message(where.length),
      where: where.slice(0, SHOWN),
      count: where.length,
    });
  }
  const order: readonly Severity[] = ['error', 'warning', 'info'];
  return hazards.sort((a, b) => order.indexOf(a.severity) - order.indexOf(b.severity));
}
