import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import { UserError } from '../errors.js';
import { table } from '../report/table.js';
import { addEngineOptions, type EngineFlags, present } from './engine.js';
import { integer } from './options.js';
import { type Outcome, runs, type Session } from './session.js';

/** `fathom study run|report|list`. */
export function addStudy(program: Command): void {
  const group = program
    .command('study')
    .description('train small models that differ in one thing and say what it does, with intervals');
  addRun(group);
  addReport(group);
  addList(group);
}

interface RunFlags extends EngineFlags {
  out?: string;
  jobs: number;
  seeds?: number[];
  steps?: number;
}

function addRun(group: Command): void {
  const command = group
    .command('run')
    .description('train the runs of a study that its results folder lacks, and report')
    .argument('<study>', 'a study file (JSON), or the name of one that comes with fathom')
    .option('--out <dir>', 'the results folder (default: runs/studies/NAME)')
    .option('--jobs <n>', 'runs at a time; they share the threads', integer(1), 1)
    .option('--seeds <list>', 'in place of those of the study, as in 0,1,2', seedList)
    .option('--steps <n>', 'optimizer steps, in place of those of the study', integer(1));
  runs<RunFlags>(addEngineOptions(command), runStudyCommand);
}

async function runStudyCommand(
  session: Session,
  flags: RunFlags,
  [given]: readonly string[],
): Promise<Outcome> {
  const { openStudy } = await import('../study/library.js');
  const { planStudy } = await import('../study/plan.js');
  const { prepareData } = await import('../study/prepare.js');
  const { ResultsFolder } = await import('../study/results.js');
  const { runStudy } = await import('../study/runner.js');
  const { file, study } = openStudy(given!);
  const plan = planStudy(study, file, present({ seeds: flags.seeds, steps: flags.steps }));
  const results = ResultsFolder.start(flags.out ?? join('runs', 'studies', study.name), plan);
  const shared = await prepareData(plan, join(results.work, 'data'), session);
  const fathom = [process.execPath, process.argv[1]!];
  const { jobs, backend, threads = availableParallelism() } = flags;
  const outcome = await runStudy(
    plan,
    results,
    shared,
    { fathom, jobs, threads, ...present({ backend }) },
    session,
  );
  const reported = await report(results);
  if (outcome.failed.length > 0) {
    session.print(`${reported.text}\n`);
    throw new UserError(
      `${outcome.failed.length} runs failed (${outcome.failed[0]}); the others are kept in ${results.folder}, run again to retry`,
    );
  }
  if (!outcome.stopped) results.removeWork();
  const next = outcome.stopped ? 'stopped; run again to go on' : join(results.folder, 'report.html');
  return { ...reported, text: `${reported.text}\n\n${next}` };
}

/** Analyses what is there and writes report.json and report.html beside it. */
async function report(results: import('../study/results.js').ResultsFolder) {
  const { analyse } = await import('../study/analysis.js');
  const { reportPage } = await import('../study/page.js');
  const { reportText } = await import('../study/text.js');
  const { study, digest } = results;
  const json = analyse({ study, digest, records: results.records() });
  const page = reportPage(json);
  results.writeReport(json, page);
  return { json, text: reportText(json), page };
}

function addReport(group: Command): void {
  const command = group
    .command('report')
    .description('report on the runs in a results folder, as they are')
    .argument('<dir>', 'a results folder')
    .option('--html <file>', 'write the page here as well as in the folder');
  runs<{ html?: string }>(command, async (_session, { html }, [folder]) => {
    const { ResultsFolder, writeText } = await import('../study/results.js');
    const { json, text, page } = await report(ResultsFolder.open(folder!));
    if (html !== undefined) writeText(html, page);
    return { json, text };
  });
}

function addList(group: Command): void {
  const command = group.command('list').description('the studies that come with fathom');
  runs(command, async () => {
    const { shippedStudies } = await import('../study/library.js');
    const studies = shippedStudies().map(({ study }) => ({
      name: study.name,
      title: study.title,
      runs: study.variants.length * study.seeds.length,
    }));
    const columns = [{ title: 'study' }, { title: 'runs', align: 'right' as const }, { title: 'about' }];
    const rows = studies.map(({ name, title, runs: count }) => [name, String(count), title]);
    return { json: { studies }, text: table(columns, rows) };
  });
}

function seedList(text: string): number[] {
  const words = text.split(',').map((word) => word.trim());
  const wrong = words.find((word) => !/^\d{1,15}$/.test(word));
  if (wrong !== undefined) throw new InvalidArgumentError(`"${wrong}" is no seed; write seeds as in 0,1,2.`);
  return [...new Set(words.map(Number))];
}
