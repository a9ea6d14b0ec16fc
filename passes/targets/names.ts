/** Public names of emitted graphs, chosen once so that all graphs of one emission agree and none hides a name of the model. */
import { walkGraphs } from '../../src/graph.js';
import type { Model } from '../../src/model.js';

export class PublicNames {
  readonly #taken = new Set<string>();

  constructor(model: Model) {
    for (const graph of walkGraphs(model.graph)) {
      for (const value of [...graph.inputs, ...graph.initializers]) this.reserve(value.name);
      for (const node of graph.nodes()) for (const output of node.outputs) this.reserve(output?.name);
      for (const output of graph.outputs) this.reserve(output.name);
    }
  }

  reserve(name: string | undefined): void {
    if (name !== undefined) this.#taken.add(name);
  }

  /** `wanted`, or `wanted_2`, … if the model has that name already. */
  claim(wanted: string): string {
    let name = wanted;
    for (let i = 2; this.#taken.has(name); i++) name = `${wanted}_${i}`;
    this.#taken.add(name);
    return name;
  }
}
