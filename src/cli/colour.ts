/** Colours for terminals only: never in pipes and files, never against NO_COLOR (https://no-color.org). */
import picocolors from 'picocolors';

const { NO_COLOR, FORCE_COLOR, TERM } = process.env;
const terminal = Boolean(process.stdout.isTTY && process.stderr.isTTY) && TERM !== 'dumb';

export default picocolors.createColors(!NO_COLOR && (Boolean(FORCE_COLOR) || terminal));
