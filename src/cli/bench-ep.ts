import { type Command, InvalidArgumentError, Option } from 'commander';
import { integer } from './options.js';
import { type Outcome, runs } from './session.js';

interface EpFlags {
  ranks: number[];
  sizes: number[];
  rates: number[];
  training: 'tiny' | 'mini' | false;
  links: boolean;
  faults: boolean;
  out?: string;
}

/** Sizes in KiB and speeds in MB/s on the command line. */
const KIB = 1024;
const MB = 1e6;

/** Numbers separated by commas. */
function list(text: string): number[] {
  try {
    return text.split(',').map((item) => integer(1)(item.trim()));
  } catch {
    throw new InvalidArgumentError('It must be whole numbers separated by commas.');
  }
}

/** `fathom bench ep`. @param save writes the results and describes them */
export function addEpBench(
  bench: Command,
  save: (report: object, text: string, file: string) => Promise<Outcome>,
): void {
  const command = bench
    .command('ep')
    .description(
      'measure dispatch and combine over MPI: on this host, and between hosts with slow links (Linux, root)',
    )
    .option('--ranks <list>', 'numbers of ranks on this host', list, [2, 4, 8])
    .option('--sizes <list>', 'KiB of tokens that a rank sends', list, [64, 512, 4096, 65536])
    .option('--rates <list>', 'MB/s of each link between hosts', list, [100, 50])
    .addOption(
      new Option('--training <preset>', 'whose training steps are measured')
        .choices(['tiny', 'mini'])
        .default('mini'),
    )
    .option('--no-training', 'leave training out')
    .option('--no-links', 'leave hosts with slow links out')
    .option('--no-faults', 'let no rank and no link fail')
    .option('--out <file>', 'where the results go as JSON (default: bench/results/ep.json)');
  runs<EpFlags>(command, async (session, { ranks, sizes, rates, training, links, faults, out }) => {
    const { benchEp } = await import('../bench/ep.js');
    const { epText } = await import('../bench/ep-text.js');
    const report = await benchEp(
      {
        ranks,
        sizes: sizes.map((size) => size * KIB),
        rates: rates.map((speed) => speed * MB),
        training: training || undefined,
        links,
        faults,
        peers: process.env.FATHOM_PEERS,
      },
      session,
    );
    return save(report, epText(report), out ?? 'bench/results/ep.json');
  });
}
