/**
 * How a published tensor is stored, and reading it as f32. `X.weight` [R, K] may be
 *
 * | encoding | `X.weight`                                | beside it                                                                 |
 * | -------- | ----------------------------------------- | ------------------------------------------------------------------------- |
 * | plain    | F32, F16, BF16, F64 [R, K]                |                                                                           |
 * | fp8      | F8_E4M3 [R, K]                            | `X.weight_scale_inv` F32 per 128×128 block [README_WEIGHTS of DeepSeek-V3] |
 * | int8     | I8 [R, K]                                 | `X.weight_scale` F32 [R, ceil(K/128)]                                      |
 * | q4       | U8 [ceil(R/16), ceil(K/64), 576], panels  | scales are in the panels                                                  |
 *
 * int8 and q4 are fathom's own (`fathom convert`): codes and scales as its kernels read them (tensor/inference.ts), so that a
 * mapped file is used in place. Only a checkpoint whose config.json says so has them: `quantization_config` with
 * `quant_method` "fathom" and `weight_format`.
 */
import { UserError } from '../errors.js';
import { decodeQ4Row, INT8_TILE, Q4_PANEL, Q4_TILE } from '../numerics/weights.js';
import { type Quantization, TILE } from '../spec/model.js';
import { elementCount } from '../tensor/tensor.js';
import type { HuggingFacePiece } from './parameters.js';
import { isFloating, type SafetensorsReader, type StoredTensor, type StoredType } from './safetensors.js';

/** A published tensor where it lies. */
export interface StoredMatrix {
  readonly piece: HuggingFacePiece;
  readonly encoding: 'plain' | 'fp8' | 'int8' | 'q4';
  readonly codes: StoredTensor;
  readonly scales: StoredTensor | undefined;
  /** Rows and columns of an fp8 block. */
  readonly block: readonly [number, number];
}

const DEFAULT_BLOCK = [TILE, TILE] as const;

/** Finds and checks what `piece` is stored as. @throws UserError naming file, tensor and what does not fit */
export function findMatrix(
  piece: HuggingFacePiece,
  reader: SafetensorsReader,
  quantization: Quantization | null,
): StoredMatrix {
  const codes = reader.entry(piece.name);
  const encoding = encodingOf(codes, quantization);
  checkShape(codes, encoding === 'q4' ? panelShape(piece.shape) : piece.shape);
  const block = quantization?.method === 'fp8' ? quantization.weight_block_size : DEFAULT_BLOCK;
  const scales =
    encoding === 'fp8' || encoding === 'int8' ? findScales(codes, encoding, block, reader) : undefined;
  return { piece, encoding, codes, scales, block };
}

function encodingOf(
  { dtype, name, file }: StoredTensor,
  quantization: Quantization | null,
): StoredMatrix['encoding'] {
  if (dtype.startsWith('F8_')) return 'fp8';
  if (isFloating(dtype)) return 'plain';
  if (dtype === 'I8' && quantization?.method === 'int8') return 'int8';
  if (dtype === 'U8' && quantization?.method === 'q4') return 'q4';
  throw new UserError(
    `${file}: tensor ${name} has type ${dtype}; weights must be F32, F16, BF16 or FP8, or what fathom convert writes as ` +
      'int8 or q4 with its config.json',
  );
}

/** Shape of the panels of a matrix [R, K]. */
export const panelShape = ([rows = 0, columns = 0]: readonly number[]): number[] => [
  Math.ceil(rows / Q4_PANEL.rows),
  Math.ceil(columns / Q4_PANEL.columns),
  Q4_PANEL.bytes,
];

function checkShape({ file, name, shape }: StoredTensor, expected: readonly number[]): void {
  if (shape.length === expected.length && shape.every((d, i) => d === expected[i])) return;
  throw new UserError(
    `${file}: tensor ${name} has shape [${shape}] but config.json makes it [${expected}]; ` +
      'weights and config.json belong to different models',
  );
}

