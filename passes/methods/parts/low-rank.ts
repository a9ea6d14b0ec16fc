/** What methods with two low-rank factors have in common. */
import { z } from 'zod';

/** Rank and numerator of the scaling, with PEFT's defaults. */
export const rankAndAlpha = {
  rank: z.int().min(1).default(8).describe('Inner dimension r of the update A·B'),
  alpha: z.number().default(8).describe('Numerator of the scaling s = alpha / rank'),
};

export const rslora = z.boolean().default(false).describe('Scale by alpha / √rank (arXiv 2312.03732)');

/** Dropout on the way into a branch. */
export const branchDropout = z
  .number()
  .min(0)
  .lt(1)
  .default(0)
  .describe("Dropout on the branch's input while training");

/** s = α/r, or α/√r for rsLoRA. */
export function scaling(config: {
  readonly rank: number;
  readonly alpha: number;
  readonly rslora?: boolean;
}): number {
  return config.alpha / (config.rslora === true ? Math.sqrt(config.rank) : config.rank);
}
