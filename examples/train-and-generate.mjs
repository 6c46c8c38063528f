// Trains the smallest preset on a folder of texts and continues a sentence: node examples/train-and-generate.mjs [FOLDER]
import { openEngine, runTraining, SILENT_UI } from 'fathom';

const out = process.argv[2] ?? 'runs/example';
const result = await runTraining({ preset: 'tiny', corpus: 'sotu', steps: 20, out }, SILENT_UI);
console.log(`loss ${result.loss.first.toFixed(2)} → ${result.loss.final.toFixed(2)}, saved in ${result.out}`);

const engine = await openEngine(out);
for await (const event of engine.generate({ prompt: 'The state of the Union', maxTokens: 20, seed: 0 })) {
  if (event.type === 'text') process.stdout.write(event.text);
  else console.log(`\n${event.usage.completionTokens} tokens, ended by ${event.reason}`);
}
await engine.close();
