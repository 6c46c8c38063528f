// Stands in for the command line: `node fake-trainer.mjs CONTROL train …`. CONTROL/behaviour.json says by run folder
// what becomes of a run; CONTROL/log gets a line for each start.
import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const [control, command, ...args] = process.argv.slice(2);
const option = (name) => args[args.indexOf(name) + 1];
const out = option('--out');
const run = path.basename(out);
const told = ['--threads', '--ranks-per-node', '--wire'].flatMap((name) =>
  args.includes(name) ? [name, option(name)] : [],
);
appendFileSync(path.join(control, 'log'), `${[run, command, ...told].join(' ')}\n`);
const behaviour = JSON.parse(readFileSync(path.join(control, 'behaviour.json'), 'utf8'))[run] ?? 'train';

const { learningRate, steps } = JSON.parse(readFileSync(option('--config'), 'utf8'));
const seed = Number(option('--seed'));
mkdirSync(out, { recursive: true });

if (behaviour === 'crash') process.kill(process.pid, 'SIGKILL');
else if (behaviour === 'fail') {
  process.stdout.write(JSON.stringify({ error: { kind: 'user', message: 'the loss is NaN' } }));
  process.exitCode = 1;
} else if (behaviour === 'hang') {
  process.stderr.write('hanging\n');
  const wait = setInterval(() => {}, 1000);
  process.on('SIGINT', () => {
    process.stdout.write(JSON.stringify({ ended: 'signal' }));
    clearInterval(wait);
  });
} else {
  // Two figures that a test can foresee: the loss falls with the learning rate and rises with the seed.
  const validationLoss = 4 + seed - learningRate;
  const lines = [
    { step: 1, loss: 9, tokensPerSecond: 100 },
    { step: steps, loss: 5, tokensPerSecond: 200 },
    { step: steps, validationLoss },
  ];
  writeFileSync(path.join(out, 'metrics.jsonl'), lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
  process.stderr.write(`train ${steps}/${steps} · loss 5.000\n`);
  process.stdout.write(JSON.stringify({ ended: 'complete', peakBytes: 1000 }));
}
