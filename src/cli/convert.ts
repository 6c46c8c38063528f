import { type Command, Option } from 'commander';
import { UsageError } from '../errors.js';
import type { TensorTypeName } from '../infer/gguf/format.js';
import type { CheckpointType } from '../model/convert.js';
import { bytes as showBytes } from '../report/units.js';
import { type Outcome, runs, type Session } from './session.js';

/** Types of each kind of file. */
const TYPES = {
  gguf: ['f32', 'f16', 'bf16', 'q8_0', 'q4_0'],
  safetensors: ['f32', 'bf16', 'fp8', 'int8', 'q4'],
} as const satisfies Record<string, readonly string[]>;
const ALL_TYPES = [...new Set(Object.values(TYPES).flat())];

interface ConvertFlags {
  to: keyof typeof TYPES;
  dtype: (typeof ALL_TYPES)[number];
  out: string;
  preTokenizer?: string;
}

/** `fathom convert DIR`. */
export function addConvert(program: Command): void {
  const command = program
    .command('convert')
    .description('write a model in another format, for llama.cpp or with narrower weights')
    .argument('<dir>', 'a checkpoint folder with its tokenizer')
    .addOption(
      new Option('--to <format>', 'one GGUF file, or a checkpoint folder')
        .choices(Object.keys(TYPES))
        .makeOptionMandatory(),
    )
    .addOption(
      new Option(
        '--dtype <type>',
        `of the matrices; gguf: ${TYPES.gguf.join(', ')}; safetensors: ${TYPES.safetensors.join(', ')}`,
      )
        .choices(ALL_TYPES)
        .default('bf16'),
    )
    .requiredOption('--out <path>', 'the file or folder to write')
    .option('--pre-tokenizer <name>', "llama.cpp's name of the pre-tokenizer, if it cannot be told");
  runs<ConvertFlags>(command, (session, flags, [folder]) => {
    if (!(TYPES[flags.to] as readonly string[]).includes(flags.dtype)) {
      throw new UsageError(
        `--dtype ${flags.dtype} does not go with --to ${flags.to}: choose ${TYPES[flags.to].join(', ')}`,
      );
    }
    return flags.to === 'gguf' ? toGguf(session, flags, folder!) : toSafetensors(session, flags, folder!);
  });
}

async function toGguf(
  session: Session,
  { dtype, out, preTokenizer }: ConvertFlags,
  folder: string,
): Promise<Outcome> {
  const { statSync } = await import('node:fs');
  const { readCheckpoint } = await import('../model/checkpoint.js');
  const { convertToGguf } = await import('../infer/gguf/convert.js');
  const checkpoint = readCheckpoint(folder);
  const progress = session.progress('convert');
  try {
    const { tensors, notes } = convertToGguf(checkpoint, folder, out, {
      type: dtype as TensorTypeName,
      ...(preTokenizer === undefined ? {} : { preTokenizer }),
      written: (done, total) => progress.update({ done, total }),
    });
    progress.end();
    for (const note of [...checkpoint.notes, ...notes]) session.note(note);
    const { size } = statSync(out);
    return {
      json: { file: out, bytes: size, tensors, notes },
      text: `${out}: ${tensors} tensors, ${showBytes(size)}`,
    };
  } finally {
    checkpoint.close();
  }
}

async function toSafetensors(
  session: Session,
  { dtype, out }: ConvertFlags,
  folder: string,
): Promise<Outcome> {
  const { readCheckpoint } = await import('../model/checkpoint.js');
  const { convertCheckpoint } = await import('../model/convert.js');
  const { selectBackend } = await import('../backend/select.js');
  const checkpoint = readCheckpoint(folder);
  const progress = session.progress('convert');
  try {
    const files = convertCheckpoint(
      checkpoint,
      out,
      dtype as CheckpointType,
      selectBackend('auto'),
      (done, total) => progress.update({ done, total }),
    );
    progress.end();
    for (const note of checkpoint.notes) session.note(note);
    return { json: { folder: out, files }, text: `${out}: ${files.join(', ')}` };
  } finally {
    checkpoint.close();
  }
}
