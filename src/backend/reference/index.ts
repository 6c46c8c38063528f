import type { Backend } from '../../tensor/backend.js';
import { attention, attentionBackward } from './attention.js';
import { add, cast, copyColumnsIn, copyColumnsOut, fill, swiglu, swigluBackward } from './elementwise.js';
import { latentAttention, latentRead, latentWrite } from './latents.js';
import { gemm, gemmWgrad } from './linear.js';
import { crossEntropy, embedding, embeddingBackward } from './loss.js';
import { dispatchPlan, permute, route, routeBackward, unpermute, unpermuteBackward } from './moe.js';
import { rmsNorm, rmsNormBackward } from './norm.js';
import { adamw, sumOfSquares } from './optimizer.js';
import { dequantize, packedSizes, packWeight, quantize } from './quantize.js';
import { rope } from './rope.js';
import { argmax, softmaxWeights } from './sampling.js';
import {
  encodeWeight,
  forgetPages,
  mapFile,
  project,
  readRows,
  residentBytes,
  storeWeight,
} from './stored.js';
import { throughWire } from './wire.js';

/**
 * The reference backend: every op in plain TypeScript, computed in double precision and rounded when stored. It
 * defines what the ops mean, takes f64 tensors too, and is what runs where the native addon is not built.
 */
export const referenceBackend: Backend = {
  name: 'reference',
  allocate: (bytes) => new ArrayBuffer(bytes),

  quantize,
  dequantize,
  packedSizes,
  packWeight,
  gemm,
  gemmWgrad,

  add,
  cast,
  fill,
  copyColumnsOut,
  copyColumnsIn,
  rmsNorm,
  rmsNormBackward,
  rope,
  swiglu,
  swigluBackward,

  attention,
  attentionBackward,
  latentWrite,
  latentRead,
  latentAttention,

  route,
  routeBackward,
  dispatchPlan,
  permute,
  throughWire,
  unpermute,
  unpermuteBackward,

  embedding,
  embeddingBackward,
  crossEntropy,
  argmax,
  softmaxWeights,
  sumOfSquares,
  adamw,

  encodeWeight,
  mapFile,
  residentBytes,
  forgetPages,
  storeWeight,
  project,
  readRows,
};
