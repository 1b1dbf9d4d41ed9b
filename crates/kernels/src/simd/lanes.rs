//! The vector operations that every kernel is written in. One implementation for each instruction
//! set; the kernels are generic over it and are compiled once for each.
#![expect(
    unsafe_code,
    reason = "vector instructions and raw pointers are the purpose of this module"
)]

/// A vector of floats and a vector of integers, with as many lanes each.
///
/// # Safety
/// Every function may be called only where the implementing instruction set is available, and
/// every pointer must be valid for the lanes that the function reads or writes (no alignment is
/// needed). All functions are `#[inline(always)]` in their implementations, so that they become
/// part of a caller that has the target features.
pub(crate) trait Lanes: Copy {
    /// Lanes of a vector: 8 or 16.
    const N: usize;
    /// Floats.
    type F: Copy;
    /// 32-bit integers, or four bytes in each lane.
    type I: Copy;

    /// Asks for the cache line at `p`, which may be anywhere; nothing is read.
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, v: Self::F);
    /// Widens half floats.
    unsafe fn load_f16(p: *const u16) -> Self::F;
    /// Both rounded to half floats and widened again.
    unsafe fn half_pair(a: f32, b: f32) -> (f32, f32);
    /// Widens bfloat16.
    unsafe fn load_bf16(p: *const u16) -> Self::F;
    /// Widens unsigned bytes.
    unsafe fn load_u8(p: *const u8) -> Self::F;
    /// Widens signed bytes.
    unsafe fn load_i8(p: *const i8) -> Self::F;

    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; `b` when one is NaN.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; `b` when one is NaN.
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn abs(a: Self::F) -> Self::F;
    /// `v` where `x` is not less than `low` (or NaN), else zero.
    unsafe fn zero_below(x: Self::F, low: Self::F, v: Self::F) -> Self::F;
    /// Sum of the lanes.
    unsafe fn sum(a: Self::F) -> f32;
    /// Largest lane.
    unsafe fn max_lane(a: Self::F) -> f32;
    /// Swaps lanes `2i` and `2i + 1`.
    unsafe fn swap_pairs(a: Self::F) -> Self::F;
    /// `[a0, a0, a1, a1, ...]` of `N / 2` floats in memory.
    unsafe fn load_doubled(p: *const f32) -> Self::F;
    /// `-a` in the even lanes, `a` in the odd ones.
    unsafe fn negate_even(a: Self::F) -> Self::F;

    /// To the nearest integer, ties to even; the smallest integer when out of range.
    unsafe fn round(a: Self::F) -> Self::I;
    unsafe fn to_f32(a: Self::I) -> Self::F;
    /// `2^a` for `a` in -126 to 127.
    unsafe fn exp2i(a: Self::I) -> Self::F;
    /// Stores the low byte of each lane, saturated to a signed byte.
    unsafe fn store_i8(p: *mut i8, v: Self::I);
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    /// Sum of the lanes.
    unsafe fn sum_i(a: Self::I) -> i32;

    unsafe fn zero_i() -> Self::I;
    /// Four bytes for each lane.
    unsafe fn load_bytes(p: *const u8) -> Self::I;
    /// The low and the high nibble of each byte.
    unsafe fn nibbles(v: Self::I) -> (Self::I, Self::I);
    /// Of each byte the bit pair at `SHIFT`, moved to the bits 4 and 5.
    unsafe fn pair_to_bit4<const SHIFT: i32>(v: Self::I) -> Self::I;
    /// Of each byte the bit at `SHIFT`, moved to bit 4.
    unsafe fn bit_to_bit4<const SHIFT: i32>(v: Self::I) -> Self::I;
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    /// `acc + w . a` in each lane: four unsigned bytes of `w`, at most 127 each, with the four
    /// signed bytes at `a`, the same for every lane.
    unsafe fn dot(acc: Self::I, w: Self::I, a: *const i32) -> Self::I;
    /// What an accumulator starts with so that weights stored as `q + 2^SHIFT` count as `q`:
    /// `a` points to minus the sum of the activations.
    unsafe fn start<const SHIFT: u32>(a: *const i32) -> Self::I;
    /// The start for [`Lanes::dot_signed`].
    unsafe fn start_signed(a: *const i32) -> Self::I;
    /// As [`Lanes::dot`] for weights stored as `q + 128`; counts them as `q` when the accumulator
    /// began with [`Lanes::start_signed`].
    unsafe fn dot_signed(acc: Self::I, w: Self::I, a: *const i32) -> Self::I;
}