function findScales(
  { name, dtype, file, shape }: StoredTensor,
  encoding: 'fp8' | 'int8',
  [height, width]: readonly [number, number],
  reader: SafetensorsReader,
): StoredTensor {
  const scaleName = encoding === 'fp8' ? `${name}_scale_inv` : `${name}_scale`;
  const scales = reader.tensors.get(scaleName);
  if (!scales || shape.length !== 2) {
    throw new UserError(
      `${file}: tensor ${name} has type ${dtype} but there is no ${scaleName} for it; ` +
        'only FP8 weights with block scales, as DeepSeek publishes them, and int8 weights of fathom convert can be read',
    );
  }
  const [rows, columns] = shape as [number, number];
  const expected = encoding === 'fp8' ? [rows / height, columns / width] : [rows, columns / INT8_TILE];
  checkScales(scales, expected.map(Math.ceil), encoding === 'fp8' ? [height, width] : [1, INT8_TILE]);
  return scales;
}

function checkScales(
  scales: StoredTensor,
  expected: readonly number[],
  [height, width]: readonly number[],
): void {
  const fits = scales.shape.length === 2 && scales.shape.every((d, i) => d === expected[i]);
  if (fits && isFloating(scales.dtype)) return;
  throw new UserError(
    `${scales.file}: tensor ${scales.name} is ${scales.dtype} [${scales.shape}], expected F32 [${expected}] for blocks ` +
      `of ${height}x${width}; check quantization_config in config.json`,
  );
}

/**
 * Elements of a matrix from element `from` on, as f32, until `out` is full. Scaled ones are decoded whole, which is one
 * expert's matrix at most; others only as far as asked.
 */
export function readMatrix(
  reader: SafetensorsReader,
  matrix: StoredMatrix,
  out: Float32Array<ArrayBuffer>,
  from = 0,
): void {
  if (matrix.encoding === 'plain') {
    reader.readFloats(matrix.codes.name, out, from);
    return;
  }
  const size = elementCount(matrix.piece.shape);
  const whole = out.length === size ? out : new Float32Array(size);
  decodeMatrix(reader, matrix, whole);
  if (whole !== out) out.set(whole.subarray(from, from + out.length));
}

function decodeMatrix(
  reader: SafetensorsReader,
  { encoding, codes, scales, piece, block }: StoredMatrix,
  out: Float32Array<ArrayBuffer>,
): void {
  const [, columns] = piece.shape as [number, number];
  if (encoding === 'fp8') {
    reader.readFloats(codes.name, out);
    multiplyBlocks(out, columns, reader.readFloats(scales!.name), block);
  } else if (encoding === 'int8') {
    out.set(new Int8Array(reader.read(codes.name).buffer));
    multiplyBlocks(out, columns, reader.readFloats(scales!.name), [1, INT8_TILE]);
  } else {
    decodePanels(reader.read(codes.name), columns, out);
  }
}

function decodePanels(panels: Uint8Array, columns: number, out: Float32Array): void {
  for (let row = 0; row * columns < out.length; row++) {
    const { codes, scales } = decodeQ4Row(panels, row, columns);
    for (let c = 0; c < columns; c++) out[row * columns + c] = codes[c]! * scales[Math.floor(c / Q4_TILE)]!;
  }
}

/** Multiplies each block of a matrix by its scale; blocks at the border are cut off. */
function multiplyBlocks(
  matrix: Float32Array,
  columns: number,
  scales: Float32Array,
  [height, width]: readonly [number, number],
): void {
  const across = Math.ceil(columns / width);
  for (let r = 0; r * columns < matrix.length; r++) {
    const scaleRow = Math.floor(r / height) * across;
    for (let c = 0; c < columns; c++) matrix[r * columns + c]! *= scales[scaleRow + Math.floor(c / width)]!;
  }
}

/** Type of a tensor's codes in fathom's own encodings. */
export const CODE_TYPES = { int8: 'I8', q4: 'U8' } as const satisfies Record<string, StoredType>;
