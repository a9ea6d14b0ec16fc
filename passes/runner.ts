/**
 * Runs passes: applies their edits one by one, keeps a log, checks invariants, and names the edit that broke one.
 * `stopAfter` bisects a miscompile to the first bad edit.
 */
import { PeftCompileError } from '../src/errors.js';
import { type Graph, type Node, type Value, walkGraphs } from '../src/graph.js';
import type { Model } from '../src/model.js';
import { isSorted, topologicalOrder } from '../src/order.js';
import { printNodes } from '../src/text/index.js';
import { type Problem, validateModel } from '../src/validate.js';
import { applyEdit, type Edit } from './edit.js';
import type { Pass } from './pass.js';

export interface RunOptions {
  /**
   * When invariants are checked: after each edit (slow, names the edit), after each pass, or never. Default `pass`.
   * Problems that the model had before the first pass are not held against the passes.
   */
  readonly validate?: 'edit' | 'pass' | 'off';
  /** Stops after this many edits, over all passes. */
  readonly stopAfter?: number;
  /** Sees each entry of the log as its edit was applied. */
  readonly onEdit?: (entry: EditLog) => void;
}

/** One applied edit. */
export interface EditLog {
  readonly pass: string;
  readonly label: string;
  /** Nodes added. */
  readonly added: number;
  /** Nodes removed. */
  readonly removed: number;
  /** Uses redirected. */
  readonly redirected: number;
  /** Initializers added. */
  readonly initializers: number;
}

export interface RunResult {
  readonly log: readonly EditLog[];
  /** False when `stopAfter` cut the run short. */
  readonly complete: boolean;
}

/**
 * Applies the passes to the model in place. After each pass, initializers that it added and left unused are dropped,
 * and graphs whose order it broke are sorted; graphs that were unsorted in the file stay as they are.
 * Errors: those of the passes and of `applyEdit`, and `E_INVALID_GRAPH` for a broken invariant, each with the pass and
 * the edit. The model is then in the state that the message shows, and should be dropped.
 */
export function runPasses(model: Model, passes: readonly Pass[], options: RunOptions = {}): RunResult {
  return new Run(model, options).passes(passes);
}

class Run {
  readonly #log: EditLog[] = [];
  readonly #known: Set<string>;
  readonly #mode: NonNullable<RunOptions['validate']>;

  constructor(
    readonly model: Model,
    readonly options: RunOptions,
  ) {
    this.#mode = options.validate ?? 'pass';
    this.#known = new Set(this.#mode === 'off' ? [] : validateModel(model).map(identify));
  }

  passes(passes: readonly Pass[]): RunResult {
    for (const pass of passes) if (!this.#pass(pass)) return { log: this.#log, complete: false };
    return { log: this.#log, complete: true };
  }

  get #budget(): number {
    return (this.options.stopAfter ?? Number.POSITIVE_INFINITY) - this.#log.length;
  }

  /** Returns false when the budget of edits ran out while the pass had more. */
  #pass(pass: Pass): boolean {
    const before = new Set<Value>();
    const unsorted = new Set<Graph>();
    for (const graph of graphsOfModel(this.model)) {
      for (const value of graph.initializers) before.add(value);
      if (!isSorted(graph)) unsorted.add(graph);
    }
    let complete = true;
    for (const edit of pass.run(this.model)) {
      if (this.#budget <= 0) {
        complete = false;
        break;
      }
      this.#edit(pass, edit);
    }
    for (const graph of graphsOfModel(this.model)) {
      dropDead(graph, before);
      if (!unsorted.has(graph) && !isSorted(graph))
        explain(`Pass '${pass.name}'`, () => graph.reorder(topologicalOrder(graph)));
    }
    if (this.#mode !== 'off') {
      const problems = this.#newProblems();
      if (problems.length > 0)
        throw broken(
          `Pass '${pass.name}' broke the model`,
          problems,
          "Run with validate: 'edit' to find the edit",
        );
    }
    return complete;
  }

