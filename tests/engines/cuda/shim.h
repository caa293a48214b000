// CUDA's C++ on the host: enough of it to compile engines/cuda/kernels.cu and run its kernels, one
// thread after the other. Kernels that wait for one another (__syncthreads) do not compile.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>
#include <tuple>

#define __global__
#define __device__
#define __host__

struct dim3 {
    unsigned x, y, z;
};

struct alignas(16) float4 {
    float x, y, z, w;
};

// Of each host thread, for several streams may run kernels at once.
static thread_local dim3 gridDim, blockDim, blockIdx, threadIdx;

static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }

namespace shim {

// The next parameter in the buffer that PyCUDA hands to cuLaunchKernel.
template <typename T>
T next(const unsigned char *buffer, size_t size, size_t &at, bool &fits)
{
    T value{};
    at = (at + alignof(T) - 1) / alignof(T) * alignof(T);
    if (at + sizeof(T) > size)
        fits = false;
    else
        std::memcpy(&value, buffer + at, sizeof(T));
    at += sizeof(T);
    return value;
}

// Runs a kernel on a grid; 1 if the buffer does not hold just its parameters.
template <typename... Parameters>
int launch(void (*kernel)(Parameters...), const unsigned *grid, const unsigned *block,
           const unsigned char *buffer, size_t size)
{
    size_t at = 0;
    bool fits = true;
    // In braces, so that they are taken from left to right.
    std::tuple<Parameters...> values{next<Parameters>(buffer, size, at, fits)...};
    if (!fits || at != size)
        return 1;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    for (unsigned i = 0; i < grid[0] * grid[1] * grid[2]; i++) {
        blockIdx = {i % grid[0], i / grid[0] % grid[1], i / grid[0] / grid[1]};
        for (unsigned j = 0; j < block[0] * block[1] * block[2]; j++) {
            threadIdx = {j % block[0], j / block[0] % block[1], j / block[0] / block[1]};
            std::apply(kernel, values);
        }
    }
    return 0;
}

}  // namespace shim

// What the host calls in place of the kernel.
#define LAUNCHER(kernel)                                                                          \
    extern "C" int launch_##kernel(const unsigned *grid, const unsigned *block,                   \
                                   const unsigned char *buffer, size_t size)                      \
    {                                                                                             \
        return shim::launch(kernel, grid, block, buffer, size);                                   \
    }
