/** A loss curve for the terminal. */
import asciichart from 'asciichart';
import { terminalWidth } from './output.js';

const WIDTH = 64;
const HEIGHT = 10;
/** Columns of the numbers and the axis. */
const AXIS = 12;

/** The losses as a line chart at most 64 columns wide; more steps than columns are averaged per column. */
export function lossCurve(losses: readonly number[]): string {
  const columns = Math.max(2, Math.min(WIDTH, terminalWidth() - AXIS, losses.length));
  const points = Array.from({ length: columns }, (_, column) => {
    const from = Math.floor((column * losses.length) / columns);
    const to = Math.max(from + 1, Math.floor(((column + 1) * losses.length) / columns));
    const slice = losses.slice(from, to);
    return slice.reduce((sum, loss) => sum + loss, 0) / slice.length;
  });
  const chart = asciichart.plot(points, {
    height: HEIGHT,
    format: (value: number) => value.toFixed(3).padStart(9),
  });
  return `training loss over ${losses.length} steps\n${chart.replace(/ +$/gm, '')}`;
}
