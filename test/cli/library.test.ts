import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { ROOT } from './run.js';

/** Runs a script in the repository, where `fathom` is the package itself. */
async function node(script: string): Promise<unknown> {
  const run = promisify(execFile);
  const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script], { cwd: ROOT });
  return JSON.parse(stdout);
}

describe('the library', () => {
  it('exports what src/index.ts says, from the built package', async () => {
    const names = await node(
      "import * as fathom from 'fathom'; console.log(JSON.stringify(Object.keys(fathom)))",
    );
    expect(names).toEqual([
      'BUNDLED_CORPORA',
      'CACHE_FORMATS',
      'ChatTemplate',
      'FlowList',
      'MODEL_PRESETS',
      'QueueFullError',
      'RECIPES',
      'SILENT_UI',
      'SPECIAL_TOKENS',
      'TRAIN_PRESETS',
      'Tokenizer',
      'UsageError',
      'UserError',
      'WEIGHT_FORMATS',
      'buildNetwork',
      'costOf',
      'countParameters',
      'failuresOf',
      'listParameters',
      'openEngine',
      'openEngineInWorker',
      'openModel',
      'openTokenizer',
      'parseModelConfig',
      'parseNetwork',
      'parseScenario',
      'parseTrainConfig',
      'readCheckpoint',
      'readDocuments',
      'readMetrics',
      'recipeSchema',
      'runFlows',
      'runTraining',
      'saveTokenizer',
      'score',
      'simulate',
      'simulatePackets',
      'summariseCheckpoint',
      'summariseModel',
      'trainBpe',
      'validate',
    ]);
  });

  it('scores tokens with a checkpoint in a few lines', async () => {
    const score = await node(`
      import { openModel, score } from 'fathom';
      const { model, recipe } = openModel('test/goldens/transformers/v3-fp32', { backend: 'reference' });
      console.log(JSON.stringify(score(model, recipe, [1, 2, 3], 1)));
    `);
    expect(score).toMatchObject({ tokens: [1, 2, 3], logprobs: [expect.any(Number), expect.any(Number)] });
  });
});
