import type { Tensor } from '../../tensor/tensor.js';
import { commit, dot, read, target } from './values.js';

/**
 * RMSNorm [arXiv 1910.07467]: y = x · r · weight with r = 1/√(mean(x²) + eps) per row.
 * x, y [T, D], weight [D], inverseRms [T] = r.
 */
export function rmsNorm(x: Tensor, weight: Tensor, eps: number, y: Tensor, inverseRms: Tensor): void {
  const input = read(x);
  const gain = read(weight);
  const output = target(y);
  const r = read(inverseRms);
  const width = x.cols; // D
  for (let t = 0; t < x.rows; t++) {
    const row = t * width;
    const inverse = 1 / Math.sqrt(dot(input, row, input, row, width) / width + eps);
    for (let i = 0; i < width; i++) output[row + i] = input[row + i]! * inverse * gain[i]!;
    r[t] = inverse;
  }
  commit(y, output);
}

/**
 * With x̂ = x·r and g = dy·weight: dx = r·(g − x̂·mean(g·x̂)), dweight += Σ_t dy·x̂.
 * dy, x, dx [T, D], weight, dweight [D], inverseRms [T] = r.
 */
export function rmsNormBackward(
  dy: Tensor,
  x: Tensor,
  weight: Tensor,
  inverseRms: Tensor,
  dx: Tensor,
  dweight: Tensor,
): void {
  const upstream = read(dy);
  const input = read(x);
  const gain = read(weight);
  const r = read(inverseRms);
  const output = target(dx);
  const width = x.cols; // D
  const gainSum = new Float64Array(width);
  for (let t = 0; t < x.rows; t++) {
    const row = t * width;
    const inverse = r[t]!;
    let projection = 0;
    for (let i = 0; i < width; i++) {
      const dyHat = upstream[row + i]! * input[row + i]! * inverse;
      gainSum[i]! += dyHat;
      projection += dyHat * gain[i]!;
    }
    const mean = projection / width;
    for (let i = 0; i < width; i++) {
      output[row + i] = inverse * (upstream[row + i]! * gain[i]! - input[row + i]! * inverse * mean);
    }
  }
  const total = read(dweight);
  for (let i = 0; i < width; i++) total[i]! += gainSum[i]!;
  commit(dx, output);
}
