import type { PositionSite } from '../site.js';
import type { PositionDims } from '../views.js';
import type { Kind } from './kind.js';
import { lazily } from './lazily.js';
import { at } from './weights.js';

/** Positions of tokens, at the one node that reads them. */
export const position: Kind<PositionSite> = {
  dims: ({ path, dtype }): PositionDims => ({ path, dtype }),

  stored: () => ({}),

  open(_builder, site) {
    const { node, input } = site;
    const positions = node.input(input);
    return {
      view: lazily(position.dims(site), { positions: () => positions }),
      slots: {
        positions: (value) => ({
          at: { before: node },
          redirects: [{ from: positions, to: value, only: at(node, input) }],
          replaced: value,
        }),
      },
    };
  },
};
