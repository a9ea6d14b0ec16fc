/** Ownership, single assignment, uses, scope and order of one root graph with everything nested in it. */
import type { Graph, Node, Value } from '../graph.js';
import { walkGraphs } from '../graph.js';
import type { Report } from './problem.js';

interface Definition {
  readonly graph: Graph;
  readonly what: string;
}

export function checkStructure(root: Graph, place: string, report: Report): void {
  new StructureCheck(root, place, report).run();
}

class StructureCheck {
  readonly #graphs = new Set<Graph>();
  readonly #definitions = new Map<Value, Definition>();
  /** Values that a node may read at the present point of the walk. */
  readonly #visible = new Set<Value>();

  constructor(
    readonly root: Graph,
    readonly place: string,
    readonly report: Report,
  ) {}

  run(): void {
    for (const graph of walkGraphs(this.root)) {
      if (this.#graphs.has(graph))
        this.#problem(
          `graph '${graph.name}'`,
          'A subgraph is held by two attributes',
          'Copy it with Cloner.graph for the second one',
        );
      else {
        this.#graphs.add(graph);
        this.#collect(graph);
      }
    }
    for (const value of this.#definitions.keys()) this.#checkUses(value);
    this.#walk(this.root);
  }

  #problem(where: string, message: string, remedy: string, rule: 'structure' | 'order' = 'structure'): void {
    this.report({ rule, where: `${this.place}${where}`, message, remedy });
  }

  #define(value: Value, graph: Graph, what: string): void {
    const other = this.#definitions.get(value);
    if (other !== undefined)
      this.#problem(
        value.label,
        `The value is ${what} and also ${other.what}`,
        'Give each definition a value of its own',
      );
    else this.#definitions.set(value, { graph, what });
  }

  #collect(graph: Graph): void {
    for (const value of graph.inputs) this.#define(value, graph, 'a graph input');
    for (const value of graph.initializers) {
      // An initializer of the same graph may be the default of one of its inputs.
      if (!(this.#definitions.get(value)?.graph === graph && graph.inputs.includes(value)))
        this.#define(value, graph, 'an initializer');
      if (value.tensor === undefined)
        this.#problem(
          value.label,
          'The initializer has no payload',
          'Set value.tensor before it enters the graph',
        );
    }
    for (const value of [...graph.inputs, ...graph.initializers])
      if (value.producer !== undefined)
        this.#problem(
          value.label,
          `A graph input or initializer claims to be computed by ${value.producer.label}`,
          'Use a new Value for the input',
        );
    let count = 0;
    let previous: Node | undefined;
    for (let node = graph.firstNode; node !== undefined; node = node.next) {
      count++;
      if (node.graph !== graph || node.prev !== previous || count > graph.nodeCount) {
        this.#problem(
          node.label,
          'The node is linked into a graph that does not own it',
          'Move nodes with Graph.remove and Graph.append only',
        );
        return;
      }
      previous = node;
      for (const output of node.outputs) {
        if (output === null) continue;
        this.#define(output, graph, `an output of ${node.label}`);
        if (output.producer !== node)
          this.#problem(
            node.label,
            `Its output '${output.label}' says that it is computed elsewhere`,
            'Give each node outputs of its own',
          );
      }
    }
    if (count !== graph.nodeCount)
      this.#problem(
        `graph '${graph.name}'`,
        `The graph counts ${graph.nodeCount} nodes but links ${count}`,
        'Change the list of nodes through Graph only',
      );
  }

  /** Every use of a value is a slot that holds it; slots that are not among the uses are found by the walk. */
  #checkUses(value: Value): void {
    for (const use of value.uses) {
      if (use.kind === 'output') {
        if (use.output.value !== value || !use.graph.outputs.includes(use.output))
          this.#problem(
            value.label,
            `An output slot '${use.output.name ?? ''}' is counted as a use but reads something else`,
            'Drop slots with Graph.clearOutputs',
          );
        else if (!this.#graphs.has(use.graph)) this.#foreignUse(value, `graph '${use.graph.name}'`);
        continue;
      }
      const { node, index } = use;
      if (node.inputs[index] !== value)
        this.#problem(
          value.label,
          `Input ${index} of ${node.label} is counted as a use but reads something else`,
          'Change inputs with Node.setInput',
        );
      else if (node.graph === undefined || !this.#graphs.has(node.graph)) this.#foreignUse(value, node.label);
    }
  }

  #foreignUse(value: Value, user: string): void {
    this.#problem(
      value.label,
      `The value is read by ${user}, which is not part of the model`,
      'Remove the reader with Graph.remove, or clone what should live in another model',
    );
  }

  #walk(graph: Graph): void {
    const own: Value[] = [...graph.inputs, ...graph.initializers];
    for (const value of own) this.#visible.add(value);
    for (const node of graph.nodes()) {
      for (const [index, input] of node.inputs.entries()) {
        if (input === null) continue;
        this.#read(input, graph, `Input ${index}`, node.label);
        let registered = false;
        for (const use of input.uses)
          if (use.kind === 'node' && use.node === node && use.index === index) registered = true;
        if (!registered)
          this.#problem(
            node.label,
            `Input ${index} reads '${input.label}' without being counted as a use`,
            'Change inputs with Node.setInput',
          );
      }
      for (const sub of node.subgraphs) if (this.#graphs.has(sub)) this.#walk(sub);
      for (const output of node.outputs) {
        if (output === null) continue;
        this.#visible.add(output);
        own.push(output);
      }
    }
    for (const output of graph.outputs)
      this.#read(output.value, graph, 'The slot', `output '${output.name ?? output.value.label}'`);
    for (const value of own) this.#visible.delete(value);
  }

  #read(value: Value, graph: Graph, slot: string, where: string): void {
    if (this.#visible.has(value)) return;
    const definition = this.#definitions.get(value);
    if (definition === undefined) {
      const maker = value.producer;
      this.#problem(
        where,
        maker === undefined
          ? `${slot} reads '${value.label}', which nothing in the model defines`
          : `${slot} reads '${value.label}' of ${maker.label}, which is not in the graph`,
        maker === undefined
          ? 'Add the value with Graph.addInput or Graph.addInitializer'
          : 'Add the node to the edit, or redirect the reader',
      );
      return;
    }
    // Seen from here, a value of an enclosing graph is late, and one of a graph beside or below is out of reach.
    const encloses = [...walkGraphs(definition.graph)].includes(graph);
    if (encloses)
      this.#problem(
        where,
        `${slot} reads '${value.label}', which is computed later`,
        'Anchor the new nodes behind the producers of what they read, or call sortTopologically',
        'order',
      );
    else
      this.#problem(
        where,
        `${slot} reads '${value.label}', which belongs to graph '${definition.graph.name}' and is out of scope`,
        'Return the value from its graph, or compute it outside',
      );
  }
}
