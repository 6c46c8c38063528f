import { codeRowBytes } from '../backend/stored.js';
import type { Checkpoint } from '../model/checkpoint.js';
import type { StoredMatrix } from '../model/stored-matrix.js';
import { Q4_PANEL } from '../numerics/weights.js';
import { TILE } from '../spec/model.js';
import type { WeightFormat } from '../spec/serving.js';
import type { Backend } from '../tensor/backend.js';
import type { WeightPiece } from '../tensor/inference.js';
import { elementCount } from '../tensor/tensor.js';
import { EncodedWeights } from './encoded-weights.js';
import { MappedFiles } from './mapped-files.js';

/**
 * Weights of a checkpoint: used where they lie in its mapped files when they are stored in the format that is wanted, else read,
 * brought into it and held in memory.
 */
export class CheckpointWeights extends EncodedWeights {
  private readonly files: MappedFiles;
  private readonly names: ReadonlySet<string>;

  constructor(
    private readonly checkpoint: Checkpoint,
    backend: Backend,
    format: WeightFormat,
    config = checkpoint.config,
  ) {
    super(config, backend, format);
    this.files = new MappedFiles(backend, checkpoint.stored.values());
    this.names = new Set(checkpoint.parameters.map(({ name }) => name));
  }

  has(name: string): boolean {
    return this.names.has(name);
  }

  protected values(name: string, begin: number, count: number): Float32Array {
    const values = new Float32Array(count);
    this.checkpoint.readRange(name, begin, values);
    return values;
  }

  /** Tensor by tensor, each where it lies if that is possible. */
  protected override pieces(name: string, format: WeightFormat, from: number, count: number): WeightPiece[] {
    const k = this.columns(name);
    const pieces: WeightPiece[] = [];
    let start = 0;
    for (const matrix of this.checkpoint.matrices(name)) {
      const rows = elementCount(matrix.piece.shape) / k;
      const first = Math.max(from - start, 0);
      const last = Math.min(from + count - start, rows);
      if (first < last) {
        const encoded = () => super.pieces(name, format, start + first, last - first);
        pieces.push(...(this.inPlace(matrix, format, k, first, last) ?? encoded()));
      }
      start += rows;
    }
    return pieces;
  }

  /** Rows first..last of a tensor where they lie, undefined when they cannot be used so. */
  private inPlace(
    matrix: StoredMatrix,
    format: WeightFormat,
    k: number,
    first: number,
    last: number,
  ): [WeightPiece] | undefined {
    const { encoding, codes, scales } = matrix;
    if ((encoding === 'plain' ? PLAIN[codes.dtype] : encoding) !== format) return undefined;
    const rowBytes = codeRowBytes(format, k);
    const grain = format === 'q4' ? Q4_PANEL.rows : 1;
    const bytes = this.files.bytes(codes);
    const end = Math.ceil(last / grain);
    if (first % grain !== 0 || (last % grain !== 0 && end * rowBytes !== bytes.length)) return undefined;
    const rows = last - first;
    const own = bytes.subarray((first / grain) * rowBytes, end * rowBytes);
    if (format === 'fp8') {
      return hasUsualBlocks(matrix)
        ? [{ rows, first, codes: own, scales: this.files.bytes(scales!) }]
        : undefined;
    }
    if (format !== 'int8') return [{ rows, first: 0, codes: own }];
    const scaleBytes = 4 * Math.ceil(k / TILE);
    return [
      {
        rows,
        first: 0,
        codes: own,
        scales: this.files.bytes(scales!).subarray(first * scaleBytes, last * scaleBytes),
      },
    ];
  }
}

/** Formats of plain types. */
const PLAIN: Partial<Record<string, WeightFormat>> = { F32: 'fp32', BF16: 'bf16' };

const hasUsualBlocks = ({ block, codes, scales }: StoredMatrix): boolean =>
  block[0] === TILE && block[1] === TILE && codes.dtype === 'F8_E4M3' && scales!.dtype === 'F32';

/** The format that a checkpoint is stored in: what it is opened in where nothing else is asked for. */
export function storedFormat({ config, stored }: Checkpoint): WeightFormat {
  if (config.quantization) return config.quantization.method;
  return stored.get('model.embed_tokens.weight')?.dtype === 'F32' ? 'fp32' : 'bf16';
}
