import { WEIGHT_FORMATS } from '../../spec/serving.js';
import type { InferenceOps } from '../../tensor/inference.js';
import { describeWeight } from '../stored.js';
import type { Addon, Kernels } from './addon.js';

/** Mapped files and stored weights on the addon. */
export function inferenceOps(addon: Addon, kernels: Kernels): InferenceOps {
  return {
    mapFile: (path, position, bytes) => addon.mapFile(path, position, bytes),
    residentBytes: (bytes) => addon.residentBytes(bytes),
    forgetPages: (bytes) => addon.forgetPages(bytes),
    storeWeight: (format, k, groups) => {
      const described = describeWeight(format, k, groups);
      const pieces = groups.flat();
      const starts = groups.map((_, g) => groups.slice(0, g).reduce((sum, { length }) => sum + length, 0));
      const handle = addon.storeWeight(
        WEIGHT_FORMATS.indexOf(format),
        described.n,
        k,
        [...starts, pieces.length],
        pieces.map(({ rows }) => rows),
        pieces.map(({ first }) => first),
        pieces.map(({ codes }) => codes),
        pieces.map(({ scales }) => scales),
      );
      return { ...described, handle };
    },
    project: (x, w, y, { offsets, accumulate = false } = {}) =>
      kernels.project(w.handle, x.data, x.rows, y.data, offsets?.data, accumulate),
  };
}
