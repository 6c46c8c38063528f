{
  # The native addon. Every x86 instruction-set level compiles the same kernel sources into its own static
  # library, in its own C++ namespace; native/addon.cc picks one when the addon is loaded (native/isa.h).
  # `portable` stays first: templates of the standard library that several levels instantiate are taken by the
  # linker from the first library, which must be the one that runs everywhere.
  # scripts/build-native.mjs sets fathom_amx to 0 where the compiler is too old for AMX (GCC before 11).
  "variables": {
    "fathom_amx%": 1,
    "kernel_sources": [
      "native/kernels.cc",
      "native/gemm_ops.cc",
      "native/quantize_ops.cc",
      "native/wgrad_ops.cc",
      "native/hopper_ops.cc",
      "native/peak_ops.cc",
      "native/elementwise_ops.cc",
      "native/norm_ops.cc",
      "native/attention_ops.cc",
      "native/attention_backward_ops.cc",
      "native/latent_attention_ops.cc",
      "native/latent_pages_ops.cc",
      "native/attention_block_ops.cc",
      "native/mlp_block_ops.cc",
      "native/norm_project_ops.cc",
      "native/stored_rows_ops.cc",
      "native/encode_ops.cc",
      "native/router_ops.cc",
      "native/dispatch_ops.cc",
      "native/loss_ops.cc",
      "native/optimizer_ops.cc",
      "native/logfmt_ops.cc",
      "native/project.cc",
      "native/project_ops.cc",
      "native/wire_ops.cc"
    ],
    "avx2_flags": ["-mavx2", "-mfma", "-mf16c", "-mbmi2"],
    "avx512_flags": [
      "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16", "-mavx512vnni",
      "-mfma", "-mf16c", "-mbmi2", "-mprefer-vector-width=512"
    ]
  },
  "target_defaults": {
    "defines": ["NAPI_VERSION=8"],
    "cflags": ["-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wall", "-Wextra", "-Wno-psabi", "-Wno-maybe-uninitialized", "-Wno-uninitialized"],
    "cflags!": ["-O2", "-fno-omit-frame-pointer"],
    "cflags_cc": ["-std=c++17", "-fexceptions"],
    "cflags_cc!": ["-fno-exceptions", "-std=gnu++17", "-std=gnu++20"],
    "xcode_settings": {
      "GCC_OPTIMIZATION_LEVEL": "3",
      "CLANG_CXX_LANGUAGE_STANDARD": "c++17",
      "GCC_ENABLE_CPP_EXCEPTIONS": "YES",
      "GCC_SYMBOLS_PRIVATE_EXTERN": "YES",
      "MACOSX_DEPLOYMENT_TARGET": "12.0",
      "OTHER_CFLAGS": ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wall", "-Wextra"]
    }
  },
  "targets": [
    {
      "target_name": "kernels_portable",
      "type": "static_library",
      "sources": ["<@(kernel_sources)"],
      "defines": ["FATHOM_ISA_NS=portable"]
    },
    {
      "target_name": "fathom",
      "sources": ["native/addon.cc", "native/bind.cc", "native/isa.cc", "native/memory.cc", "native/pool.cc", "native/weights.cc"],
      "dependencies": ["kernels_portable"],
      "conditions": [
        ["target_arch=='x64'", {
          "dependencies": ["kernels_avx2", "kernels_avx512"],
          "defines": ["FATHOM_X86_LEVELS"]
        }],
        ["target_arch=='x64' and fathom_amx==1", {
          "dependencies": ["kernels_amx"],
          "defines": ["FATHOM_AMX_LEVEL"]
        }],
        ["OS=='linux'", { "libraries": ["-lpthread", "-ldl"] }]
      ]
    }
  ],
  "conditions": [
    ["target_arch=='x64'", {
      "targets": [
        {
          "target_name": "kernels_avx2",
          "type": "static_library",
          "sources": ["<@(kernel_sources)"],
          "defines": ["FATHOM_ISA_NS=avx2"],
          "cflags": ["<@(avx2_flags)"],
          "xcode_settings": { "OTHER_CFLAGS": ["<@(avx2_flags)"] }
        },
        {
          "target_name": "kernels_avx512",
          "type": "static_library",
          "sources": ["<@(kernel_sources)"],
          "defines": ["FATHOM_ISA_NS=avx512"],
          "cflags": ["<@(avx512_flags)"],
          "xcode_settings": { "OTHER_CFLAGS": ["<@(avx512_flags)"] }
        }
      ]
    }],
    ["target_arch=='x64' and fathom_amx==1", {
      "targets": [
        {
          "target_name": "kernels_amx",
          "type": "static_library",
          "sources": ["<@(kernel_sources)"],
          "defines": ["FATHOM_ISA_NS=amx"],
          "cflags": ["<@(avx512_flags)", "-mgfni", "-mamx-tile", "-mamx-bf16"],
          "xcode_settings": { "OTHER_CFLAGS": ["<@(avx512_flags)", "-mgfni", "-mamx-tile", "-mamx-bf16"] }
        }
      ]
    }]
  ]
}
