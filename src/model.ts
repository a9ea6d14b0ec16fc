/** A model: the main graph with its versions, opsets, local functions and texts. */
import type { Attribute } from './attribute.js';
import { fail } from './errors.js';
import type { Graph } from './graph.js';

/** A model-local function (`FunctionProto`). Its graph's inputs and outputs have no types; attributes are by name. */
export interface LocalFunction {
  readonly domain: string;
  readonly name: string;
  readonly overload: string;
  readonly graph: Graph;
  readonly attributeNames: readonly string[];
  readonly opsets: ReadonlyMap<string, number>;
  /** Attributes with a default value (`attribute_proto`), by name. */
  readonly attributeDefaults?: ReadonlyMap<string, Attribute>;
}

export class Model {
  irVersion = 10;
  producerName = '';
  producerVersion = '';
  domain = '';
  modelVersion = 0n;
  doc?: string;
  /** Opset versions by domain; '' is ai.onnx ('ai.onnx' in files is read as ''). */
  readonly opsets = new Map<string, number>();
  readonly metadata = new Map<string, string>();
  readonly functions: LocalFunction[] = [];
  graph: Graph;
  /** Where the model was loaded from; external data is relative to its folder. */
  path: string | undefined;

  constructor(graph: Graph) {
    this.graph = graph;
  }

  /** Version of a domain's opset. */
  opset(domain = ''): number {
    return (
      this.opsets.get(domain) ??
      fail('E_INVALID_GRAPH', {
        message: `The model imports no opset for domain '${domain === '' ? 'ai.onnx' : domain}'`,
        ...(this.path === undefined ? {} : { where: this.path }),
      })
    );
  }
}
