/** Ctrl-C and SIGTERM: the first asks running work to stop cleanly, the second leaves at once. No half file remains. */
import { EXIT } from '../errors.js';

let controller = new AbortController();

/** Aborted when the user interrupts; long work (training) watches it, saves its state and returns. */
export function interruptSignal(): AbortSignal {
  watched = true;
  return controller.signal;
}

let watched = false;

/** Installs the handlers; returns what removes them. `cleanup` deletes unfinished files. */
export function interruption(cleanup: () => void): () => void {
  controller = new AbortController();
  watched = false;
  const onSignal = () => {
    if (watched && !controller.signal.aborted) {
      controller.abort();
      return;
    }
    cleanup();
    process.exit(EXIT.interrupted);
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return () => {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  };
}
