/** Operators against the schema table: known at the opset, arity, attributes, element types. */
import type { Graph, Node, Value } from '../graph.js';
import { walkNodes } from '../graph.js';
import { allows, type Formal, formalAt, type OpSchema, schemaHistory, schemaOf } from '../ops/schema.js';
import { ATTRIBUTE_WORDS, attributeTypeWord } from '../text/spelling.js';
import type { Report } from './problem.js';

export interface SchemaScope {
  readonly opsets: ReadonlyMap<string, number>;
  /** Whether the model defines the operator itself. */
  readonly isLocal: (node: Node) => boolean;
  readonly place: string;
}

export function checkSchemas(graph: Graph, scope: SchemaScope, report: Report): void {
  for (const node of walkNodes(graph))
    checkNode(node, scope, (message, remedy) =>
      report({ rule: 'schema', where: `${scope.place}${node.label}`, message, remedy }),
    );
}

type Complain = (message: string, remedy: string) => void;

function checkNode(node: Node, scope: SchemaScope, complain: Complain): void {
  const shown = node.domain === '' ? 'ai.onnx' : node.domain;
  const opset = scope.opsets.get(node.domain);
  if (opset === undefined) {
    complain(`No opset of domain '${shown}' is imported`, `Set model.opsets for '${node.domain}'`);
    return;
  }
  if (scope.isLocal(node)) return;
  const schema = schemaOf(node.domain, node.op, opset);
  if (schema === undefined) {
    const first = schemaHistory(node.domain, node.op)[0];
    if (first !== undefined)
      complain(
        `The operator exists from opset ${first.since} on, but the model imports ${shown} ${opset}`,
        'Use operators of the imported opset; the typed builder lowers to it',
      );
    else if (node.domain === '')
      complain(`There is no operator ${node.op} in ai.onnx`, 'Check the spelling and the domain');
    return;
  }
  if (schema.deprecated)
    complain(`The operator is deprecated at opset ${opset}`, 'Use the operator that replaced it');
  checkArity(node.inputs, schema.inputs, schema.minInputs, 'input', complain);
  checkArity(node.outputs, schema.outputs, schema.minOutputs, 'output', complain);
  checkAttributes(node, schema, complain);
  checkDtypes(node, schema, complain);
}

function checkArity(
  actual: readonly (Value | null)[],
  formals: readonly Formal[],
  minimum: number,
  what: string,
  complain: Complain,
): void {
  const names = formals.map(
    (f) => `${f.name}${f.option === 'single' ? '' : f.option === 'optional' ? '?' : '…'}`,
  );
  const remedy = `The ${what}s are (${names.join(', ')})`;
  let given = actual.length;
  while (given > 0 && actual[given - 1] === null) given--;
  if (given < minimum) complain(`The node has ${given} ${what}s, at least ${minimum} are needed`, remedy);
  for (let i = 0; i < actual.length; i++) {
    const formal = formalAt(formals, i);
    if (formal === undefined) {
      if (i < given)
        complain(`The node has ${given} ${what}s, at most ${formals.length} are allowed`, remedy);
      return;
    }
    if (actual[i] === null && formal.option === 'single' && i < minimum && i < given && what === 'input')
      complain(`The required ${what} '${formal.name}' is missing`, remedy);
  }
}

function checkAttributes(node: Node, schema: OpSchema, complain: Complain): void {
  for (const [name, attribute] of node.attributes) {
    const known = schema.attributes.get(name);
    if (known === undefined) {
      const names = [...schema.attributes.keys()];
      complain(
        `The operator has no attribute '${name}' at this opset`,
        names.length === 0 ? 'It has no attributes' : `It has ${names.join(', ')}`,
      );
      continue;
    }
    const word =
      attribute.type === 'ref' ? attributeTypeWord(attribute.attrType) : ATTRIBUTE_WORDS[attribute.type];
    // An empty list does not say of what it is.
    const empty = 'value' in attribute && Array.isArray(attribute.value) && attribute.value.length === 0;
    if (word !== known.type && word !== undefined && !empty)
      complain(`Attribute '${name}' is of type ${word}, not ${known.type}`, 'Build attributes with attr.*');
  }
  for (const [name, { required }] of schema.attributes)
    if (required && !node.attributes.has(name))
      complain(`The required attribute '${name}' is missing`, `Set '${name}'`);
}

function checkDtypes(node: Node, schema: OpSchema, complain: Complain): void {
  const bound = new Map<string, { readonly dtype: string; readonly of: string }>();
  const check = (value: Value | null, formal: Formal | undefined, what: string): void => {
    if (value === null || formal === undefined || value.type?.kind !== 'tensor') return;
    const { dtype } = value.type;
    if (dtype === 'undefined') return;
    if (!allows(schema, formal, dtype)) {
      complain(
        `${what} '${formal.name}' ('${value.label}') cannot be ${dtype}`,
        'Insert a Cast, or use another operator',
      );
      return;
    }
    if (!formal.homogeneous || !schema.types.has(formal.type)) return;
    const other = bound.get(formal.type);
    if (other === undefined) bound.set(formal.type, { dtype, of: formal.name });
    else if (other.dtype !== dtype)
      complain(
        `${what} '${formal.name}' is ${dtype} but '${other.of}' is ${other.dtype}; both are of one type ${formal.type}`,
        'Insert a Cast so that they agree',
      );
  };
  for (const [i, value] of node.inputs.entries()) check(value, formalAt(schema.inputs, i), 'Input');
  for (const [i, value] of node.outputs.entries()) check(value, formalAt(schema.outputs, i), 'Output');
}
