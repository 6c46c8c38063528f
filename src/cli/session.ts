import type { Command } from 'commander';
import { type Progress, ProgressReporter } from '../report/progress.js';
import type { Ui } from '../report/ui.js';

/** What a command gives back. */
export interface Outcome {
  /** Printed under `--json`, as the one object on standard output; absent where another rank speaks. */
  json?: object;
  /** Printed for people otherwise; absent where the command has printed as it went. */
  text?: string;
}

/** Options that every command has. */
interface CommonOptions {
  json?: boolean;
}

/** Work of a command: its session, its options as declared, and its operands. */
export type Action<Options> = (
  session: Session,
  options: Options,
  operands: readonly string[],
) => Outcome | Promise<Outcome>;

/** Characters with which a model's output could steer a terminal; tabs and line feeds are harmless. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** A command's talk with the user: answers on standard output, progress and remarks on standard error. */
export class Session implements Ui {
  constructor(
    /** Whether standard output holds one JSON object and nothing else. */
    readonly json: boolean,
  ) {}

  progress(label: string): Progress {
    return new ProgressReporter(label, process.stderr, () => performance.now() / 1000);
  }

  print(text: string): void {
    if (!this.json) process.stdout.write(process.stdout.isTTY ? text.replaceAll(CONTROL, '\ufffd') : text);
  }

  note(line: string): void {
    process.stderr.write(`${line}\n`);
  }

  /** Prints the outcome. */
  finish({ json, text }: Outcome): void {
    if (this.json && json) process.stdout.write(`${JSON.stringify(json)}\n`);
    else if (text !== undefined) process.stdout.write(`${text}\n`);
  }
}

/** Gives `command` the options that all commands share, and its work. */
export function runs<Options extends object>(command: Command, action: Action<Options>): Command {
  return command
    .option('--json', 'print one JSON object on standard output, progress on standard error')
    .option('--debug', 'show where a failure happened')
    .action(async () => {
      const options = command.opts<Options & CommonOptions>();
      const session = new Session(options.json ?? false);
      session.finish(await action(session, options, command.args));
    });
}
