/** Procedures of the methods that a record names, with the parameters they concern. */
import { type AdapterParam, type AdapterRecord, trainingMethod } from './adapter-record.js';
import type { Method } from './methods/contract/method.js';
import type { Procedure } from './methods/contract/procedure.js';
import { resolveMethod } from './methods/registry.js';

export interface PlannedProcedure {
  /** Index of the entry in the record. */
  readonly entry: number;
  readonly procedure: Procedure;
  /** Trained parameters in a role that the procedure reads or writes, in record order, each once. */
  readonly params: readonly { readonly site: string; readonly role: string; readonly param: AdapterParam }[];
}

/** Throws E_NO_MATCH when a method that trains is neither shipped nor among `own`. */
export function proceduresOf(record: AdapterRecord, own: readonly Method[] = []): PlannedProcedure[] {
  return record.entries.flatMap((entry, index): PlannedProcedure[] => {
    if (!trainingMethod(entry)) return [];
    const procedure = resolveMethod(entry.method, own).procedure?.(entry.config);
    if (procedure === undefined) return [];
    const roles = new Set([...procedure.gradients, ...procedure.writes]);
    const params = new Map<string, PlannedProcedure['params'][number]>();
    for (const site of record.sites)
      for (const [role, param] of Object.entries(site.params))
        if (site.entry === index && param.trainable && roles.has(role) && !params.has(param.key))
          params.set(param.key, { site: site.path, role, param });
    return [{ entry: index, procedure, params: [...params.values()] }];
  });
}
