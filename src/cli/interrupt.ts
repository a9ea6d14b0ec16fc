/** Ctrl-C and SIGTERM: the first asks running work to stop cleanly, the second leaves at once. No half file remains. */
import { settleSessions } from '../../runtime/session.js';
import { EXIT } from '../errors.js';

let controller = new AbortController();

/** Aborted when the user interrupts; long work (training) watches it, saves its state and returns. */
export function interruptSignal(): AbortSignal {
  watched = true;
  return controller.signal;
}

let watched = false;

/** How long an exit waits for a run of ONNX Runtime that cannot be broken off. */
const PATIENCE_MS = 5000;

/** Installs the handlers; returns what removes them. `cleanup` deletes unfinished files. */
export function interruption(cleanup: () => void): () => void {
  controller = new AbortController();
  watched = false;
  const onSignal = (signal: NodeJS.Signals) => {
    if (watched && !controller.signal.aborted) {
      controller.abort();
      return;
    }
    cleanup();
    if (settleSessions(PATIENCE_MS)) process.exit(EXIT.interrupted);
    // The exit would be turned into a crash; the signal's own ending is not.
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return () => {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  };
}
