//! The vector operations on AVX-512 with AVX512-VNNI.
#![expect(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "implements `Lanes` with vector instructions; valid by that trait's contract"
)]

use std::arch::x86_64::*;

use super::lanes::Lanes;

/// AVX-512 F, BW, DQ, VL, VNNI.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512;

impl Lanes for Avx512 {
    const N: usize = 16;
    type F = __m512;
    type I = __m512i;

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        _mm512_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::F {
        _mm512_loadu_ps(p)
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::F) {
        _mm512_storeu_ps(p, v);
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self::F {
        _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))
    }
    #[inline(always)]
    unsafe fn half_pair(a: f32, b: f32) -> (f32, f32) {
        let halves = _mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm_setr_ps(a, b, 0.0, 0.0));
        let wide = _mm_cvtph_ps(halves);
        (_mm_cvtss_f32(wide), _mm_cvtss_f32(_mm_movehdup_ps(wide)))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::F {
        let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> Self::F {
        _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self::F {
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())))
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        _mm512_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        _mm512_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        _mm512_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        _mm512_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        _mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        _mm512_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        _mm512_min_ps(a, b)
    }
    #[inline(always)]
    unsafe fn abs(a: Self::F) -> Self::F {
        _mm512_abs_ps(a)
    }
    #[inline(always)]
    unsafe fn zero_below(x: Self::F, low: Self::F, v: Self::F) -> Self::F {
        _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, low), v)
    }
    #[inline(always)]
    unsafe fn sum(a: Self::F) -> f32 {
        _mm512_reduce_add_ps(a)
    }
    #[inline(always)]
    unsafe fn max_lane(a: Self::F) -> f32 {
        _mm512_reduce_max_ps(a)
    }
    #[inline(always)]
    unsafe fn swap_pairs(a: Self::F) -> Self::F {
        _mm512_permute_ps::<0b10_11_00_01>(a)
    }
    #[inline(always)]
    unsafe fn load_doubled(p: *const f32) -> Self::F {
        let index = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        _mm512_permutexvar_ps(index, _mm512_castps256_ps512(_mm256_loadu_ps(p)))
    }
    #[inline(always)]
    unsafe fn negate_even(a: Self::F) -> Self::F {
        _mm512_xor_ps(a, _mm512_castsi512_ps(_mm512_set1_epi64(0x8000_0000)))
    }
    #[inline(always)]
    unsafe fn round(a: Self::F) -> Self::I {
        _mm512_cvt_roundps_epi32::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
    }
    #[inline(always)]
    unsafe fn to_f32(a: Self::I) -> Self::F {
        _mm512_cvtepi32_ps(a)
    }
    #[inline(always)]
    unsafe fn exp2i(a: Self::I) -> Self::F {
        let biased = _mm512_add_epi32(a, _mm512_set1_epi32(127));
        _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, v: Self::I) {
        _mm_storeu_si128(p.cast(), _mm512_cvtsepi32_epi8(v));
    }
    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        _mm512_add_epi32(a, b)
    }
    #[inline(always)]
    unsafe fn sum_i(a: Self::I) -> i32 {
        _mm512_reduce_add_epi32(a)
    }
    #[inline(always)]
    unsafe fn zero_i() -> Self::I {
        _mm512_setzero_si512()
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> Self::I {
        _mm512_loadu_si512(p.cast())
    }
    #[inline(always)]
    unsafe fn nibbles(v: Self::I) -> (Self::I, Self::I) {
        let mask = _mm512_set1_epi8(15);
        (_mm512_and_si512(v, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(v), mask))
    }
    #[inline(always)]
    unsafe fn bit_to_bit4<const SHIFT: i32>(v: Self::I) -> Self::I {
        let moved = match SHIFT {
            0 => _mm512_slli_epi16::<4>(v),
            1 => _mm512_slli_epi16::<3>(v),
            2 => _mm512_slli_epi16::<2>(v),
            3 => _mm512_slli_epi16::<1>(v),
            4 => v,
            5 => _mm512_srli_epi16::<1>(v),
            6 => _mm512_srli_epi16::<2>(v),
            _ => _mm512_srli_epi16::<3>(v),
        };
        _mm512_and_si512(moved, _mm512_set1_epi8(0x10))
    }
    #[inline(always)]
    unsafe fn pair_to_bit4<const SHIFT: i32>(v: Self::I) -> Self::I {
        let moved = match SHIFT {
            0 => _mm512_slli_epi16::<4>(v),
            2 => _mm512_slli_epi16::<2>(v),
            4 => v,
            _ => _mm512_srli_epi16::<2>(v),
        };
        _mm512_and_si512(moved, _mm512_set1_epi8(0x30))
    }
    #[inline(always)]
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I {
        _mm512_or_si512(a, b)
    }
    #[inline(always)]
    unsafe fn dot(acc: Self::I, w: Self::I, a: *const i32) -> Self::I {
        _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(a.read_unaligned()))
    }
    #[inline(always)]
    unsafe fn start<const SHIFT: u32>(a: *const i32) -> Self::I {
        _mm512_slli_epi32::<SHIFT>(_mm512_set1_epi32(a.read_unaligned()))
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
