/** Whether a checkpoint and the model given with it hold one adapter. */
import { type AdapterRecord, allParams } from '../../passes/adapter-record.js';

/** The first thing in which adapters differ, the checkpoint's first; undefined for one adapter. */
export function differenceOf(checkpoint: AdapterRecord, model: AdapterRecord): string | undefined {
  const methods = ({ entries }: AdapterRecord) => entries.map(({ method }) => method).join(', ');
  if (methods(checkpoint) !== methods(model))
    return `its method is ${methods(checkpoint)}, the model's is ${methods(model)}`;
  const ours = shapes(checkpoint);
  const theirs = shapes(model);
  for (const [key, shape] of ours)
    if (theirs.get(key) !== shape)
      return `its '${key}' is [${shape}], ${theirs.has(key) ? `the model's is [${theirs.get(key)}]` : 'and the model has none'}`;
  const [missing] = [...theirs.keys()].filter((key) => !ours.has(key));
  if (missing !== undefined) return `it has no '${missing}', and the model has`;
  return settings(checkpoint, model);
}

function shapes(record: AdapterRecord): Map<string, string> {
  return new Map(allParams(record).map(({ key, shape }) => [key, shape.join(', ')]));
}

/** Settings that both records have: a later version may say more. */
function settings(checkpoint: AdapterRecord, model: AdapterRecord): string | undefined {
  for (const [i, { path, config }] of checkpoint.sites.entries())
    for (const [name, value] of Object.entries(config)) {
      const other = model.sites[i]?.config[name];
      if (other !== undefined && JSON.stringify(other) !== JSON.stringify(value))
        return `its ${name} at ${path} is ${JSON.stringify(value)}, the model's is ${JSON.stringify(other)}`;
    }
  return undefined;
}
