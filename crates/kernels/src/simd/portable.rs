//! The vector operations in plain Rust: any processor, and what the others are compared with.
#![expect(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "implements `Lanes`; its pointers are valid by that trait's contract"
)]

use half::{bf16, f16};

use super::lanes::Lanes;

const N: usize = 16;

/// Plain Rust.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn map(a: [f32; N], f: impl Fn(f32) -> f32) -> [f32; N] {
    a.map(f)
}

#[inline(always)]
fn zip(a: [f32; N], b: [f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// Folds halves onto each other, as the vector implementations do.
#[inline(always)]
fn fold<T: Copy>(mut a: [T; N], f: impl Fn(T, T) -> T) -> T {
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            a[i] = f(a[i], a[i + width]);
        }
        width /= 2;
    }
    a[0]
}

#[inline(always)]
fn bytes(v: i32) -> [u8; 4] {
    v.to_le_bytes()
}

impl Lanes for Portable {
    const N: usize = N;
    type F = [f32; N];
    type I = [i32; N];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        [x; N]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        p.cast::<[f32; N]>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::F) {
        p.cast::<[f32; N]>().write_unaligned(v);
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::F {
        p.cast::<[u16; N]>().read_unaligned().map(|bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn half_pair(a: f32, b: f32) -> (f32, f32) {
        (f16::from_f32(a).to_f32(), f16::from_f32(b).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::F {
        p.cast::<[u16; N]>().read_unaligned().map(|bits| bf16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> Self::F {
        p.cast::<[u8; N]>().read_unaligned().map(f32::from)
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self::F {
        p.cast::<[i8; N]>().read_unaligned().map(f32::from)
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // Two roundings: a call of `fmaf` for each lane would be far slower without the hardware.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn abs(a: Self::F) -> Self::F {
        map(a, f32::abs)
    }
    #[inline(always)]
    unsafe fn zero_below(x: Self::F, low: Self::F, v: Self::F) -> Self::F {
        std::array::from_fn(|i| if x[i] < low[i] { 0.0 } else { v[i] })
    }
    #[inline(always)]
    unsafe fn sum(a: Self::F) -> f32 {
        fold(a, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn max_lane(a: Self::F) -> f32 {
        fold(a, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn swap_pairs(a: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i ^ 1])
    }
    #[inline(always)]
    unsafe fn load_doubled(p: *const f32) -> Self::F {
        let half = p.cast::<[f32; N / 2]>().read_unaligned();
        std::array::from_fn(|i| half[i / 2])
    }
    #[inline(always)]
    unsafe fn negate_even(a: Self::F) -> Self::F {
        std::array::from_fn(|i| if i % 2 == 0 { -a[i] } else { a[i] })
    }
    #[inline(always)]
    unsafe fn round(a: Self::F) -> Self::I {
        a.map(|x| {
            let rounded = x.round_ties_even();
            if (-2_147_483_648.0..2_147_483_648.0).contains(&rounded) {
                rounded as i32
            } else {
                i32::MIN
            }
        })
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::I) -> Self::F {
        a.map(|x| x as f32)
    }
    #[inline(always)]
    unsafe fn exp2i(a: Self::I) -> Self::F {
        a.map(|x| f32::from_bits((x.wrapping_add(127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: Self::I) {
        p.cast::<[i8; N]>().write_unaligned(v.map(|x| x.clamp(-128, 127) as i8));
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn sum_i(a: Self::I) -> i32 {
        fold(a, i32::wrapping_add)
    }
    #[inline(always)]
    unsafe fn zero_i() -> Self::I {
        [0; N]
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> Self::I {
        p.cast::<[i32; N]>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn nibbles(v: Self::I) -> (Self::I, Self::I) {
        (v.map(|x| x & 0x0f0f_0f0f), v.map(|x| (x >> 4) & 0x0f0f_0f0f))
    }
    #[inline(always)]
    unsafe fn pair_to_bit4<const SHIFT: i32>(v: Self::I) -> Self::I {
        v.map(|x| (((x as u32 >> SHIFT) & 0x0303_0303) << 4) as i32)
    }
    #[inline(always)]
    unsafe fn bit_to_bit4<const SHIFT: i32>(v: Self::I) -> Self::I {
        v.map(|x| (((x as u32 >> SHIFT) & 0x0101_0101) << 4) as i32)
    }
    #[inline(always)]
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn dot(acc: Self::I, w: Self::I, a: *const i32) -> Self::I {
        let a = bytes(a.read_unaligned()).map(|byte| i32::from(byte as i8));
        std::array::from_fn(|i| {
            let w = bytes(w[i]).map(i32::from);
            acc[i] + w[0] * a[0] + w[1] * a[1] + w[2] * a[2] + w[3] * a[3]
        })
    }
    #[inline(always)]
    unsafe fn start<const SHIFT: u32>(a: *const i32) -> Self::I {
        [a.read_unaligned() << SHIFT; N]
    }
    #[inline(always)]
    unsafe fn start_signed(a: *const i32) -> Self::I {
        Self::start::<7>(a)
    }
    #[inline(always)]
    unsafe fn dot_signed(acc: Self::I, w: Self::I, a: *const i32) -> Self::I {
        Self::dot(acc, w, a)
    }
}
