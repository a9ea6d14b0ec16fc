/** What a method does between optimizer steps, on the host: rank allocation, masks that move. */

/** A parameter in training, by site and role. Writing to `data` changes the parameter. */
export interface ProcedureParam {
  readonly key: string;
  readonly site: string;
  readonly role: string;
  readonly shape: readonly number[];
  readonly data: Float32Array;
  /** Gradient of this step as the optimizer used it: of the mean loss over all micro-batches, clipped. */
  readonly gradient: Float32Array | undefined;
}

export interface ProcedureStep {
  /** Optimizer steps done, from 1. */
  readonly step: number;
  /** Steps the run will do. */
  readonly total: number;
  readonly params: readonly ProcedureParam[];
}

export interface Procedure {
  /** Throws for a run whose length does not fit. Called before the first step. */
  begin?(total: number): void;
  /** Roles whose gradients it reads; empty for none. */
  readonly gradients: readonly string[];
  /** Roles it may write. */
  readonly writes: readonly string[];
  /** Called after every optimizer step. `state` is kept in checkpoints, by name. */
  afterStep(step: ProcedureStep, state: Map<string, Float32Array>): void;
}
