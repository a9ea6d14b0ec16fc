/**
 * Wiring of one method at one site: opens the site for the method's formula and says what is redirected. What is
 * replaced, the output or the weight, is what the formula returns.
 */
import { fail } from '../src/errors.js';
import type { Use, Value } from '../src/graph.js';
import type { Model } from '../src/model.js';
import { Builder } from '../src/ops/builder.js';
import { adapterDropout } from './dropout.js';
import type { Anchor, Edit, Redirect } from './edit.js';
import { type AttachContext, type Method, rulesFor } from './methods/method.js';
import type { Site } from './sites/site.js';
import { openSite } from './sites/views.js';
import { consumedLayout, fromMatrix, toMatrix } from './weight-form.js';

type Params = Readonly<Record<string, Value>>;

interface Wiring {
  readonly at: Anchor;
  readonly redirect: Redirect;
}

/**
 * The edit that puts a method's formula at a site.
 * Throws E_UNSUPPORTED where the method needs an output or a weight that the site does not show.
 */
export function wire(
  model: Model,
  method: Method,
  config: Record<string, unknown>,
  site: Site,
  params: Params,
): Edit {
  const label = `${method.id} at ${site.path}`;
  const builder = new Builder(model, { provenance: label });
  const { at, redirect } =
    site.y === undefined
      ? weightForm(builder, method, config, site, params)
      : outputForm(builder, method, config, site, params, site.y);
  return {
    label,
    graph: site.graph,
    add: { nodes: builder.nodes, at },
    addInitializers: builder.initializers,
    redirect: [redirect],
  };
}

function outputForm(
  builder: Builder,
  method: Method,
  config: Record<string, unknown>,
  site: Site,
  params: Params,
  y: Value,
): Wiring {
  const { view, restore } = openSite(builder.op, site, y);
  // The weight is built only for formulas that read it.
  Object.defineProperty(view, 'w', { get: () => matrixOf(builder, site) });
  const context: AttachContext = { dropout: (x, p) => adapterDropout(builder, x, p) };
  const rules = rulesFor(method, site.kind, site.path);
  const attached = rules.attach(builder.op, view, params, config, context);
  if ('w' in attached) return replaceWeight(builder, site, attached.w);
  const producer =
    y.producer ?? fail('E_INVALID_GRAPH', { message: 'A site output has no producer', where: site.path });
  return { at: { after: producer }, redirect: { from: y, to: restore(attached.y) } };
}

/** Where a fused op leaves no output to add to, the fold formula itself feeds the op: W' = W + … as a subgraph. */
function weightForm(
  builder: Builder,
  method: Method,
  config: Record<string, unknown>,
  site: Site,
  params: Params,
): Wiring {
  const { fold } = rulesFor(method, site.kind, site.path);
  if (typeof fold !== 'function')
    return fail('E_UNSUPPORTED', {
      message: `${method.id} needs the output of the linear, which a fused ${site.node.op} does not show`,
      where: site.path,
      remedy: 'Export the model without attention fusion',
    });
  return replaceWeight(builder, site, fold(builder.op, { w: matrixOf(builder, site) }, params, config).w);
}

/** Feeds the site's op, and no other reader of its weight, a new matrix. */
function replaceWeight({ op }: Builder, site: Site, matrix: Value): Wiring {
  const { input } = site.weight;
  const from = currentWeight(site);
  const only = (use: Use) => use.kind === 'node' && use.node === site.node && use.index === input;
  const to = fromMatrix(op, matrix, from, consumedLayout(site));
  return { at: { before: site.node }, redirect: { from, to, only } };
}

/** What the site's op reads by now: a column range of a packed weight may have been wired before this one. */
function currentWeight({ node, weight }: Site): Value {
  return node.input(weight.input);
}

/** The weight that the site's op reads, [in, out] or [vocab, dim]. */
function matrixOf({ op }: Builder, site: Site): Value {
  if (site.weight.storage === 'packed')
    fail('E_UNSUPPORTED', {
      message: 'The weight is packed in a layout that only its op understands',
      where: site.path,
      remedy: 'Choose a method that adds to the output, such as lora',
    });
  return toMatrix(op, currentWeight(site), consumedLayout(site));
}
