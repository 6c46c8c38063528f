{
  # The MPI addon: built by scripts/build-mpi.mjs with the MPI library's own compiler wrapper, never by `npm install`.
  "targets": [
    {
      "target_name": "fathom_mpi",
      "sources": ["addon.cc", "engine.cc", "counter.cc", "../bind.cc"],
      "defines": ["NAPI_VERSION=8"],
      "cflags": ["-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-cast-function-type"],
      "cflags_cc": ["-std=c++17", "-fexceptions"],
      "cflags_cc!": ["-fno-exceptions", "-std=gnu++17", "-std=gnu++20"],
      "xcode_settings": { "CLANG_CXX_LANGUAGE_STANDARD": "c++17", "GCC_ENABLE_CPP_EXCEPTIONS": "YES" },
      "conditions": [["OS=='linux'", { "libraries": ["-lpthread"] }]]
    }
  ]
}
