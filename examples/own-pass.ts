/**
 * The graph as an API: a pass of one's own that rewrites an exported model, and the gradient rule that lets adapters
 * train through the operator it brings. The pass puts a soft threshold, `Shrink`, behind every Tanh.
 *
 * The file is a config module too: `peft-compile run model.onnx --config own-pass.js -o out.onnx`.
 */
import { fileURLToPath } from 'node:url';
import {
  applyEdit,
  Builder,
  backward,
  defineConfig,
  defineGradient,
  definePass,
  emit,
  findValue,
  inferModel,
  insert,
  inspect,
  load,
  parseModel,
  printModel,
  runPasses,
  walkNodes,
} from 'peft-compile';

export const softThreshold = definePass({
  name: 'soft-threshold',
  summary: 'Puts sign(t) · max(|t| − λ, 0) behind every Tanh',
  *run(model) {
    for (const node of walkNodes(model.graph)) {
      if (node.op !== 'Tanh' || node.graph === undefined) continue;
      const b = new Builder(model, { provenance: 'soft-threshold' });
      const t = node.output();
      // Built detached: Shrink goes on reading t when all present readers of t are redirected to it.
      const y = b.op.Shrink(t, { lambd: 0.05, bias: 0.05 });
      yield {
        label: `threshold behind ${node.label}`,
        graph: node.graph,
        add: { nodes: b.nodes, at: { after: node } },
        addInitializers: b.initializers,
        redirect: [{ from: t, to: y }],
      };
    }
  },
});

export default defineConfig({ passes: [softThreshold] });

/** y = x ∓ bias where |x| > λ, else 0: the cotangent passes where the input does. */
export const shrinkGradient = defineGradient({ op: 'Shrink' }, (c) => {
  const passes = () => c.mask(c.op.Greater(c.op.Abs(c.x), c.number(c.float('lambd', 0.5))));
  return [() => c.op.Mul(c.dy, passes())];
});

/** loss = Σ shrink(w · x), differentiated by w; both graphs as text. */
export function differentiated() {
  const model = parseModel(`<ir_version: 10, opset_import: ["" : 20]>
    tiny (float[4] x, float[4] w) => (float loss) {
      t = Mul (x, w)
      y = Shrink <lambd: float = 0.05, bias: float = 0.05> (t)
      loss = ReduceSum <keepdims: int = 0> (y)
    }`);
  inferModel(model);
  const w = findValue(model.graph, 'w');
  const { edit, gradients } = backward(model, {
    loss: findValue(model.graph, 'loss'),
    wrt: [w],
    rules: [shrinkGradient],
  });
  applyEdit(edit);
  const gradient = gradients.get(w);
  if (gradient !== undefined) model.graph.addOutput('dw', gradient);
  return model;
}

export async function main() {
  const model = load(fileURLToPath(new URL('../fixtures/models/bert.dynamo.dynamic.onnx', import.meta.url)));
  const { log } = runPasses(model, [softThreshold], { validate: 'edit' });
  const without = inspect(model).operators.find(({ op }) => op === 'Shrink')?.gradient;
  const gradientRules = [shrinkGradient];
  const withRule = inspect(model, { gradientRules }).operators.find(({ op }) => op === 'Shrink')?.gradient;

  await insert(model, { method: 'lora', targeting: { targets: ['query'] } });
  const artifacts = await emit(model, { target: 'step', loss: 'classification', gradientRules });
  return { log, without, withRule, artifacts, text: printModel(differentiated(), { types: true }) };
}

if (process.argv[1] === import.meta.filename) {
  const { log, text } = await main();
  for (const { label, added } of log) console.log(`${label}: ${added} node added`);
  console.log(text);
}
