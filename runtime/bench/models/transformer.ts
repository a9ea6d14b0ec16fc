/** What the models of the benchmark have in common. */
import { z } from 'zod';
import { Graph } from '../../../src/graph.js';
import { Model } from '../../../src/model.js';
import { Builder } from '../../../src/ops/builder.js';

/** Sizes that every transformer has. */
export const transformerShape = z.object({
  layers: z.int(),
  hidden: z.int(),
  heads: z.int(),
  intermediate: z.int(),
  vocab: z.int(),
});

/** A model without nodes at opset 17, and a builder for them. */
export function emptyModel(name: string): {
  readonly model: Model;
  readonly graph: Graph;
  readonly builder: Builder;
} {
  const graph = new Graph();
  const model = new Model(graph);
  model.irVersion = 8;
  model.opsets.set('', 17);
  model.producerName = 'peft-compile bench';
  graph.name = name;
  return { model, graph, builder: new Builder(model) };
}
