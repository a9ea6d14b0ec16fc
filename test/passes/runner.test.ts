import { describe, expect, it } from 'vitest';
import type { Edit } from '../../passes/edit.js';
import { definePass } from '../../passes/pass.js';
import { runPasses } from '../../passes/runner.js';
import { PeftCompileError } from '../../src/errors.js';
import { Graph, Node, Value } from '../../src/graph.js';
import { tensorOf } from '../../src/literals.js';
import type { Model } from '../../src/model.js';
import { parseModel, printModel } from '../../src/text/index.js';
import { tensorType } from '../../src/types.js';
import { assertValid, validateModel } from '../../src/validate.js';

const chain = (): Model =>
  parseModel(`<ir_version: 8, opset_import: ["": 17]>
g (float[2,2] x) => (float[2,2] y) <float[2,2] W = {1, 2, 3, 4}> {
  ["mm"] h = MatMul(x, W)
  ["tanh"] y = Tanh(h)
}`);

const named = (model: Model, name: string): Node => {
  for (const node of model.graph.nodes()) if (node.name === name) return node;
  throw new Error(`no node ${name}`);
};

/** `y' = y + y·A`, built detached: the shape of every adapter. */
function adapter(model: Model, y: Value, after: Node): Edit {
  const type = tensorType('float32', [2, 2]);
  const a = new Value({ hint: 'A', tensor: tensorOf('float32', [2, 2], [0.5, 0, 0, 0.25]), type });
  const unused = new Value({
    hint: 'unused',
    tensor: tensorOf('int64', [1], [3]),
    type: tensorType('int64', [1]),
  });
  const delta = new Node({ op: 'MatMul', inputs: [y, a], outputs: [new Value({ hint: 'delta', type })] });
  const sum = new Node({
    op: 'Add',
    inputs: [y, delta.output()],
    outputs: [new Value({ hint: 'sum', type })],
  });
  for (const node of [delta, sum]) node.provenance = 'lora';
  return {
    label: `adapter at ${y.label}`,
    graph: model.graph,
    add: { nodes: [delta, sum], at: { after } },
    addInitializers: [a, unused],
    redirect: [{ from: y, to: sum.output() }],
  };
}

const adapt = (name: string) =>
  definePass({
    name: 'adapt',
    summary: 'Adds a delta',
    *run(model) {
      yield adapter(model, named(model, name).output(), named(model, name));
    },
  });

