/**
 * Exports without names: what a linear is for is read off the graph (`passes/sites/structure`), and its layer off the
 * order. PEFT's name says both. Every role that is asked for has to have one site per layer.
 */
import type { LinearRole, Site } from '../../passes/sites/site.js';
import type { Placement, Strategy } from './match.js';

/** Last names of modules of transformers by what they are for. */
const NAMES: Readonly<Record<LinearRole, RegExp>> = {
  query: /(?:^|\.)(?:q_proj|query|q_lin|q|query_proj|to_q)$/,
  key: /(?:^|\.)(?:k_proj|key|k_lin|k|key_proj|to_k)$/,
  value: /(?:^|\.)(?:v_proj|value|v_lin|v|value_proj|to_v)$/,
  packed: /(?:^|\.)(?:c_attn|qkv|query_key_value|qkv_proj|Wqkv|W_pack|in_proj)$/,
  'attention-output':
    /(?:^|\.)(?:o_proj|out_proj|out_lin|attn\.c_proj|attention\.output\.dense|self_attention\.dense)$/,
  gate: /(?:^|\.)(?:gate_proj|w1)$/,
  up: /(?:^|\.)(?:up_proj|w3|fc1|lin1|c_fc|intermediate\.dense|dense_h_to_4h)$/,
  down: /(?:^|\.)(?:down_proj|w2|fc2|lin2|mlp\.c_proj|(?<!attention\.)output\.dense|dense_4h_to_h)$/,
};

export const byRole: Strategy = (wanted, free, sites) => {
  const placement = new Map<string, Site>();
  const stems = new Set<string>();
  for (const module of wanted) {
    const role = roleOf(module.path);
    const numbers = [...module.path.matchAll(/(?<=^|\.)\d+(?=\.|$)/g)].map(([text]) => Number(text));
    const [layer] = numbers;
    if (role === undefined || numbers.length !== 1 || layer === undefined) return undefined;
    const candidates = sites.filter((site) => site.kind === 'linear' && site.role === role);
    const site = candidates[layer];
    if (site === undefined || !free.includes(site) || !candidates.every(isNameless)) return undefined;
    if (!candidates.every((one) => module.fits(one))) return undefined;
    placement.set(module.path, site);
    stems.add(module.path.slice(0, module.path.search(/(?<=^|\.)\d/)));
  }
  if (stems.size > 1)
    return {
      ambiguous: `The model has no names, and the adapter has modules below ${[...stems].join(' and ')}`,
    };
  return sameLayers(sites, placement) ? placement : undefined;
};

/** What is known of a name that only the structure gives (`passes/sites/paths/structure.ts`). */
const NAMELESS = 0.5;

/** Whether nothing but the order of the graph named a module: where there are names, they have to agree. */
function isNameless({ confidence }: Site): boolean {
  return confidence <= NAMELESS;
}

/** All roles have to have as many sites: otherwise the n-th is not that of layer n. */
function sameLayers(sites: readonly Site[], placement: Placement): boolean {
  const roles = new Set(
    [...placement.values()].map((site) => (site.kind === 'linear' ? site.role : undefined)),
  );
  const counts = [...roles].map(
    (role) => sites.filter((site) => site.kind === 'linear' && site.role === role).length,
  );
  const blocks = sites.filter((site) => site.kind === 'sublayer' && site.role === 'attention').length;
  return new Set(counts).size === 1 && (blocks === 0 || blocks === counts[0]);
}

function roleOf(path: string): LinearRole | undefined {
  const roles = (Object.keys(NAMES) as LinearRole[]).filter((role) => NAMES[role].test(path));
  return roles.length === 1 ? roles[0] : undefined;
}
