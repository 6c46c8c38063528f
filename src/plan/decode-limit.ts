/** The least time per output token that communication leaves to expert parallelism [ISCA §2.3.2]. */

export interface DecodeLimitInput {
  /** Tokens that a device decodes in one step. */
  tokensPerDevice: number;
  /** Devices that a token goes to: routed experts and the shared one, one expert a device. */
  destinations: number;
  hiddenSize: number;
  dispatchBytesPerValue: number;
  combineBytesPerValue: number;
  bytesPerSecond: number;
  layers: number;
  /** Micro-batches that share a device, one computing while the other communicates. */
  microBatches: number;
}

export interface DecodeLimit {
  /** Dispatch and combine of one micro-batch. */
  exchangeSeconds: number;
  layerSeconds: number;
  /** Time per output token. */
  tokenSeconds: number;
  tokensPerSecond: number;
}

/** What the paper puts in: hidden "about 7K", FP8 to the experts and BF16 back, a NIC of 400 Gb/s. */
export const ISCA_DECODE: DecodeLimitInput = {
  tokensPerDevice: 32,
  destinations: 9,
  hiddenSize: 7000,
  dispatchBytesPerValue: 1,
  combineBytesPerValue: 2,
  bytesPerSecond: 50e9,
  layers: 61,
  microBatches: 2,
};

/** GB200 NVL72: 900 GB/s one way [ISCA §2.3.2]. */
export const NVL72_BYTES_PER_SECOND = 900e9;

/** Time for the exchange alone: no latency, no computation that is not hidden behind it. */
export function decodeLimit(input: DecodeLimitInput): DecodeLimit {
  const bytesPerValue = input.dispatchBytesPerValue + input.combineBytesPerValue;
  const bytes = input.tokensPerDevice * input.destinations * input.hiddenSize * bytesPerValue;
  const exchangeSeconds = bytes / input.bytesPerSecond;
  const layerSeconds = input.microBatches * exchangeSeconds;
  const tokenSeconds = input.layers * layerSeconds;
  return { exchangeSeconds, layerSeconds, tokenSeconds, tokensPerSecond: 1 / tokenSeconds };
}
