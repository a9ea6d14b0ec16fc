/**
 * What a PEFT method is: data plus two formulas. `attach` says how the adapted computation reads, `fold` says what the
 * stored weights become. Both are written with the op builder, so the same text is printed, typed, differentiated,
 * executed and streamed by shared code. Shared code never asks which method it has.
 */
import type { z } from 'zod';
import { fail } from '../../../src/errors.js';
import type { Value } from '../../../src/graph.js';
import type { Initializer } from '../../../src/initializer.js';
import type { Ops } from '../../../src/ops/ops.generated.js';
import type { DType } from '../../../src/types.js';
import type { SiteKind } from '../../sites/site.js';
import type { SiteDims, SiteSlots, SiteViews, Stored } from '../../sites/views.js';
import type { PeftFormat } from '../contract/peft-format.js';
import type { ByRow } from './by-row.js';
import type { DerivedInit } from './derived.js';
import type { Procedure } from './procedure.js';
import type { Survey } from './survey.js';
import type { Weighted } from './weighted.js';

/** A tensor the method brings. */
export interface ParamSpec {
  readonly shape: readonly number[];
  /** From a seeded distribution, or computed from the base's own weights. */
  readonly init: Initializer | DerivedInit;
  /** Value at which the method leaves its site as it was; default: `init`, where the method starts as the base. */
  readonly neutral?: Initializer;
  /** Default: the element type of the site. `int64` for indices, which are never trained. */
  readonly dtype?: DType;
  /** False for frozen extras; default true. */
  readonly trainable?: boolean;
  /** Parameter group of the optimizer; default `default`. */
  readonly group?: string;
  /** Factor on the learning rate; default 1. */
  readonly lrScale?: number;
  /** Whether weight decay applies; default true. */
  readonly weightDecay?: boolean;
  /** Part of the adapter key behind the module path, as PEFT spells it; default: the parameter's name. */
  readonly key?: string;
}

export type ParamSpecs<P extends string = string> = Readonly<Record<P, ParamSpec>>;
export type ParamValues<P extends string = string> = Readonly<Record<P, Value>>;

export interface AttachContext {
  /** Dropout in training, identity otherwise; `p` 0 is the identity always. */
  dropout(x: Value, p: number): Value;
  /** `value` as a constant to differentiation. */
  stopGradient(value: Value): Value;
}

/** Why a site keeps its adapter's nodes in a merged model. */
export interface Impossible {
  readonly impossible: string;
}

/** New values of stored tensors. Those left out stay. */
export type Folded<Kind extends SiteKind> = Partial<Stored<Kind>>;

/** Formula for the folded tensors, or why there is none. */
export type Fold<Kind extends SiteKind, Config, P extends string> =
  | ((
      op: Ops,
      stored: Stored<Kind>,
      params: ParamValues<P>,
      config: Config,
      site: SiteDims[Kind],
    ) => Folded<Kind> | Impossible)
  | Impossible;

/** Training-only structure that is evaluated once: what remains is a site of another, simpler method. */
export interface Collapse<Kind extends SiteKind, Config, P extends string> {
  /** Whether a configuration collapses; default always. */
  when?(config: Config): boolean;
  readonly method: Method;
  config(config: Config, site: SiteDims[Kind]): Readonly<Record<string, unknown>>;
  /** Values of that method's parameters at the site. */
  values(
    op: Ops,
    stored: Stored<Kind>,
    params: ParamValues<P>,
    config: Config,
    site: SiteDims[Kind],
  ): ParamValues;
}

/** The rules of a method at one kind of site. */
export interface SiteRules<Kind extends SiteKind, Config, P extends string, S extends string = never> {
  /**
   * Sites of this kind are no targets of their own: all of them come along where a site of that other kind is selected,
   * whatever the targets are.
   */
  readonly alongside?: SiteKind;
  /** With `alongside`: what the user is told where the model has no such site; undefined where none is wanted. */
  absent?(config: Config): string | undefined;
  /** Why a site cannot take the method; undefined where it can. Default: every site can. */
  refuses?(site: SiteDims[Kind], config: Config): string | undefined;
  params(site: SiteDims[Kind], config: Config): ParamSpecs<P>;
  /** New values of the site's slots: those it names are replaced. */
  attach(
    op: Ops,
    site: SiteViews[Kind],
    params: ParamValues<P | S>,
    config: Config,
    context: AttachContext,
  ): Partial<Record<SiteSlots[Kind], Value>>;
  readonly fold: Fold<Kind, Config, P | S>;
  /** Integer parameters that are places of entries: none negative, none twice. */
  readonly places?: readonly string[];
  /** Where one run can serve several adapters, one per row of the batch. */
  readonly byRow?: ByRow<NoInfer<P | S>, NoInfer<SiteRules<Kind, Config, P, S>['attach']>>;
  readonly collapse?: Collapse<Kind, Config, P | S>;
  /**
   * A float32 scalar that joins the loss while training: regularisation of the parameters, which are float32 here.
   * `sites` is the number of sites whose penalties are added up: a mean over them divides by it.
   */
  penalty?(op: Ops, params: ParamValues<P | S>, config: Config, sites: number): Value | undefined;
}

export interface Paper {
  readonly title: string;
  /** Number at arXiv; the address of a paper that is not there. */
  readonly arxiv: string;
}

/**
 * Rules as shared code holds them, for any kind of site. It hands over what belongs to the kind the rules stand under
 * (`passes/sites/kinds`), which the type forgets.
 */
