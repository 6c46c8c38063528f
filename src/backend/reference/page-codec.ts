import { decodeBf16, encodeBf16, roundBf16 } from '../../numerics/bf16.js';
import { decodeLogFmt, encodeLogFmt, LOGFMT_HEADER_BYTES, logFmtBytes } from '../../numerics/logfmt.js';
import { E4M3 } from '../../numerics/minifloat.js';
import { absMaxOf, scaleOf } from '../../numerics/tiles.js';
import {
  FP8_EXPONENTS,
  LATENT_TILE,
  type LatentPages,
  PAGE_TOKENS,
  type PageLayout,
  pageLayout,
} from '../../tensor/latent-pages.js';
import type { Values } from './values.js';

/** The slots of a layer as numbers; `tensor/latent-pages.ts` describes formats and layout. */
export class PageCodec {
  private readonly layout: PageLayout;
  private readonly bytes: Uint8Array;
  private readonly view: DataView;

  constructor(private readonly pages: LatentPages) {
    this.layout = pageLayout(pages);
    this.bytes = pages.data.data as Uint8Array;
    this.view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
  }

  /** c [d_c] → slot. */
  write(slot: number, c: Values): void {
    const { format } = this.pages;
    const at = this.latentAt(slot);
    if (format === 'fp32' || format === 'bf16') this.writeNumbers(at, c);
    else if (format === 'fp8')
      this.eachTile(slot, (from, to, e) => this.writeFp8(c.subarray(from, to), at + from, e));
    else this.eachTile(slot, (from, to, header) => this.writeLogFmt(c.subarray(from, to), at + from, header));
  }

  /** slot → c [d_c]. */
  read(slot: number): Float32Array {
    const { format, latent } = this.pages;
    const at = this.latentAt(slot);
    if (format === 'fp32' || format === 'bf16') return this.readNumbers(at, latent);
    const c = new Float32Array(latent);
    const readTile = format === 'fp8' ? this.readFp8 : this.readLogFmt;
    this.eachTile(slot, (from, to, scale) => readTile.call(this, at + from, scale, c.subarray(from, to)));
    return c;
  }

  /** slot → c [d_c] as attention multiplies it: rounded to BF16 where a format holds other values. */
  key(slot: number): Float32Array {
    const c = this.read(slot);
    return this.pages.format === 'logfmt8' ? c.map(roundBf16) : c;
  }

  /** k [d_h^R] → slot. */
  writeRope(slot: number, k: Values): void {
    this.writeNumbers(this.ropeAt(slot), k);
  }

  /** slot → k [d_h^R]. */
  readRope(slot: number): Float32Array {
    return this.readNumbers(this.ropeAt(slot), this.pages.rope);
  }

  /** FP32 in a cache of that format, else BF16. */
  private writeNumbers(at: number, values: Values): void {
    values.forEach((x, i) => {
      if (this.pages.format === 'fp32') this.view.setFloat32(at + 4 * i, x, true);
      else this.view.setUint16(at + 2 * i, encodeBf16(x), true);
    });
  }

  private readNumbers(at: number, count: number): Float32Array {
    const wide = this.pages.format === 'fp32';
    return new Float32Array(count).map((_, i) =>
      wide ? this.view.getFloat32(at + 4 * i, true) : decodeBf16(this.view.getUint16(at + 2 * i, true)),
    );
  }

  private writeFp8(c: Values, at: number, scaleAt: number): void {
    const scale = scaleOf(absMaxOf(c, 0, 1, c.length), E4M3.maxFinite, 'pow2');
    const { least, most } = FP8_EXPONENTS;
    const exponent = Number.isNaN(scale) ? most + 1 : Math.min(Math.max(Math.log2(scale), least), most);
    this.bytes[scaleAt] = exponent + 127;
    for (let i = 0; i < c.length; i++) {
      this.bytes[at + i] = Number.isNaN(scale) ? 0x7f : E4M3.encode(c[i]! / 2 ** exponent);
    }
  }

  private readFp8(at: number, scaleAt: number, out: Float32Array): void {
    const scale = 2 ** (this.bytes[scaleAt]! - 127);
    for (let i = 0; i < out.length; i++) out[i] = E4M3.decode(this.bytes[at + i]!) * scale;
  }

  /** The wire form of `numerics/logfmt.ts`, with the header apart. */
  private writeLogFmt(c: Values, at: number, header: number): void {
    if (!c.every((x) => Number.isFinite(x))) {
      this.view.setFloat32(header, Number.NaN, true);
      this.view.setFloat32(header + 4, 0, true);
      this.bytes.fill(1, at, at + c.length);
      return;
    }
    const wire = encodeLogFmt(c, c.length, 8);
    this.bytes.set(wire.subarray(0, LOGFMT_HEADER_BYTES), header);
    this.bytes.set(wire.subarray(LOGFMT_HEADER_BYTES), at);
  }

  private readLogFmt(at: number, header: number, out: Float32Array): void {
    if (Number.isNaN(this.view.getFloat32(header, true))) {
      out.fill(Number.NaN);
      return;
    }
    const wire = new Uint8Array(logFmtBytes(1, out.length, 8));
    wire.set(this.bytes.subarray(header, header + LOGFMT_HEADER_BYTES));
    wire.set(this.bytes.subarray(at, at + out.length), LOGFMT_HEADER_BYTES);
    decodeLogFmt(wire, out.length, 8, out);
  }

  /** Calls `visit` with the columns from..to of each tile and where its scale lies. */
  private eachTile(slot: number, visit: (from: number, to: number, scale: number) => void): void {
    const { tiles, scales } = this.layout;
    const size = this.pages.format === 'fp8' ? 1 : LOGFMT_HEADER_BYTES;
    const start = this.pageAt(slot) + scales + (slot % PAGE_TOKENS) * tiles * size;
    for (let tile = 0; tile < tiles; tile++) {
      const from = tile * LATENT_TILE;
      visit(from, Math.min(from + LATENT_TILE, this.pages.latent), start + tile * size);
    }
  }

  private pageAt(slot: number): number {
    return Math.floor(slot / PAGE_TOKENS) * this.layout.bytes;
  }

  private latentAt(slot: number): number {
    return this.pageAt(slot) + (slot % PAGE_TOKENS) * (this.layout.scales / PAGE_TOKENS);
  }

  private ropeAt(slot: number): number {
    const { kRope, bytes } = this.layout;
    return this.pageAt(slot) + kRope + (slot % PAGE_TOKENS) * ((bytes - kRope) / PAGE_TOKENS);
  }
}
