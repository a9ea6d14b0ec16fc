// Trains in a process of its own and kills itself, hard, right after the step that the test names.
const [settings, killAt] = process.argv.slice(2);
const { train } = await import('../../dist/runtime/train/train.js');
await train({
  ...JSON.parse(settings),
  onEvent: (event) => {
    if (event.type === 'step' && event.step === Number(killAt)) process.kill(process.pid, 'SIGKILL');
  },
});
