// What the kernels use of a GPU, by one name under nvcc and under a host compiler: the tests compile
// the same kernels for the CPU (tests/host) and run them thread by thread.
#pragma once

#ifdef __CUDACC__

using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

__device__ inline float widen(u16 half) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(half));
    return wide;
}

__device__ inline u16 narrow(float wide) {
    u16 half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(wide));
    return half;
}

#define EVERY_LANE 0xffffffffu
__device__ inline float from_lane_xor(float value, int mask) {
    return __shfl_xor_sync(EVERY_LANE, value, mask);
}
__device__ inline void sync_warp() { __syncwarp(); }
__device__ inline void sync_block() { __syncthreads(); }

#else
#include "emulation.h"
#endif

// An element of the KV cache: f32, or f16 as its bits.
__device__ inline float load(const float *cell) { return *cell; }
__device__ inline float load(const u16 *cell) { return widen(*cell); }
__device__ inline void store(float *cell, float value) { *cell = value; }
__device__ inline void store(u16 *cell, float value) { *cell = narrow(value); }

__device__ inline float warp_max(float value) {
    for (int mask = 16; mask > 0; mask /= 2) value = fmaxf(value, from_lane_xor(value, mask));
    return value;
}

__device__ inline float warp_sum(float value) {
    for (int mask = 16; mask > 0; mask /= 2) value += from_lane_xor(value, mask);
    return value;
}
