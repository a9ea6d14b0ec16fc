/** BERT-base as a graph without numbers, for counts that tables of papers give. Written like an export with dynamo. */
import type { Model } from '../../src/model.js';
import { parseModel } from '../../src/text/index.js';

const LAYERS = 12;
const DIM = 768;
const FEED_FORWARD = 3072;
const HEADS = 12;
const HEAD = DIM / HEADS;
const VOCAB = 30522;
const POSITIONS = 512;

/** All parameters of the encoder with its pooler: what shares of trainable parameters divide by. */
export const BERT_BASE_PARAMETERS = 109_482_240;

/** A classifier with two classes. */
export function bertBase(): Model {
  const tensors: string[] = [];
  const nodes: string[] = [];
  const tensor = (name: string, ...dims: number[]): string => {
    tensors.push(`float[${dims.join(',')}] "${name}" = ["location": "absent"]`);
    return `"${name}"`;
  };
  const node = (output: string, call: string): string => {
    nodes.push(`"${output}" = ${call}`);
    return `"${output}"`;
  };
  const linear = (path: string, x: string, inDim: number, outDim: number): string => {
    const product = node(`${path}.product`, `MatMul(${x}, ${tensor(`${path}.weight`, inDim, outDim)})`);
    return node(`${path}.sum`, `Add(${product}, ${tensor(`${path}.bias`, outDim)})`);
  };
  const norm = (path: string, x: string): string =>
    node(
      `${path}.normalized`,
      `LayerNormalization <axis = -1, epsilon = 1e-12> (${x}, ${tensor(`${path}.weight`, DIM)}, ${tensor(`${path}.bias`, DIM)})`,
    );
  const heads = (path: string, x: string, perm: string): string =>
    node(`${path}.heads`, `Transpose <perm = [${perm}]> (${node(`${path}.split`, `Reshape(${x}, split)`)})`);

  const embeddings = 'bert.embeddings';
  const gathered = (name: string, rows: number, ids: string): string =>
    node(`${name}.rows`, `Gather(${tensor(`${embeddings}.${name}.weight`, rows, DIM)}, ${ids})`);
  const length = node('length', 'Shape <start = 1, end = 2> (input_ids)');
  const positions = node('positions', `Slice(position_ids, zero, ${length}, one, one)`);
  const words = node(
    'words',
    `Add(${gathered('word_embeddings', VOCAB, 'input_ids')}, ${gathered('token_type_embeddings', 2, 'token_type_ids')})`,
  );
  let x = norm(
    `${embeddings}.LayerNorm`,
    node('embedded', `Add(${words}, ${gathered('position_embeddings', POSITIONS, positions)})`),
  );
  const present = node('present', 'Cast <to = 1> (attention_mask)');
  const wide = node('wide', `Unsqueeze(${present}, middle)`);
  const mask = node('mask', `Mul(${node('absent', `Sub(unit, ${wide})`)}, lowest)`);

  for (let layer = 0; layer < LAYERS; layer++) {
    const path = `bert.encoder.layer.${layer}`;
    const self = `${path}.attention.self`;
    const [query, key, value] = ['query', 'key', 'value'].map((name) =>
      linear(`${self}.${name}`, x, DIM, DIM),
    ) as [string, string, string];
    const q = heads(`${self}.query`, query, '0, 2, 1, 3');
    const k = heads(`${self}.key`, key, '0, 2, 3, 1');
    const v = heads(`${self}.value`, value, '0, 2, 1, 3');
    const scores = node(`${self}.scores`, `Mul(${node(`${self}.dots`, `MatMul(${q}, ${k})`)}, scale)`);
    const weights = node(
      `${self}.weights`,
      `Softmax <axis = -1> (${node(`${self}.masked`, `Add(${scores}, ${mask})`)})`,
    );
    const mixed = node(
      `${self}.context`,
      `Transpose <perm = [0, 2, 1, 3]> (${node(`${self}.mixed`, `MatMul(${weights}, ${v})`)})`,
    );
    const merged = node(`${self}.merged`, `Reshape(${mixed}, merge)`);
    const attended = linear(`${path}.attention.output.dense`, merged, DIM, DIM);
    x = norm(`${path}.attention.output.LayerNorm`, node(`${path}.attention.sum`, `Add(${attended}, ${x})`));
    const up = linear(`${path}.intermediate.dense`, x, DIM, FEED_FORWARD);
    const active = node(`${path}.intermediate.active`, `Gelu(${up})`);
    const down = linear(`${path}.output.dense`, active, FEED_FORWARD, DIM);
    x = norm(`${path}.output.LayerNorm`, node(`${path}.sum`, `Add(${down}, ${x})`));
  }
  const first = node('first', `Gather <axis = 1> (${x}, start)`);
  const pooled = node('pooled', `Tanh(${linear('bert.pooler.dense', first, DIM, DIM)})`);
  nodes.push(`logits = Identity(${linear('classifier', pooled, DIM, 2)})`);

  return parseModel(`
<ir_version: 10, opset_import: ["": 20]>
bert_base (int64[batch,sequence] input_ids, int64[batch,sequence] attention_mask, int64[batch,sequence] token_type_ids)
  => (float[batch,2] logits)
<
  ${tensors.join(',\n  ')},
  int64[1,${POSITIONS}] position_ids = {${[...Array(POSITIONS).keys()].join(', ')}},
  int64[1] zero = {0}, int64[1] one = {1}, int64 start = {0}, int64[2] middle = {1, 2},
  int64[4] split = {0, 0, ${HEADS}, ${HEAD}}, int64[3] merge = {0, 0, ${DIM}},
  float unit = {1}, float lowest = {-10000}, float scale = {${1 / Math.sqrt(HEAD)}}
>
{
  ${nodes.join('\n  ')}
}`);
}
