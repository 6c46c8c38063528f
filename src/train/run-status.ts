import fs from 'node:fs';
import path from 'node:path';
import { openRun } from './run-file.js';
import { listStates } from './state.js';

export type RunStatus = 'absent' | 'unfinished' | 'complete';

/** What the folder `out` holds of a training run. @throws UserError when its run.json cannot be read */
export function runStatus(out: string): RunStatus {
  if (!fs.existsSync(path.join(out, 'run.json'))) return 'absent';
  const { config } = openRun({ out, resume: true });
  const newest = listStates(path.join(out, 'checkpoints'))[0]?.step ?? 0;
  // The model is saved last.
  return newest >= config.steps && fs.existsSync(path.join(out, 'config.json')) ? 'complete' : 'unfinished';
}
