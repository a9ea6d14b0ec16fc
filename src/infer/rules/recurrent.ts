/** LSTM, GRU and RNN. */
import type { Rule, Rules } from '../call.js';

/** Y [seq, dirs, batch, hidden], Y_h and Y_c [dirs, batch, hidden]; with layout 1 batch comes first. */
const recurrent: Rule = (c) => {
  const x = c.shape(0);
  const hidden = c.int('hidden_size') ?? c.shape(2)?.[2] ?? null;
  const directions = c.text('direction', 'forward') === 'bidirectional' ? 2 : 1;
  const batchFirst = c.int('layout', 0) !== 0;
  const [a = null, b = null] = x ?? [];
  const [sequence, batch] = batchFirst ? [b, a] : [a, b];
  c.set(
    0,
    c.dtype(0),
    batchFirst ? [batch, sequence, directions, hidden] : [sequence, directions, batch, hidden],
  );
  for (const i of [1, 2])
    c.set(i, c.dtype(0), batchFirst ? [batch, directions, hidden] : [directions, batch, hidden]);
};

export const recurrences: Rules = { LSTM: recurrent, GRU: recurrent, RNN: recurrent };
