// Element-wise kernels and copies of columns. Legend: R rows, I inner size.
#include "kernels.h"
#include "row_kernels.h"

namespace fathom {
namespace FATHOM_ISA_NS {

namespace {

/// out = a + b; out may be a or b.
void add(const Span& a, const Span& b, const Span& out) {
  const auto count = static_cast<int64_t>(out.length);
  with_float_type(out, "add", "out", count, [&](auto* sum) {
    using T = std::decay_t<decltype(*sum)>;
    const T* left = a.as<T>("add", "a", count);
    const T* right = b.as<T>("add", "b", count);
    parallel_ranges(count, kTaskElements, [=](int64_t begin, int64_t end) {
      each16(end - begin, [=](int64_t i, auto n) {
        store(sum + begin + i, load(left + begin + i, n) + load(right + begin + i, n), n);
      });
    });
  });
}

/// out = x in out's type.
void cast(const Span& x, const Span& out) {
  const auto count = static_cast<int64_t>(out.length);
  with_float_type(out, "cast", "out", count, [&](auto* to) {
    with_float_type(x, "cast", "x", count, [&](auto* from) {
      parallel_ranges(count, kTaskElements, [=](int64_t begin, int64_t end) {
        each16(end - begin, [=](int64_t i, auto n) { store(to + begin + i, load(from + begin + i, n), n); });
      });
    });
  });
}

template <class T>
void fill_with(const Span& x, T value) {
  T* data = x.as<T>("fill", "x", 0);
  parallel_ranges(static_cast<int64_t>(x.length), kTaskElements, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) data[i] = value;
  });
}

void fill(const Span& x, double value) {
  switch (x.dtype) {
    case DType::f32: return fill_with(x, static_cast<float>(value));
    case DType::bf16: return fill_with(x, to_bf16(static_cast<float>(value)));
    case DType::i32: return fill_with(x, static_cast<int32_t>(value));
    case DType::u8: return fill_with(x, static_cast<uint8_t>(value));
    default: fail("fill", std::string("x is ") + dtype_name(x.dtype) + ", expected f32, bf16, i32 or u8");
  }
}

size_t element_bytes(DType dtype) {
  switch (dtype) {
    case DType::u8: return 1;
    case DType::bf16: return 2;
    case DType::f64: return 8;
    default: return 4;
  }
}

/// Copies [rows, width] elements between a wide matrix [rows, wide_cols] at `column` and a narrow one.
void copy_columns(const Span& wide, int64_t wide_cols, int64_t column, const Span& narrow, int64_t width, bool out,
                  const char* op) {
  const int64_t rows = rows_of(narrow, width, op, "the narrow matrix");
  wide.require(op, "the wide matrix", rows * wide_cols, narrow.dtype);
  if (column < 0 || column + width > wide_cols) {
    fail(op, "columns " + std::to_string(column) + " to " + std::to_string(column + width) + " of " + std::to_string(wide_cols));
  }
  const int64_t bytes = static_cast<int64_t>(element_bytes(narrow.dtype));
  char* inside = static_cast<char*>(wide.data) + column * bytes;
  char* dense = static_cast<char*>(narrow.data);
  parallel_rows(rows, width, [=](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      char* there = inside + t * wide_cols * bytes;
      char* here = dense + t * width * bytes;
      std::memcpy(out ? here : there, out ? there : here, static_cast<size_t>(width * bytes));
    }
  });
}

/// Columns [rows, width] from `column` of x [rows, cols] -> out.
void copy_columns_out(const Span& x, int64_t cols, int64_t column, const Span& out, int64_t width) {
  copy_columns(x, cols, column, out, width, true, "copyColumnsOut");
}

/// x [rows, width] -> columns from `column` of out [rows, cols].
void copy_columns_in(const Span& x, int64_t width, const Span& out, int64_t cols, int64_t column) {
  copy_columns(out, cols, column, x, width, false, "copyColumnsIn");
}

/// gu [R, 2I] = [gate | up] -> h [R, I] = gate · sigmoid(gate) · up.
void swiglu(const Span& gu, const Span& h, int64_t inner) {
  const int64_t rows = rows_of(h, inner, "swiglu", "h");
  with_float_type(h, "swiglu", "h", rows * inner, [&](auto* out) {
    using T = std::decay_t<decltype(*out)>;
    const T* in = gu.as<T>("swiglu", "gu", rows * 2 * inner);
    parallel_rows(rows, inner, [=](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) swiglu_row(in + r * 2 * inner, in + (r * 2 + 1) * inner, inner, out + r * inner);
    });
  });
}

struct SwigluGradient {
  f32x16 gate, up;
};

/// Sixteen elements, of which n exist.
template <class T, class N>
FATHOM_INLINE SwigluGradient swiglu_gradient(const T* dh, const T* gate, const T* up, N n) {
  const f32x16 d = load(dh, n), g = load(gate, n), u = load(up, n), s = sigmoid_for<T>(g);
  return {d * u * s * fma(g, 1.0f - s, broadcast(1.0f)), d * g * s};
}

/// One row of `swiglu_backward`.
template <class T>
void swiglu_backward_row(const T* dh, const T* gate, int64_t inner, T* dgate) {
  constexpr std::integral_constant<int64_t, 16> whole;
  int64_t i = 0;
  for (; i + 32 <= inner; i += 32) {
    const SwigluGradient a = swiglu_gradient(dh + i, gate + i, gate + inner + i, whole);
    const SwigluGradient b = swiglu_gradient(dh + i + 16, gate + i + 16, gate + inner + i + 16, whole);
    store_pair(dgate + i, a.gate, b.gate);
    store_pair(dgate + inner + i, a.up, b.up);
  }
  each16(inner - i, [&](int64_t j, auto n) {
    const SwigluGradient a = swiglu_gradient(dh + i + j, gate + i + j, gate + inner + i + j, n);
    store(dgate + i + j, a.gate, n);
    store(dgate + inner + i + j, a.up, n);
  });
}

/// dgu [R, 2I] = [dh·up·s·(1 + gate·(1 − s)) | dh·gate·s] with s = sigmoid(gate).
void swiglu_backward(const Span& dh, const Span& gu, const Span& dgu, int64_t inner) {
  const int64_t rows = rows_of(dh, inner, "swigluBackward", "dh");
  with_float_type(dh, "swigluBackward", "dh", rows * inner, [&](auto* upstream) {
    using T = std::decay_t<decltype(*upstream)>;
    const T* in = gu.as<T>("swigluBackward", "gu", rows * 2 * inner);
    T* out = dgu.as<T>("swigluBackward", "dgu", rows * 2 * inner);
    parallel_rows(rows, 2 * inner, [=](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* gate = in + r * 2 * inner;
        T* dgate = out + r * 2 * inner;
        swiglu_backward_row(upstream + r * inner, gate, inner, dgate);
      }
    });
  });
}

}  // namespace

void register_elementwise(const Exports& exports) {
  bind(exports, "add", add);
  bind(exports, "cast", cast);
  bind(exports, "fill", fill);
  bind(exports, "copyColumnsOut", copy_columns_out);
  bind(exports, "copyColumnsIn", copy_columns_in);
  bind(exports, "swiglu", swiglu);
  bind(exports, "swigluBackward", swiglu_backward);
}

}  // namespace FATHOM_ISA_NS
}  // namespace fathom
