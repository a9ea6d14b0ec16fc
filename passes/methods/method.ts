/**
 * What a PEFT method is: data plus two formulas. `attach` says how the adapted computation reads, `fold` says what the
 * base weight becomes. Both are written with the op builder, so the same text is printed, typed, differentiated,
 * executed and streamed by shared code. No method touches an array, and shared code never asks which method it has.
 */
import { z } from 'zod';
import { fail } from '../../src/errors.js';
import type { Value } from '../../src/graph.js';
import type { Initializer } from '../../src/initializer.js';
import type { Ops } from '../../src/ops/ops.generated.js';
import type { DType } from '../../src/types.js';
import { describeIssues } from '../../src/zod-issues.js';
import type { SiteKind } from '../sites/site.js';

/** A tensor the method brings to a site. */
export interface ParamSpec {
  readonly shape: readonly number[];
  readonly init: Initializer;
  /** False for frozen extras; default true. */
  readonly trainable?: boolean;
  /** Learning-rate group; default `default`. */
  readonly group?: string;
  /** Whether weight decay applies; default true. */
  readonly weightDecay?: boolean;
  /** Part of the adapter key behind the module path, as PEFT spells it; default: the parameter's name. */
  readonly key?: string;
}

/** Sizes of a site, known before any value exists. */
export interface LinearDims {
  readonly path: string;
  readonly inDim: number;
  readonly outDim: number;
  readonly dtype: DType;
}

/** A linear site as formulas see it: `y = x w + b`, `w` always [in, out]. */
export interface LinearView extends LinearDims {
  readonly x: Value;
  readonly y: Value;
  readonly w: Value;
}

export interface EmbeddingDims {
  readonly path: string;
  readonly vocab: number;
  readonly dim: number;
  readonly dtype: DType;
}

/** An embedding site: `y = w[ids]`, `w` [vocab, dim]. */
export interface EmbeddingView extends EmbeddingDims {
  readonly ids: Value;
  readonly y: Value;
  readonly w: Value;
}

/** What a formula replaces: the site's output, or the weight its op reads. */
export type Attached = { readonly y: Value } | { readonly w: Value };

/** The weight a fold formula reads and the one it returns, [in, out] or [vocab, dim]. */
export interface FoldView {
  readonly w: Value;
}

export interface AttachContext {
  /** Dropout in training, identity otherwise; `p` 0 is the identity always. */
  dropout(x: Value, p: number): Value;
}

/** Formula for the folded weight, or why there is none. */
export type Fold<Config, P extends string> =
  | ((op: Ops, site: FoldView, params: Readonly<Record<P, Value>>, config: Config) => FoldView)
  | { readonly impossible: string };

/** The rules of a method at one kind of site. */
export interface SiteRules<Dims, View extends Dims, Config, P extends string> {
  params(site: Dims, config: Config): Readonly<Record<P, ParamSpec>>;
  attach(
    op: Ops,
    site: View,
    params: Readonly<Record<P, Value>>,
    config: Config,
    context: AttachContext,
  ): Attached;
  readonly fold: Fold<Config, P>;
}

export interface Paper {
  readonly title: string;
  readonly arxiv: string;
}

/**
 * Rules as shared code holds them, for any kind of site. It hands over what belongs to the kind the rules stand under
 * (`passes/sites/views.ts`), which the type forgets.
 */
export type AnySiteRules = SiteRules<object, object, Record<string, unknown>, string>;

/** A method as shared code holds it: configuration already checked against `config`. */
export interface Method {
  readonly id: string;
  /** One sentence for listings and `--help`. */
  readonly summary: string;
  readonly paper: Paper;
  readonly config: z.ZodType<Record<string, unknown>>;
  readonly sites: { readonly [Kind in SiteKind]?: AnySiteRules };
}

export interface MethodDefinition<Schema extends z.ZodType, L extends string, E extends string> {
  readonly id: string;
  readonly summary: string;
  readonly paper: Paper;
  readonly config: Schema;
  readonly sites: {
    readonly linear?: SiteRules<LinearDims, LinearView, z.output<Schema>, L>;
    readonly embedding?: SiteRules<EmbeddingDims, EmbeddingView, z.output<Schema>, E>;
  };
}

/**
 * Declares a method with its configuration and parameter names inferred. The result forgets them: whoever calls the
 * formulas passes what the method's own `config` schema and `params` produced, which `Method` cannot express.
 */
export function defineMethod<Schema extends z.ZodType, L extends string = never, E extends string = never>(
  definition: MethodDefinition<Schema, L, E>,
): Method {
  return definition as unknown as Method;
}

/** Kinds of sites a method has rules for. */
export function siteKindsOf(method: Method): SiteKind[] {
  return Object.keys(method.sites) as SiteKind[];
}

/** The rules of a method for a kind of site. Throws E_UNSUPPORTED, naming `path`, where it has none. */
export function rulesFor(method: Method, kind: SiteKind, path: string): AnySiteRules {
  return (
    method.sites[kind] ??
    fail('E_UNSUPPORTED', {
      message: `${method.id} has no rules for ${kind} sites`,
      where: path,
      remedy: `It adapts: ${siteKindsOf(method).join(', ')}`,
    })
  );
}

/** Checks a configuration against the method's schema and fills in defaults. Throws E_USAGE. */
export function configureMethod(
  method: Method,
  config: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const result = method.config.safeParse(config);
  if (result.success) return result.data;
  return fail('E_USAGE', {
    message: `Configuration of ${method.id} is invalid: ${describeIssues(result.error, Object.keys(z.toJSONSchema(method.config, { io: 'input' }).properties ?? {}))}`,
    remedy: `See peft-compile methods ${method.id}`,
  });
}
