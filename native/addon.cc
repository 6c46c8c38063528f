// Entry point of the addon: picks the instruction-set level, binds its kernels, and offers memory and settings.
//
// Exports, beside the kernels:
//   info() -> {isa, best, threads, cpus}
//   setThreads(n)
//   forIsa(name) -> an object with the kernels of that level (tests)
//   alloc(bytes) -> ArrayBuffer, uninitialised, 64-byte aligned, on huge pages from 2 MB on. V8 counts its bytes as
//     external memory; they are given back after garbage collection, when the event loop next turns
//   and those of weights.cc
#define FATHOM_ISA_NS base
#include "bind.h"
#include "isa.h"
#include "memory.h"
#include "pool.h"

#if !defined(_WIN32)
#include <dlfcn.h>
#endif

namespace fathom {

namespace portable {
void register_kernels(const Exports& exports);
}
#if defined(FATHOM_X86_LEVELS)
namespace avx2 {
void register_kernels(const Exports& exports);
}
namespace avx512 {
void register_kernels(const Exports& exports);
}
#endif
#if defined(FATHOM_AMX_LEVEL)
namespace amx {
void register_kernels(const Exports& exports);
}
#endif

void register_weights(const Exports& exports);

namespace {

void register_level(Isa isa, const Exports& exports) {
  switch (isa) {
#if defined(FATHOM_AMX_LEVEL)
    case Isa::amx: return amx::register_kernels(exports);
#endif
#if defined(FATHOM_X86_LEVELS)
    case Isa::avx512: return avx512::register_kernels(exports);
    case Isa::avx2: return avx2::register_kernels(exports);
#endif
    default: return portable::register_kernels(exports);
  }
}

void finalize_block(napi_env, void* data, void*) { aligned_free(data); }

napi_value alloc(napi_env env, napi_callback_info info) {
  try {
    napi_value argument, result;
    call_info(env, info, 1, &argument);
    int64_t bytes = 0;
    read_argument({env, argument, "alloc", 0}, bytes);
    if (bytes < 0) fail("alloc", "bytes is negative: " + std::to_string(bytes));
    void* data = aligned_allocate(static_cast<size_t>(bytes));
    if (napi_create_external_arraybuffer(env, data, static_cast<size_t>(bytes), finalize_block, nullptr, &result) != napi_ok) {
      aligned_free(data);
      fail("alloc", "the JavaScript engine refused a buffer of " + std::to_string(bytes) + " bytes");
    }
    return result;
  } catch (...) {
    rethrow_to_js(env);
    return nullptr;
  }
}

napi_value info(napi_env env, napi_callback_info) {
  napi_value result, isa, best, thread_count, cpus;
  try {
    napi_create_string_utf8(env, isa_name(chosen_isa()), NAPI_AUTO_LENGTH, &isa);
  } catch (...) {
    rethrow_to_js(env);
    return nullptr;
  }
  napi_create_string_utf8(env, isa_name(best_isa()), NAPI_AUTO_LENGTH, &best);
  napi_create_int32(env, threads(), &thread_count);
  napi_create_int32(env, available_cpus(), &cpus);
  napi_create_object(env, &result);
  napi_set_named_property(env, result, "isa", isa);
  napi_set_named_property(env, result, "best", best);
  napi_set_named_property(env, result, "threads", thread_count);
  napi_set_named_property(env, result, "cpus", cpus);
  return result;
}

napi_value for_isa(napi_env env, napi_callback_info info) {
  try {
    napi_value argument, result;
    call_info(env, info, 1, &argument);
    std::string name;
    read_argument({env, argument, "forIsa", 0}, name);
    napi_create_object(env, &result);
    register_level(parse_isa(name), {env, result});
    return result;
  } catch (...) {
    rethrow_to_js(env);
    return nullptr;
  }
}

void set_threads_checked(int count) {
  if (count < 1) fail("setThreads", "needs at least 1 thread, got " + std::to_string(count));
  set_threads(count);
}

/// Keeps the library mapped when the last environment that loaded it ends: pool threads run its code.
void stay_loaded() {
#if !defined(_WIN32)
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&stay_loaded), &self)) dlopen(self.dli_fname, RTLD_NOW | RTLD_NODELETE);
#endif
}

}  // namespace

}  // namespace fathom

NAPI_MODULE_INIT() {
  using namespace fathom;
  stay_loaded();
  const Exports target{env, exports};
  try {
    register_level(chosen_isa(), target);
  } catch (...) {
    rethrow_to_js(env);
    return nullptr;
  }
  add_function(target, "info", info, nullptr);
  add_function(target, "forIsa", for_isa, nullptr);
  add_function(target, "alloc", alloc, nullptr);
  base::bind(target, "setThreads", set_threads_checked);
  register_weights(target);
  return exports;
}
