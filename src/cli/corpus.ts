import { type Command, Option } from 'commander';
import type { CorpusSource } from '../text/corpus.js';

/** Options of every command that reads a corpus. */
export interface CorpusFlags {
  corpus?: string;
  data?: string[];
}

/** What is read where neither option is given: State of the Union addresses. */
const DEFAULT_CORPUS = 'sotu';

/** Declares `--corpus` and `--data`. */
export function addCorpusOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--corpus <name>', `a bundled corpus (default: ${DEFAULT_CORPUS})`).conflicts('data'),
    )
    .option('--data <path...>', 'text of your own: .txt, .jsonl, .parquet files or folders of them');
}

/** The corpus that the options name. */
export const corpusOf = ({ corpus, data }: CorpusFlags): CorpusSource =>
  data ? { paths: data } : { corpus: corpus ?? DEFAULT_CORPUS };