export interface AnySiteRules {
  readonly alongside?: SiteKind;
  absent?(config: Record<string, unknown>): string | undefined;
  refuses?(site: object, config: Record<string, unknown>): string | undefined;
  params(site: object, config: Record<string, unknown>): ParamSpecs;
  attach(
    op: Ops,
    site: object,
    params: ParamValues,
    config: Record<string, unknown>,
    context: AttachContext,
  ): Readonly<Record<string, Value>>;
  readonly fold: AnyFold | Impossible;
  readonly places?: readonly string[];
  readonly byRow?: ByRow<string, AnySiteRules['attach']>;
  readonly collapse?: AnyCollapse;
  penalty?(op: Ops, params: ParamValues, config: Record<string, unknown>, sites: number): Value | undefined;
}

export type AnyFold = (
  op: Ops,
  stored: Readonly<Record<string, Value>>,
  params: ParamValues,
  config: Record<string, unknown>,
  site: object,
) => Readonly<Record<string, Value>> | Impossible;

export interface AnyCollapse {
  when?(config: Record<string, unknown>): boolean;
  readonly method: Method;
  config(config: Record<string, unknown>, site: object): Readonly<Record<string, unknown>>;
  values(
    op: Ops,
    stored: Readonly<Record<string, Value>>,
    params: ParamValues,
    config: Record<string, unknown>,
    site: object,
  ): ParamValues;
}

/** A site as `shared` sees it. */
export type SharedDims<Kind extends SiteKind = SiteKind> = {
  readonly [K in Kind]: SiteDims[K] & { kind: K };
}[Kind];

/** A method as shared code holds it: configuration already checked against `config`. */
export interface Method {
  readonly id: string;
  /** One sentence for listings and `--help`. */
  readonly summary: string;
  readonly paper: Paper;
  readonly config: z.ZodType<Record<string, unknown>>;
  readonly sites: { readonly [Kind in SiteKind]?: AnySiteRules };
  /** Parameters that all sites of one insertion have in common, under keys of their own. */
  shared?(sites: readonly SharedDims[], config: Record<string, unknown>): ParamSpecs;
  readonly survey?: Survey;
  readonly procedure?: (config: Record<string, unknown>) => Procedure | undefined;
  /** Whether the inserted model computes what the base computes before training. Default true. */
  readonly startsAsBase: boolean;
  /** Targets where the user names none: names as in PEFT's `target_modules`, `all-linear`, `all`, or `role:<role>`. */
  readonly defaultTargets: string | readonly string[];
  /** Learning rate to try first with AdamW. Default 1e-3. */
  readonly learningRate: number;
  /** Why nobody chooses it by name: it is what another method collapses to. */
  readonly internal?: string;
  /** What to do about a model that has no place for the method: another export, another method. */
  readonly otherwise?: string;
  /** How Hugging Face PEFT stores it, where PEFT has it. */
  readonly peft?: PeftFormat;
  /** How adapters of the method make one, by weight; absent where they do not. */
  readonly weighted?: Weighted;
}

/** Parameter names by kind of site, one type parameter each, so that all are inferred: L inear, E mbedding, … */
export interface MethodDefinition<
  Schema extends z.ZodType,
  S extends string,
  L extends string,
  E extends string,
  N extends string,
  B extends string,
  A extends string,
  O extends string,
  R extends string,
> {
  readonly id: string;
  readonly summary: string;
  readonly paper: Paper;
  readonly config: Schema;
  /** Parameters that all sites of one insertion have in common. */
  readonly shared?: (sites: readonly SharedDims[], config: z.output<Schema>) => ParamSpecs<S>;
  readonly sites: {
    readonly linear?: SiteRules<'linear', z.output<Schema>, L, S>;
    readonly embedding?: SiteRules<'embedding', z.output<Schema>, E, S>;
    readonly norm?: SiteRules<'norm', z.output<Schema>, N, S>;
    readonly sublayer?: SiteRules<'sublayer', z.output<Schema>, B, S>;
    readonly attention?: SiteRules<'attention', z.output<Schema>, A, S>;
    readonly position?: SiteRules<'position', z.output<Schema>, O, S>;
    readonly prompt?: SiteRules<'prompt', z.output<Schema>, R, S>;
  };
  /** Facts about the selected weights that sizes depend on. */
  readonly survey?: Survey;
  readonly procedure?: (config: z.output<Schema>) => Procedure | undefined;
  readonly startsAsBase?: boolean;
  readonly defaultTargets?: string | readonly string[];
  readonly learningRate?: number;
  readonly internal?: string;
  readonly otherwise?: string;
  readonly peft?: PeftFormat;
  readonly weighted?: Weighted;
}

/**
 * Declares a method with its configuration and parameter names inferred. The result forgets them: whoever calls the
 * formulas passes what the method's own `config` schema and `params` produced, which `Method` cannot express.
 */
export function defineMethod<
  Schema extends z.ZodType,
  S extends string = never,
  L extends string = never,
  E extends string = never,
  N extends string = never,
  B extends string = never,
  A extends string = never,
  O extends string = never,
  R extends string = never,
>(definition: MethodDefinition<Schema, S, L, E, N, B, A, O, R>): Method {
  return {
    startsAsBase: true,
    defaultTargets: 'all-linear',
    learningRate: 1e-3,
    ...definition,
  } as unknown as Method;
}

/** Whether a method acts while training, beyond its nodes: with a penalty, or a procedure between steps. */
export function hasSayInTraining(method: Method): boolean {
  return (
    method.procedure !== undefined || Object.values(method.sites).some(({ penalty }) => penalty !== undefined)
  );
}

/** Kinds of sites a method has rules for. */
export function siteKindsOf(method: Method): SiteKind[] {
  return Object.keys(method.sites) as SiteKind[];
}

/** Kinds of sites that targets of a method name: all but those that come alongside others. */
export function targetKindsOf(method: Method): SiteKind[] {
  return siteKindsOf(method).filter((kind) => method.sites[kind]?.alongside === undefined);
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
