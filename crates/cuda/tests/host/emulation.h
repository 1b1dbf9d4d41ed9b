// A GPU as the kernels see it, on one CPU thread: every GPU thread of a block is a context of its own,
// and they take turns at the barriers. Slow and exact: a missing barrier or a wrong index shows.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

#define __device__
#define __global__
// One block of threads runs at a time.
#define __shared__ static

struct Index {
    u32 x, y, z;
};
extern Index blockIdx, blockDim, threadIdx;

void sync_block();
void sync_warp();
float from_lane_xor(float value, int mask);

// IEEE 754 binary16, to nearest even, as the GPU converts.
inline float widen(u16 half) {
    u32 sign = (u32)(half >> 15) << 31, exponent = half >> 10 & 31, fraction = half & 1023;
    u32 bits;
    if (exponent == 31) {
        bits = sign | 0x7f800000u | fraction << 13;
    } else if (exponent > 0) {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    } else {
        float small = std::ldexp((float)fraction, -24);
        std::memcpy(&bits, &small, 4);
        bits |= sign;
    }
    float wide;
    std::memcpy(&wide, &bits, 4);
    return wide;
}

inline u16 narrow(float wide) {
    u32 bits;
    std::memcpy(&bits, &wide, 4);
    u16 sign = (u16)(bits >> 16 & 0x8000);
    float magnitude = std::fabs(wide);
    if (std::isnan(wide)) return sign | 0x7e00;
    if (magnitude >= 65520.0f) return sign | 0x7c00;
    // The unit of the last place at this size; rint rounds to nearest even.
    int exponent = magnitude < 6.103515625e-05f ? -14 : std::ilogb(magnitude);
    u32 units = (u32)std::rint(std::ldexp(magnitude, 10 - exponent));
    // A carry out of the fraction moves into the exponent by itself.
    return (u16)(sign | (units + (exponent == -14 && units < 1024 ? 0 : (u32)(exponent + 14) << 10)));
}
