// Stored weights and mapped files as JavaScript holds them: memory alone, no kernels.
//
//   mapFile(path, position, bytes) -> ArrayBuffer over the file's bytes, read-only in effect: private pages, read when touched
//   residentBytes(buffer) -> of a mapped buffer, the bytes that are in memory now; of any other, all
//   forgetPages(buffer, offset, bytes): the pages of a mapped buffer may leave the process; touching them reads them again
//   storeWeight(format, N, K, starts, rows, firsts, codes, scales) -> handle of a StoredWeight. The caller keeps the memory
//     of codes and scales alive as long as the handle
#define FATHOM_ISA_NS base
#include "bind.h"
#include "stored_weight.h"

#include <algorithm>
#include <memory>

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#endif

namespace fathom {

namespace {

constexpr int64_t kBlockSize = 128;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Bytes that a piece of `rows` rows must have: of its codes, and of its scales.
struct PieceBytes {
  int64_t codes, scales;
};

PieceBytes bytes_of(const StoredWeight& w, int64_t rows, int64_t first) {
  const int64_t across = ceil_div(w.k, kBlockSize);
  switch (w.format) {
    case WeightFormat::fp8: return {rows * w.k, ceil_div(first + rows, kBlockSize) * across * 4};
    case WeightFormat::int8: return {rows * w.k, rows * across * 4};
    case WeightFormat::q4: return {ceil_div(rows, kRowGrain) * w.row_bytes(), 0};
    default: return {rows * w.row_bytes(), 0};
  }
}

/// Arguments of storeWeight beside format and sizes: one of each for a piece.
struct PieceLists {
  std::vector<int64_t> starts, rows, firsts;
  std::vector<Span> codes, scales;
};

void add_piece(StoredWeight& w, const PieceLists& from, size_t i, int64_t& row) {
  constexpr const char* op = "storeWeight";
  const int64_t rows = from.rows[i], first = from.firsts[i];
  if (rows < 1 || first < 0) fail(op, "piece " + std::to_string(i) + " has " + std::to_string(rows) + " rows from " + std::to_string(first));
  const PieceBytes bytes = bytes_of(w, rows, first);
  const auto* codes = from.codes[i].as<uint8_t>(op, "codes", bytes.codes);
  const auto* scales = bytes.scales > 0 ? from.scales[i].as<uint8_t>(op, "scales", bytes.scales) : nullptr;
  w.pieces.push_back({codes, scales, row, row + rows, first});
  row += rows;
}

StoredWeight* make_weight(int format, int64_t n, int64_t k, const PieceLists& from) {
  constexpr const char* op = "storeWeight";
  if (format < 0 || format > static_cast<int>(WeightFormat::q4)) fail(op, "unknown format code " + std::to_string(format));
  if (n < 1 || k < 1) fail(op, "bad size " + std::to_string(n) + " x " + std::to_string(k));
  const size_t pieces = from.rows.size();
  if (from.starts.size() < 2 || from.firsts.size() != pieces || from.codes.size() != pieces || from.scales.size() != pieces) {
    fail(op, "lists of pieces differ in length");
  }
  auto w = std::make_unique<StoredWeight>();
  w->format = static_cast<WeightFormat>(format);
  w->groups = static_cast<int64_t>(from.starts.size()) - 1;
  w->n = n;
  w->k = k;
  w->starts = from.starts;
  for (int64_t g = 0; g < w->groups; ++g) {
    int64_t row = 0;
    for (int64_t i = from.starts[g]; i < from.starts[g + 1] && i < static_cast<int64_t>(pieces); ++i) add_piece(*w, from, i, row);
    if (row != n) fail(op, "group " + std::to_string(g) + " has " + std::to_string(row) + " rows, not " + std::to_string(n));
  }
  if (w->pieces.size() != pieces) fail(op, "starts do not cover the pieces in order");
  return w.release();
}

napi_value store_weight(napi_env env, napi_callback_info info) {
  try {
    napi_value value[8], result;
    call_info(env, info, 8, value);
    int format = 0;
    int64_t n = 0, k = 0;
    PieceLists lists;
    const auto argument = [&](int i) { return Argument{env, value[i], "storeWeight", i}; };
    read_argument(argument(0), format);
    read_argument(argument(1), n);
    read_argument(argument(2), k);
    read_argument(argument(3), lists.starts);
    read_argument(argument(4), lists.rows);
    read_argument(argument(5), lists.firsts);
    read_argument(argument(6), lists.codes);
    read_argument(argument(7), lists.scales);
    auto* weight = make_weight(format, n, k, lists);
    napi_create_external(env, weight, [](napi_env, void* data, void*) { delete static_cast<StoredWeight*>(data); }, nullptr, &result);
    return result;
  } catch (...) {
    rethrow_to_js(env);
    return nullptr;
  }
}

// ---- Files ---------------------------------------------------------------------------------------------------

#if !defined(_WIN32)

int64_t page_size() {
  static const int64_t size = sysconf(_SC_PAGESIZE);
  return size;
}

/// A mapping, from the page in which the wanted bytes begin.
struct Mapping {
  void* base;
  size_t bytes;
};

void unmap(napi_env, void*, void* hint) {
  auto* mapping = static_cast<Mapping*>(hint);
  munmap(mapping->base, mapping->bytes);
  delete mapping;
}

[[noreturn]] void fail_file(const std::string& path) { fail("mapFile", path + ": " + std::strerror(errno)); }

/// Maps bytes [position, position + bytes) of a file; `inside` receives their offset in the mapping.
Mapping map_range(const std::string& path, int64_t position, int64_t bytes, int64_t& inside) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail_file(path);
  struct stat status {};
  const bool known = fstat(file, &status) == 0;
  inside = position % page_size();
  void* base = MAP_FAILED;
  if (known && position + bytes <= status.st_size) {
    // Writable, so that no JavaScript can crash the process; private, so that the file stays as it is.
    base = mmap(nullptr, static_cast<size_t>(bytes + inside), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file, position - inside);
  }
  close(file);
  if (known && position + bytes > status.st_size) {
    fail("mapFile", path + " has " + std::to_string(status.st_size) + " bytes, not the " + std::to_string(position + bytes) + " that were asked for");
  }
  if (base == MAP_FAILED) fail_file(path);
  return {base, static_cast<size_t>(bytes + inside)};
}

napi_value map_file(napi_env env, napi_callback_info info) {
  try {
    napi_value value[3], result;
    call_info(env, info, 3, value);
    std::string path;
    int64_t position = 0, bytes = 0, inside = 0;
    read_argument({env, value[0], "mapFile", 0}, path);
    read_argument({env, value[1], "mapFile", 1}, position);
    read_argument({env, value[2], "mapFile", 2}, bytes);
    if (position < 0 || bytes < 1) fail("mapFile", "bad range " + std::to_string(position) + ", " + std::to_string(bytes));
    auto* mapping = new Mapping(map_range(path, position, bytes, inside));
    char* data = static_cast<char*>(mapping->base) + inside;
    if (napi_create_external_arraybuffer(env, data, static_cast<size_t>(bytes), unmap, mapping, &result) != napi_ok) {
      unmap(env, nullptr, mapping);
      fail("mapFile", "the JavaScript engine refused a buffer of " + std::to_string(bytes) + " bytes");
    }
    // The system gives these bytes back as it pleases: they are no reason to collect garbage.
    int64_t counted = 0;
    napi_adjust_external_memory(env, -bytes, &counted);
    return result;
  } catch (...) {
    rethrow_to_js(env);
    return nullptr;
  }
}

/// The whole pages that a span touches.
Mapping pages_of(const Span& span) {
  const auto begin = reinterpret_cast<uintptr_t>(span.data) / page_size() * page_size();
  const auto end = ceil_div(static_cast<int64_t>(reinterpret_cast<uintptr_t>(span.data) + span.length), page_size()) * page_size();
  return {reinterpret_cast<void*>(begin), static_cast<size_t>(end) - begin};
}

double resident_bytes(Span bytes) {
  bytes.require("residentBytes", "bytes", 0, DType::u8);
  if (bytes.length == 0) return 0;
  const Mapping pages = pages_of(bytes);
#if defined(__APPLE__)
  std::vector<char> in_memory(pages.bytes / page_size());
#else
  std::vector<unsigned char> in_memory(pages.bytes / page_size());
#endif
  if (mincore(pages.base, pages.bytes, in_memory.data()) != 0) return static_cast<double>(bytes.length);
  int64_t count = 0;
  for (const auto page : in_memory) count += page & 1;
  return std::min(static_cast<double>(bytes.length), static_cast<double>(count * page_size()));
}

/// Only whole pages, as neighbours may still be in use.
void forget_pages(Span bytes) {
  bytes.require("forgetPages", "bytes", 0, DType::u8);
  const Mapping pages = pages_of(bytes);
  const size_t edge = static_cast<size_t>(page_size());
  if (pages.bytes <= 2 * edge) return;
  madvise(static_cast<char*>(pages.base) + edge, pages.bytes - 2 * edge, MADV_DONTNEED);
}

#endif

}  // namespace

void register_weights(const Exports& exports) {
  add_function(exports, "storeWeight", store_weight, nullptr);
#if !defined(_WIN32)
  add_function(exports, "mapFile", map_file, nullptr);
  base::bind(exports, "residentBytes", resident_bytes);
  base::bind(exports, "forgetPages", forget_pages);
#endif
}

}  // namespace fathom
