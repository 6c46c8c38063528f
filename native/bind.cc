#define FATHOM_ISA_NS unused  // bind.h's glue is not used here
#include "bind.h"

#include <cmath>
#include <exception>

namespace fathom {

namespace {

[[noreturn]] void wrong_type(const Argument& from, const char* wanted) {
  fail(from.op, "argument " + std::to_string(from.position + 1) + " must be " + wanted);
}

bool is_absent(const Argument& from) {
  napi_valuetype type;
  napi_typeof(from.env, from.value, &type);
  return type == napi_undefined || type == napi_null;
}

DType dtype_of_array(const Argument& from, napi_typedarray_type type) {
  switch (type) {
    case napi_float32_array: return DType::f32;
    case napi_uint16_array: return DType::bf16;
    case napi_uint8_array: return DType::u8;
    case napi_int32_array: return DType::i32;
    case napi_float64_array: return DType::f64;
    default: wrong_type(from, "a Float32, Uint16 (bf16), Uint8, Int32 or Float64Array");
  }
}

}  // namespace

void fail(const char* op, const std::string& message) { throw std::invalid_argument(std::string(op) + ": " + message); }

void Span::require(const char* op, const char* name, int64_t needed, DType wanted) const {
  if (wanted != DType::none && dtype != wanted) {
    fail(op, std::string(name) + " is " + dtype_name(dtype) + ", expected " + dtype_name(wanted));
  }
  if (needed < 0 || length < static_cast<uint64_t>(needed)) {
    fail(op, std::string(name) + " has " + std::to_string(length) + " elements, needs " + std::to_string(needed));
  }
}

void read_argument(const Argument& from, Span& to) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(from.env, from.value, &type, &length, &data, nullptr, nullptr) == napi_ok) {
    to.data = data;
    to.length = length;
    to.dtype = dtype_of_array(from, type);
  } else if (!is_absent(from)) {
    wrong_type(from, "a typed array, null or undefined");
  }
}

void read_argument(const Argument& from, double& to) {
  if (napi_get_value_double(from.env, from.value, &to) != napi_ok) wrong_type(from, "a number");
}

void read_argument(const Argument& from, float& to) {
  double value = 0;
  read_argument(from, value);
  to = static_cast<float>(value);
}

void read_argument(const Argument& from, int64_t& to) {
  double value = 0;
  read_argument(from, value);
  // 2^53: the largest range in which a JavaScript number is an exact integer.
  if (!(std::fabs(value) <= 9007199254740992.0) || value != std::floor(value)) wrong_type(from, "an integer");
  to = static_cast<int64_t>(value);
}

void read_argument(const Argument& from, int& to) {
  int64_t value = 0;
  read_argument(from, value);
  if (value != static_cast<int>(value)) wrong_type(from, "a 32-bit integer");
  to = static_cast<int>(value);
}

void read_argument(const Argument& from, bool& to) {
  if (napi_get_value_bool(from.env, from.value, &to) == napi_ok) return;
  double value = 0;
  if (napi_get_value_double(from.env, from.value, &value) != napi_ok) wrong_type(from, "a boolean");
  to = value != 0;
}

void read_argument(const Argument& from, std::string& to) {
  size_t length = 0;
  if (napi_get_value_string_utf8(from.env, from.value, nullptr, 0, &length) != napi_ok) wrong_type(from, "a string");
  to.resize(length + 1);
  napi_get_value_string_utf8(from.env, from.value, to.data(), to.size(), &length);
  to.resize(length);
}

void read_argument(const Argument& from, std::vector<int64_t>& to) {
  uint32_t length = 0;
  if (napi_get_array_length(from.env, from.value, &length) != napi_ok) wrong_type(from, "an array of integers");
  to.resize(length);
  for (uint32_t i = 0; i < length; ++i) {
    Argument element = from;
    napi_get_element(from.env, from.value, i, &element.value);
    read_argument(element, to[i]);
  }
}

void read_argument(const Argument& from, std::vector<Span>& to) {
  uint32_t length = 0;
  if (napi_get_array_length(from.env, from.value, &length) != napi_ok) wrong_type(from, "an array of typed arrays");
  to.resize(length);
  for (uint32_t i = 0; i < length; ++i) {
    Argument element = from;
    napi_get_element(from.env, from.value, i, &element.value);
    read_argument(element, to[i]);
  }
}

void read_argument(const Argument& from, const StoredWeight*& to) {
  napi_valuetype type = napi_undefined;
  void* data = nullptr;
  napi_typeof(from.env, from.value, &type);
  if (type != napi_external || napi_get_value_external(from.env, from.value, &data) != napi_ok) wrong_type(from, "a stored weight");
  to = static_cast<const StoredWeight*>(data);
  if (to->magic != StoredWeight::kMagic) wrong_type(from, "a stored weight");
}

void read_argument(const Argument& from, OptionalWeight& to) {
  if (is_absent(from)) to.weight = nullptr;
  else read_argument(from, to.weight);
}

napi_value write_result(napi_env env, double value) {
  napi_value result;
  napi_create_double(env, value, &result);
  return result;
}

napi_value write_result(napi_env env, bool value) {
  napi_value result;
  napi_get_boolean(env, value, &result);
  return result;
}

void* call_info(napi_env env, napi_callback_info info, size_t wanted, napi_value* values) {
  void* data = nullptr;
  size_t count = wanted;
  napi_get_cb_info(env, info, &count, values, nullptr, &data);
  return data;
}

void add_function(const Exports& exports, const char* name, napi_callback callback, void* data) {
  napi_value function;
  napi_create_function(exports.env, name, NAPI_AUTO_LENGTH, callback, data, &function);
  napi_set_named_property(exports.env, exports.object, name, function);
}

void rethrow_to_js(napi_env env) {
  try {
    throw;
  } catch (const std::exception& error) {
    napi_throw_error(env, nullptr, error.what());
  } catch (...) {
    napi_throw_error(env, nullptr, "unknown native error");
  }
}

}  // namespace fathom
