/** Names of the projections in a packed weight: virtual module paths beside or below the packed module's own. */

interface Naming {
  /** The packed module's last component. */
  readonly packed: RegExp;
  /** What the whole path must look like, where the last component says too little. */
  readonly within?: RegExp;
  readonly names: readonly string[];
  /** `beside`: in place of the packed name, as unpacked checkpoints have them. `below`: under it. */
  readonly place: 'beside' | 'below';
  /** The path is that of the module that has the projections, and no projection's own. */
  readonly module?: true;
}

const NAMINGS: readonly Naming[] = [
  { packed: /^qkv_proj$/, names: ['q_proj', 'k_proj', 'v_proj'], place: 'beside' },
  { packed: /^gate_up_proj$/, names: ['gate_proj', 'up_proj'], place: 'beside' },
  { packed: /^self$/, names: ['query', 'key', 'value'], place: 'below', module: true },
  {
    packed: /^(self_attn|encoder_attn|cross_attn)$/,
    names: ['q_proj', 'k_proj', 'v_proj'],
    place: 'below',
    module: true,
  },
  // ViT and its kin; DistilBERT.
  {
    packed: /^attention$/,
    within: /\.attention\.attention$/,
    names: ['query', 'key', 'value'],
    place: 'below',
    module: true,
  },
  {
    packed: /^attention$/,
    within: /(^|\.)transformer\.layer\.\d+\.attention$/,
    names: ['q_lin', 'k_lin', 'v_lin'],
    place: 'below',
    module: true,
  },
  { packed: /qkv|c_attn|query_key_value|attn|attention/i, names: ['q', 'k', 'v'], place: 'below' },
  { packed: /c_attn|kv/i, names: ['k', 'v'], place: 'below' },
];

function namingOf(path: string, count: number): Naming | undefined {
  const last = path.split('.').at(-1) ?? '';
  return NAMINGS.find(
    ({ packed, within, names }) =>
      names.length === count && packed.test(last) && (within === undefined || within.test(path)),
  );
}

/** Whether the path of a packed weight of query, key and value is that of their module. */
export function isModuleOfProjections(path: string): boolean {
  return namingOf(path.replace(/#\d+$/, ''), 3)?.module === true;
}

/** One path per part, in column order. */
export function partPaths(path: string, count: number): string[] {
  const components = path.split('.');
  const naming = namingOf(path, count);
  const base = naming?.place === 'beside' ? components.slice(0, -1) : components;
  const names = naming?.names ?? Array.from({ length: count }, (_, i) => `part${i}`);
  return names.map((name) => [...base, name].join('.'));
}
