import { basename } from 'node:path';
import { type Command, Option } from 'commander';
import { UsageError } from '../errors.js';
import type { FormatError, KindReport } from '../numerics/compare.js';
import { table } from '../report/table.js';
import { count, percent } from '../report/units.js';
import type { SampleSource } from '../train/capture.js';
import { integer, real } from './options.js';
import { runs, type Session } from './session.js';

/** `fathom numerics compare`. */
export function addNumerics(program: Command): void {
  const group = program.command('numerics').description('what number formats cost');
  addCompare(group);
}

interface CompareFlags {
  formats: string;
  input?: string;
  fromRun?: string;
  gaussian?: number;
  seed: number;
  svg?: string;
}

const DEFAULT_FORMATS = 'bf16,e4m3,e5m2,e5m6,logfmt8,logfmt10';

function addCompare(group: Command): void {
  const command = group
    .command('compare')
    .description('store values in number formats and show what is lost; without a source on synthetic values')
    .option(
      '--formats <list>',
      'FORMAT[@BLOCKS][+OPTION], as in e4m3,e4m3@tensor,e5m2+stochastic,mxfp8,nvfp4,logfmt8,logfmt8+log',
      DEFAULT_FORMATS,
    )
    .addOption(
      new Option('--input <path>', 'a safetensors file or a checkpoint folder').conflicts([
        'fromRun',
        'gaussian',
      ]),
    )
    .addOption(
      new Option('--from-run <dir>', 'a run of fathom train --capture').conflicts(['input', 'gaussian']),
    )
    .addOption(
      new Option(
        '--gaussian <sigma>',
        'synthetic values of this standard deviation, and heavy tails (default: 1)',
      )
        .argParser(real(1e-30, 1e30))
        .conflicts(['input', 'fromRun']),
    )
    .option('--seed <n>', 'of synthetic values and stochastic rounding', integer(0), 0)
    .option('--svg <file>', 'write the figure: bits per value against signal to noise');
  runs<CompareFlags>(command, async (session, flags) => {
    const kinds = await compare(session, flags);
    if (flags.svg) await writeFigure(flags.svg, kinds);
    const source = flags.input ?? flags.fromRun ?? 'synthetic';
    return { json: { source, seed: flags.seed, kinds }, text: toText(kinds) };
  });
}

async function compare(session: Session, flags: CompareFlags): Promise<KindReport[]> {
  const { parseScheme } = await import('../numerics/schemes.js');
  const { compareSchemes } = await import('../numerics/compare.js');
  const codec = await fastestCodec();
  const schemes = splitNames(flags.formats).map((name) => parseScheme(name, codec));
  const source = await openSource(flags);
  const progress = session.progress('compare');
  let done = 0;
  const kinds = compareSchemes(source.samples(), schemes, flags.seed, () => {
    progress.update({ done: ++done, total: source.count });
  });
  progress.end();
  return kinds;
}

/** The names of a list, each once. */
function splitNames(list: string): string[] {
  const names = list
    .split(',')
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== '');
  if (names.length === 0) throw new UsageError('--formats names no format; try --formats e4m3,logfmt8');
  return [...new Set(names)];
}

/** The native LogFMT codec where the addon is built; both give the same bits. */
async function fastestCodec() {
  const { loadAddon } = await import('../backend/native/addon.js');
  const { nativeLogFmt } = await import('../backend/native/logfmt.js');
  const { referenceLogFmt } = await import('../numerics/logfmt.js');
  const addon = loadAddon();
  return addon ? nativeLogFmt(addon) : referenceLogFmt;
}

async function openSource({ input, fromRun, gaussian = 1, seed }: CompareFlags): Promise<SampleSource> {
  const { openCapture, openTensors } = await import('../train/capture.js');
  const { syntheticSamples } = await import('../numerics/compare.js');
  if (input !== undefined) return openTensors(input, basename(input));
  if (fromRun !== undefined) return openCapture(fromRun);
  return { count: 2, samples: () => syntheticSamples(gaussian, seed) };
}

function toText(kinds: readonly KindReport[]): string {
  const right = (title: string) => ({ title, align: 'right' as const });
  const columns = [
    { title: 'values' },
    { title: 'format' },
    right('bits/value'),
    right('SQNR'),
    right('largest error'),
    right('bias'),
    right('flushed'),
  ];
  const rows = kinds.flatMap(({ kind, values, formats }) =>
    formats.map((error, i) => [i === 0 ? `${kind} (${count(values)})` : '', ...cells(error)]),
  );
  return table(columns, rows);
}

const cells = ({ format, bitsPerValue, sqnrDb, maxRelativeError, bias, flushed }: FormatError): string[] => [
  format,
  bitsPerValue.toFixed(3),
  sqnrDb === null ? 'exact' : `${sqnrDb.toFixed(2)} dB`,
  percent(maxRelativeError),
  `${bias > 0 ? '+' : ''}${percent(bias)}`,
  percent(flushed),
];

async function writeFigure(file: string, kinds: readonly KindReport[]): Promise<void> {
  const { scatterSvg } = await import('../report/scatter.js');
  const { writeFileAtomicallySync, writeFully } = await import('../files.js');
  const svg = scatterSvg({
    title: 'What number formats keep',
    xLabel: 'bits per value, scales included',
    yLabel: 'signal to quantisation noise, dB',
    series: kinds.map(({ kind, formats }) => ({
      name: kind,
      points: formats.map(({ format, bitsPerValue, sqnrDb }) => ({
        x: bitsPerValue,
        y: sqnrDb ?? Number.POSITIVE_INFINITY,
        label: format,
      })),
    })),
  });
  writeFileAtomicallySync(file, (descriptor) => writeFully(descriptor, Buffer.from(svg), 0));
}
