// Turns a C++ function into a JavaScript one: bind(exports, "name", function).
//
// Arguments: TypedArray, null or undefined -> Span; number -> double, float, int64_t, int, bool (booleans too);
// Array of numbers -> std::vector<int64_t>; Array of TypedArrays -> std::vector<Span>; string -> std::string; what storeWeight
// gave -> const StoredWeight*, or undefined where the function takes an OptionalWeight. Results: void, double, int64_t, int, bool.
// A C++ exception becomes a JavaScript Error with its message. The conversions live in bind.cc, compiled for the
// baseline; only the glue below is instantiated per instruction-set level.
#pragma once

#include <node_api.h>

#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "stored_weight.h"
#include "types.h"

namespace fathom {

/// The object that bound functions are added to.
struct Exports {
  napi_env env;
  napi_value object;
};

/// One JavaScript argument with what an error message needs to name it.
struct Argument {
  napi_env env;
  napi_value value;
  const char* op;
  int position;
};

/// A stored weight that may be missing: null then.
struct OptionalWeight {
  const StoredWeight* weight = nullptr;
};

void read_argument(const Argument& from, Span& to);
void read_argument(const Argument& from, double& to);
void read_argument(const Argument& from, float& to);
void read_argument(const Argument& from, int64_t& to);
void read_argument(const Argument& from, int& to);
void read_argument(const Argument& from, bool& to);
void read_argument(const Argument& from, std::string& to);
void read_argument(const Argument& from, std::vector<int64_t>& to);
void read_argument(const Argument& from, std::vector<Span>& to);
void read_argument(const Argument& from, const StoredWeight*& to);
void read_argument(const Argument& from, OptionalWeight& to);

napi_value write_result(napi_env env, double value);
napi_value write_result(napi_env env, bool value);

/// Reads up to `wanted` arguments and the function's data pointer; missing ones are undefined.
void* call_info(napi_env env, napi_callback_info info, size_t wanted, napi_value* values);

/// Adds a function with a data pointer to the exports.
void add_function(const Exports& exports, const char* name, napi_callback callback, void* data);

/// Throws the exception being handled as a JavaScript Error; call from a catch block only.
void rethrow_to_js(napi_env env);

namespace FATHOM_ISA_NS {

template <class R, class... A>
struct Bound {
  const char* name;
  R (*function)(A...);

  static napi_value call(napi_env env, napi_callback_info info) {
    try {
      return invoke(env, info, std::index_sequence_for<A...>{});
    } catch (...) {
      rethrow_to_js(env);
      return nullptr;
    }
  }

  template <size_t... I>
  static napi_value invoke(napi_env env, napi_callback_info info, std::index_sequence<I...>) {
    napi_value values[sizeof...(A) + 1];
    auto* self = static_cast<Bound*>(call_info(env, info, sizeof...(A), values));
    std::tuple<std::decay_t<A>...> arguments;
    (read_argument({env, values[I], self->name, static_cast<int>(I)}, std::get<I>(arguments)), ...);
    if constexpr (std::is_void_v<R>) {
      self->function(std::get<I>(arguments)...);
      return nullptr;
    } else if constexpr (std::is_same_v<R, bool>) {
      return write_result(env, self->function(std::get<I>(arguments)...));
    } else {
      return write_result(env, static_cast<double>(self->function(std::get<I>(arguments)...)));
    }
  }
};

/// Exports `function` under `name`, a string literal.
template <class R, class... A>
void bind(const Exports& exports, const char* name, R (*function)(A...)) {
  // Lives as long as the process: JavaScript may call it until then.
  auto* bound = new Bound<R, A...>{name, function};
  add_function(exports, name, &Bound<R, A...>::call, bound);
}

}  // namespace FATHOM_ISA_NS

}  // namespace fathom
