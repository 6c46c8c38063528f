// Plain data types that every translation unit and every instruction-set level shares.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#define FATHOM_INLINE inline __attribute__((always_inline))

namespace fathom {

/// A bfloat16 in memory: the upper 16 bits of an IEEE binary32.
struct bf16 {
  uint16_t bits;
};

enum class DType : int { none, f32, bf16, u8, i32, f64 };

inline const char* dtype_name(DType dtype) {
  static const char* names[] = {"nothing", "f32", "bf16", "u8", "i32", "f64"};
  return names[static_cast<int>(dtype)];
}

template <class T>
struct dtype_of;
template <>
struct dtype_of<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct dtype_of<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct dtype_of<uint8_t> {
  static constexpr DType value = DType::u8;
};
template <>
struct dtype_of<int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct dtype_of<double> {
  static constexpr DType value = DType::f64;
};

/// What a JavaScript typed array looks like from C++; `length` counts elements. null and undefined give an
/// empty Span (`if (!span)`).
struct Span {
  void* data = nullptr;
  size_t length = 0;
  DType dtype = DType::none;

  explicit operator bool() const { return dtype != DType::none; }

  /// The data as T, after checking that it has T's dtype and at least `needed` elements.
  /// @throws std::invalid_argument naming the op, the argument and both numbers
  template <class T>
  T* as(const char* op, const char* name, int64_t needed) const {
    require(op, name, needed, dtype_of<T>::value);
    return static_cast<T*>(data);
  }

  /// As `as`, but an absent array gives nullptr.
  template <class T>
  T* optional(const char* op, const char* name, int64_t needed) const {
    return *this ? as<T>(op, name, needed) : nullptr;
  }

  /// Checks length and, unless `wanted` is none, dtype.
  void require(const char* op, const char* name, int64_t needed, DType wanted = DType::none) const;
};

/// Throws `op: message` as a JavaScript Error.
[[noreturn]] void fail(const char* op, const std::string& message);

/// Calls `body(T*)` with T = float or bf16, as the Span holds; checks the length first.
template <class Body>
auto with_float_type(const Span& span, const char* op, const char* name, int64_t needed, Body&& body) {
  if (span.dtype == DType::bf16) return body(span.as<bf16>(op, name, needed));
  return body(span.as<float>(op, name, needed));
}

}  // namespace fathom