  #edit(pass: Pass, edit: Edit): void {
    const place = `Pass '${pass.name}', edit ${this.#log.length + 1} '${edit.label}'`;
    const checked = this.#mode === 'edit';
    const before = checked ? snapshot(neighbours(edit)) : '';
    const redirected = countRedirects(edit);
    explain(place, () => applyEdit(edit));
    const entry: EditLog = {
      pass: pass.name,
      label: edit.label,
      added: edit.add?.nodes.length ?? 0,
      removed: edit.remove?.length ?? 0,
      redirected,
      initializers: edit.addInitializers?.length ?? 0,
    };
    this.#log.push(entry);
    this.options.onEdit?.(entry);
    if (!checked) return;
    // Nodes may be out of order until the pass ends, but a cycle never goes away.
    explain(place, () => topologicalOrder(edit.graph));
    const problems = this.#newProblems().filter((problem) => problem.rule !== 'order');
    if (problems.length === 0) return;
    const context = `before:\n${before}\nafter:\n${snapshot(neighbours(edit))}`;
    throw broken(`${place} broke the model`, problems, `The graph around the edit, ${context}`);
  }

  #newProblems(): Problem[] {
    return validateModel(this.model).filter((problem) => !this.#known.has(identify(problem)));
  }
}

function identify({ rule, where, message }: Problem): string {
  return `${rule}\n${where}\n${message}`;
}

function broken(what: string, problems: readonly Problem[], help: string): PeftCompileError {
  const [first] = problems;
  const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : '';
  return new PeftCompileError('E_INVALID_GRAPH', {
    message: `${what}: ${first?.message ?? ''}${more}`,
    ...(first === undefined ? {} : { where: first.where }),
    remedy: `${first?.remedy ?? ''}. ${help}`,
  });
}

/** Adds the place to an error of the project; its code, cause and remedy stay. */
function explain(place: string, work: () => void): void {
  try {
    work();
  } catch (cause) {
    if (!(cause instanceof PeftCompileError)) throw cause;
    const message =
      cause.where === undefined ? cause.message : (cause.message.split(` (at ${cause.where})`)[0] ?? '');
    throw new PeftCompileError(cause.code, {
      message: `${place}: ${message}`,
      ...(cause.where === undefined ? {} : { where: cause.where }),
      ...(cause.remedy === undefined ? {} : { remedy: cause.remedy }),
      cause,
    });
  }
}

function* graphsOfModel(model: Model): IterableIterator<Graph> {
  yield* walkGraphs(model.graph);
  for (const fn of model.functions) yield* walkGraphs(fn.graph);
}

function dropDead(graph: Graph, keep: ReadonlySet<Value>): void {
  const inputs = new Set(graph.inputs);
  for (const value of [...graph.initializers])
    if (!keep.has(value) && value.uses.size === 0 && !inputs.has(value)) graph.initializers.delete(value);
}

function countRedirects(edit: Edit): number {
  let count = 0;
  for (const { from, only } of edit.redirect ?? [])
    for (const use of from.uses) if (only === undefined || only(use)) count++;
  return count;
}

/** Nodes that an edit touches: added, removed, anchor, and those around redirected values; in a fixed order. */
function neighbours(edit: Edit): Set<Node> {
  const nodes = new Set<Node>();
  const at = edit.add?.at;
  if (at !== undefined && at !== 'end') nodes.add('before' in at ? at.before : at.after);
  for (const node of edit.add?.nodes ?? []) if (node.graph !== undefined) nodes.add(node);
  for (const node of edit.remove ?? []) if (node.graph !== undefined) nodes.add(node);
  for (const { from, to } of edit.redirect ?? []) {
    for (const value of [from, to]) {
      if (value.producer?.graph !== undefined) nodes.add(value.producer);
      for (const user of [...value.users].sort((a, b) => a.id - b.id)) nodes.add(user);
    }
  }
  return nodes;
}

const SHOWN = 12;

function snapshot(nodes: ReadonlySet<Node>): string {
  const shown = [...nodes].slice(0, SHOWN);
  const rest = nodes.size > SHOWN ? `\n… ${nodes.size - SHOWN} more nodes` : '';
  return `${printNodes(shown)}${rest}`;
}
