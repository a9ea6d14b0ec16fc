/**
 * Invariants of models: every value has one definition ahead of its uses, uses are counted, nodes belong to one graph,
 * operators fit their schemas, names do not collide, payloads have the right length, types agree with inference.
 */
import { fail, PeftCompileError } from './errors.js';
import { type Graph, type Value, walkGraphs } from './graph.js';
import type { LocalFunction, Model } from './model.js';
import { assignNames } from './names.js';
import { checkPayloads } from './validate/payloads.js';
import type { Problem, Report } from './validate/problem.js';
import { checkSchemas } from './validate/schemas.js';
import { checkStructure } from './validate/structure.js';
import { checkTypes } from './validate/types.js';

export type { Problem } from './validate/problem.js';

export interface ValidateOptions {
  /** Check operators against the schema table. Default true. */
  readonly schemas?: boolean;
  /** Infer all types anew on a copy and compare. Default true. */
  readonly types?: boolean;
}

/**
 * All broken invariants of a model, in order of its graphs; empty for a valid model. Names, schemas and types are only
 * checked where the structure holds. Nodes of functions are checked under the opsets of their function.
 */
export function validateModel(model: Model, options: ValidateOptions = {}): Problem[] {
  const problems: Problem[] = [];
  const report: Report = (problem) => problems.push(problem);
  const roots: { graph: Graph; place: string; fn?: LocalFunction }[] = [
    { graph: model.graph, place: '' },
    ...model.functions.map((fn) => ({ graph: fn.graph, place: `function ${fn.domain}.${fn.name}: `, fn })),
  ];
  for (const { graph, place } of roots) {
    checkStructure(graph, place, report);
    checkPayloads(graph, place, report);
  }
  if (problems.some((problem) => problem.rule === 'structure')) return problems;
  if (options.schemas !== false) {
    const local = new Set(model.functions.map((fn) => `${fn.domain} ${fn.name} ${fn.overload}`));
    for (const { graph, place, fn } of roots)
      checkSchemas(
        graph,
        {
          opsets: fn?.opsets ?? model.opsets,
          isLocal: (node) => local.has(`${node.domain} ${node.op} ${node.overload}`),
          place,
        },
        report,
      );
  }
  checkNames(model, report);
  if (options.types !== false && problems.every((problem) => problem.rule !== 'order'))
    checkTypes(model, report);
  return problems;
}

/** Stops with `E_INVALID_GRAPH` at the first problem. `where` says what was done, e.g. `after edit lora at …`. */
export function assertValid(model: Model, where?: string, options?: ValidateOptions): void {
  const problems = validateModel(model, options);
  const [first] = problems;
  if (first === undefined) return;
  const more = problems.length === 1 ? '' : ` (and ${problems.length - 1} more)`;
  fail('E_INVALID_GRAPH', {
    message: `${where === undefined ? '' : `${where}: `}${first.message}${more}`,
    where: first.where,
    remedy: first.remedy,
  });
}

/** Names as they will be written: one per value within a graph. */
function checkNames(model: Model, report: Report): void {
  let names: ReturnType<typeof assignNames>;
  try {
    names = assignNames(model);
  } catch (error) {
    if (!(error instanceof PeftCompileError)) throw error;
    report({ rule: 'names', where: error.where ?? '', message: error.message, remedy: error.remedy ?? '' });
    return;
  }
  const complain = (name: string): void =>
    report({
      rule: 'names',
      where: name,
      message: `Two values of one graph are named '${name}'`,
      remedy: 'Leave the name of a new value undefined and give it a hint',
    });
  for (const root of [model.graph, ...model.functions.map((fn) => fn.graph)]) {
    for (const graph of walkGraphs(root)) {
      const taken = new Map<string, Value>();
      const define = (value: Value): void => {
        const name = names.value(value);
        const other = taken.get(name);
        if (other !== undefined && other !== value) complain(name);
        taken.set(name, value);
      };
      for (const value of [...graph.inputs, ...graph.initializers]) define(value);
      for (const node of graph.nodes()) for (const value of node.outputs) if (value !== null) define(value);
      for (const alias of names.aliases)
        if (alias.graph === graph && taken.has(alias.name)) complain(alias.name);
    }
  }
}
