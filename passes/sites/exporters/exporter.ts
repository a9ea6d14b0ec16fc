/** Who wrote a file, as far as its marks tell, and how that writer spells module paths. */
import type { Model } from '../../../src/model.js';

export interface Exporter {
  readonly id: string;
  /** As printed for people. */
  readonly title: string;
  matches(model: Model): boolean;
  /** The training framework's spelling of a path taken from names in the file. */
  path(spelled: string): string;
}

export const asIs = (path: string): string => path;