describe('runPasses', () => {
  it("wires y' = y + f(y) without a cycle, logs it, and drops initializers that nothing reads", () => {
    const model = chain();
    const result = runPasses(model, [adapt('mm')], { validate: 'edit' });
    expect(result).toEqual({
      complete: true,
      log: [{ pass: 'adapt', label: 'adapter at h', added: 2, removed: 0, redirected: 1, initializers: 2 }],
    });
    expect(printModel(model, { provenance: true })).toContain(
      `  [mm] h = MatMul(x, W)
  delta = MatMul(h, A)  # by lora
  sum = Add(h, delta)  # by lora
  [tanh] y = Tanh(sum)
`,
    );
    expect([...model.graph.initializers].map((v) => v.label)).toEqual(['W', '%A']);
  });

  it('keeps the public name of an output whose value was replaced', () => {
    const model = chain();
    runPasses(model, [adapt('tanh')], { validate: 'edit' });
    expect(model.graph.outputs.map((o) => o.name)).toEqual(['y']);
    const text = printModel(model);
    expect(text).toContain('y = Add(y_1, delta)');
    expect(text).toContain('y_1 = Tanh(h)');
  });

  it('stops after the given number of edits, over all passes', () => {
    const model = chain();
    const result = runPasses(model, [adapt('mm'), adapt('tanh')], { stopAfter: 1 });
    expect(result.complete).toBe(false);
    expect(result.log.map((entry) => entry.label)).toEqual(['adapter at h']);
    expect(model.graph.nodeCount).toBe(4);
    expect(runPasses(chain(), [adapt('mm')], { stopAfter: 0 }).log).toEqual([]);
    expect(runPasses(chain(), [adapt('mm')], { stopAfter: 1 }).complete).toBe(true);
  });

  it('sorts a graph whose order a pass broke', () => {
    const model = chain();
    const wrongAnchor = definePass({
      name: 'misplaced',
      summary: 'Puts the nodes ahead of what they read',
      *run(m) {
        const edit = adapter(m, named(m, 'mm').output(), named(m, 'mm'));
        yield { ...edit, add: { nodes: edit.add?.nodes ?? [], at: { before: named(m, 'mm') } } };
      },
    });
    runPasses(model, [wrongAnchor], { validate: 'edit' });
    expect([...model.graph.nodes()].map((n) => n.op)).toEqual(['MatMul', 'MatMul', 'Add', 'Tanh']);
    assertValid(model);
  });

  it.each(['edit', 'pass'] as const)('names what broke an invariant (validate: %s)', (validate) => {
    const model = chain();
    const bad = definePass({
      name: 'bad',
      summary: 'Reads a value of no graph',
      *run(m) {
        yield adapter(m, named(m, 'mm').output(), named(m, 'mm'));
        const lost = new Node({
          op: 'Neg',
          inputs: [m.graph.inputs[0] ?? null],
          outputs: [new Value({ hint: 'lost' })],
        });
        yield {
          label: 'wrong redirect',
          graph: m.graph,
          redirect: [{ from: named(m, 'mm').output(), to: lost.output() }],
        };
      },
    });
    try {
      runPasses(model, [bad], { validate });
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({ code: 'E_INVALID_GRAPH' });
      const text = String(error);
      expect(text).toContain("%lost' of Neg '%lost', which is not in the graph");
      if (validate === 'edit') {
        expect(text).toContain("Pass 'bad', edit 2 'wrong redirect'");
        expect(text).toMatch(/before:[\s\S]*"%delta" = MatMul/);
        expect(text).toMatch(/after:[\s\S]*"%lost"/);
      } else expect(text).toContain("validate: 'edit'");
    }
  });

  it('names the edit whose cycle it finds, and the edit that removes a node with users', () => {
    const cycle = definePass({
      name: 'cycle',
      summary: 'Redirects after attaching',
      *run(m) {
        const edit = adapter(m, named(m, 'mm').output(), named(m, 'mm'));
        const { redirect, ...attach } = edit;
        yield attach;
        yield { label: 'late redirect', graph: m.graph, redirect: redirect ?? [] };
      },
    });
    expect(() => runPasses(chain(), [cycle], { validate: 'edit' })).toThrow(/edit 2 'late redirect'.*cycle/);
    expect(() => runPasses(chain(), [cycle])).toThrow(/Pass 'cycle': .*cycle/);
    const removal = definePass({
      name: 'removal',
      summary: 'Removes a node that is read',
      *run(m) {
        yield { label: 'drop mm', graph: m.graph, remove: [named(m, 'mm')] };
      },
    });
    expect(() => runPasses(chain(), [removal], { validate: 'off' })).toThrow(
      /edit 1 'drop mm': Removed node still has users of 'h'/,
    );
  });

  it('does not blame a pass for problems that the model came with', () => {
    const model = parseModel(`<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {
      ["late"] y = Neg(h)
      h = NoSuchOp(x)
    }`);
    const before = printModel(model);
    const nothing = definePass({
      name: 'nothing',
      summary: 'An empty edit',
      *run(m) {
        yield { label: 'nothing', graph: m.graph };
      },
    });
    runPasses(model, [nothing], { validate: 'edit' });
    expect(printModel(model)).toBe(before);
    expect(
      validateModel(model)
        .map((p) => p.rule)
        .sort(),
    ).toEqual(['order', 'schema']);
  });

  it('passes on errors that are not of the project', () => {
    const thrower = definePass({
      name: 'thrower',
      summary: 'Throws',
      *run(): Iterable<Edit> {
        yield { label: 'bad filter', graph: new Graph(), redirect: [{ from: new Value(), to: new Value() }] };
        throw new TypeError('boom');
      },
    });
    expect(() => runPasses(chain(), [thrower])).toThrow(TypeError);
    expect(() => runPasses(chain(), [thrower])).not.toThrow(PeftCompileError);
  });
});
