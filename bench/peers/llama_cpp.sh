#!/bin/sh
# Installs llama.cpp twice outside the repository: node-llama-cpp from npm with its prebuilt CPU binary, and the same
# release built here from the source that this package carries, with its own thread pool and for this CPU, with
# bench/peers/llama_cpp.cc on top of its C API. Needs git, cmake and a C++ compiler.
#   bench/peers/llama_cpp.sh [FOLDER]      default: ${FATHOM_CACHE:-~/.cache/fathom}/llama.cpp
set -eu
here="$(cd "$(dirname "$0")" && pwd)"
folder="${1:-${FATHOM_CACHE:-$HOME/.cache/fathom}/llama.cpp}"
version=3.22.1 # llama.cpp v0.5.0
mkdir -p "$folder/node"
cd "$folder"

if [ ! -d node/node_modules/node-llama-cpp ]; then
  case "$(uname -s)-$(uname -m)" in
    # Without --omit=optional npm fetches the CUDA and Vulkan builds too, 700 MB.
    Linux-x86_64) npm install --prefix node --ignore-scripts --omit=optional "node-llama-cpp@$version" "@node-llama-cpp/linux-x64@$version" >&2 ;;
    Linux-aarch64) npm install --prefix node --ignore-scripts --omit=optional "node-llama-cpp@$version" "@node-llama-cpp/linux-arm64@$version" >&2 ;;
    *) npm install --prefix node --ignore-scripts "node-llama-cpp@$version" >&2 ;;
  esac
fi

if [ ! -d src ]; then
  git clone --quiet node/node_modules/node-llama-cpp/llama/gitRelease.bundle src.new >&2
  # GCC 12 takes the first bytes of the tile configuration for all that is read, drops the rest, and AMX kernels die of an
  # illegal instruction.
  sed -i 's/^    _tile_loadconfig(&tc);/    __asm__ volatile("" : : "r"(\&tc) : "memory");\n&/' src.new/ggml/src/ggml-cpu/amx/mmq.cpp
  mv src.new src
fi

if [ ! -e build/bin/libllama.so ] && [ ! -e build/bin/libllama.dylib ]; then
  cmake -S src -B build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DGGML_OPENMP=OFF -DLLAMA_BUILD_COMMON=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF >&2
  cmake --build build --target llama --parallel 2 >&2
fi

if [ ! -e llama_cpp ] || [ "$here/llama_cpp.cc" -nt llama_cpp ]; then
  "${CXX:-c++}" -O2 -std=c++17 -Isrc/include -Isrc/ggml/include "$here/llama_cpp.cc" -o llama_cpp.new \
    -Lbuild/bin -lllama -lggml -lggml-cpu -lggml-base "-Wl,-rpath,$folder/build/bin" >&2
  mv llama_cpp.new llama_cpp
fi
echo "$folder"
