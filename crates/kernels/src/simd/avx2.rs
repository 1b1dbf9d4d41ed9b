//! The vector operations on AVX2 with FMA and F16C, without and with the 256-bit integer dot
//! product. The two differ only in [`Lanes::dot`] and its relatives.
#![expect(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "implements `Lanes` with vector instructions; valid by that trait's contract"
)]

use std::arch::x86_64::*;

use super::lanes::Lanes;

/// AVX2, FMA, F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2;

/// [`Avx2`] and AVX-VNNI.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AvxVnni;

#[inline(always)]
unsafe fn splat_word(a: *const i32) -> __m256i {
    _mm256_set1_epi32(a.read_unaligned())
}

/// Four products of adjacent bytes in each lane; the sums of two must fit 16 bits.
#[inline(always)]
unsafe fn dot_bytes(acc: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(unsigned, signed);
    _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

#[inline(always)]
unsafe fn sum_f(a: __m256) -> f32 {
    let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
    let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
}

#[inline(always)]
unsafe fn max_f(a: __m256) -> f32 {
    let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
    let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
}

#[inline(always)]
unsafe fn sum_i32(a: __m256i) -> i32 {
    let a = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
    let a = _mm_add_epi32(a, _mm_unpackhi_epi64(a, a));
    _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32::<1>(a)))
}

/// The saturated low bytes of eight lanes.
#[inline(always)]
unsafe fn narrow_i8(v: __m256i) -> __m128i {
    let words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    _mm_packs_epi16(words, words)
}

macro_rules! implement_lanes {
    ($name:ty, $($differs:tt)*) => {
        impl Lanes for $name {
            const N: usize = 8;
            type F = __m256;
            type I = __m256i;

            #[inline(always)]
            unsafe fn prefetch(p: *const u8) {
                _mm_prefetch::<_MM_HINT_T0>(p.cast());
            }
            #[inline(always)]
            unsafe fn splat(x: f32) -> Self::F {
                _mm256_set1_ps(x)
            }
            #[inline(always)]
            unsafe fn load(p: *const f32) -> Self::F {
                _mm256_loadu_ps(p)
            }
            #[inline(always)]
            unsafe fn store(p: *mut f32, v: Self::F) {
                _mm256_storeu_ps(p, v);
            }
            #[inline(always)]
            unsafe fn load_f16(p: *const u16) -> Self::F {
                _mm256_cvtph_ps(_mm_loadu_si128(p.cast()))
            }
            #[inline(always)]
            unsafe fn half_pair(a: f32, b: f32) -> (f32, f32) {
                let halves = _mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm_setr_ps(a, b, 0.0, 0.0));
                let wide = _mm_cvtph_ps(halves);
                (_mm_cvtss_f32(wide), _mm_cvtss_f32(_mm_movehdup_ps(wide)))
            }
            #[inline(always)]
            unsafe fn load_bf16(p: *const u16) -> Self::F {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }
            #[inline(always)]
            unsafe fn load_u8(p: *const u8) -> Self::F {
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())))
            }
            #[inline(always)]
            unsafe fn load_i8(p: *const i8) -> Self::F {
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())))
            }
            #[inline(always)]
            unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
                _mm256_add_ps(a, b)
            }
            #[inline(always)]
            unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
                _mm256_sub_ps(a, b)
            }
            #[inline(always)]
            unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
                _mm256_mul_ps(a, b)
            }
            #[inline(always)]
            unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
                _mm256_div_ps(a, b)
            }
            #[inline(always)]
            unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
                _mm256_fmadd_ps(a, b, c)
            }
            #[inline(always)]
            unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
                _mm256_max_ps(a, b)
            }
            #[inline(always)]
            unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
                _mm256_min_ps(a, b)
            }
            #[inline(always)]
            unsafe fn abs(a: Self::F) -> Self::F {
                _mm256_andnot_ps(_mm256_set1_ps(-0.0), a)
            }
            #[inline(always)]
            unsafe fn zero_below(x: Self::F, low: Self::F, v: Self::F) -> Self::F {
                _mm256_and_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(x, low), v)
            }
            #[inline(always)]
            unsafe fn sum(a: Self::F) -> f32 {
                sum_f(a)
            }
            #[inline(always)]
            unsafe fn max_lane(a: Self::F) -> f32 {
                max_f(a)
            }
            #[inline(always)]
            unsafe fn swap_pairs(a: Self::F) -> Self::F {
                _mm256_permute_ps::<0b10_11_00_01>(a)
            }
            #[inline(always)]
            unsafe fn load_doubled(p: *const f32) -> Self::F {
                let index = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
                _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), index)
            }
            #[inline(always)]
            unsafe fn negate_even(a: Self::F) -> Self::F {
                _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi64x(0x8000_0000)))
            }
            #[inline(always)]
            unsafe fn round(a: Self::F) -> Self::I {
                _mm256_cvtps_epi32(_mm256_round_ps::<
                    { _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC },
                >(a))
            }
            #[inline(always)]
            unsafe fn to_f32(a: Self::I) -> Self::F {
                _mm256_cvtepi32_ps(a)
            }
            #[inline(always)]
            unsafe fn exp2i(a: Self::I) -> Self::F {
                let biased = _mm256_add_epi32(a, _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            }
            #[inline(always)]
            unsafe fn store_i8(p: *mut i8, v: Self::I) {
                _mm_storel_epi64(p.cast(), narrow_i8(v));
            }
            #[inline(always)]
            unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
                _mm256_add_epi32(a, b)
            }
            #[inline(always)]
            unsafe fn sum_i(a: Self::I) -> i32 {
                sum_i32(a)
            }
            #[inline(always)]
            unsafe fn zero_i() -> Self::I {
                _mm256_setzero_si256()
            }
            #[inline(always)]
            unsafe fn load_bytes(p: *const u8) -> Self::I {
                _mm256_loadu_si256(p.cast())
            }
            #[inline(always)]
            unsafe fn nibbles(v: Self::I) -> (Self::I, Self::I) {
                let mask = _mm256_set1_epi8(15);
                (_mm256_and_si256(v, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(v), mask))
            }
            #[inline(always)]
            unsafe fn bit_to_bit4<const SHIFT: i32>(v: Self::I) -> Self::I {
                let moved = match SHIFT {
                    0 => _mm256_slli_epi16::<4>(v),
                    1 => _mm256_slli_epi16::<3>(v),
                    2 => _mm256_slli_epi16::<2>(v),
                    3 => _mm256_slli_epi16::<1>(v),
                    4 => v,
                    5 => _mm256_srli_epi16::<1>(v),
                    6 => _mm256_srli_epi16::<2>(v),
                    _ => _mm256_srli_epi16::<3>(v),
                };
                _mm256_and_si256(moved, _mm256_set1_epi8(0x10))
            }
            #[inline(always)]
            unsafe fn pair_to_bit4<const SHIFT: i32>(v: Self::I) -> Self::I {
                let moved = match SHIFT {
                    0 => _mm256_slli_epi16::<4>(v),
                    2 => _mm256_slli_epi16::<2>(v),
                    4 => v,
                    _ => _mm256_srli_epi16::<2>(v),
                };
                _mm256_and_si256(moved, _mm256_set1_epi8(0x30))
            }
            #[inline(always)]
            unsafe fn or(a: Self::I, b: Self::I) -> Self::I {
                _mm256_or_si256(a, b)
            }
            #[inline(always)]
            unsafe fn start<const SHIFT: u32>(a: *const i32) -> Self::I {
                _mm256_sll_epi32(splat_word(a), _mm_cvtsi32_si128(SHIFT as i32))
            }
            $($differs)*
        }
    };
}

implement_lanes! {
    Avx2,
    // Nothing to correct: `dot_signed` multiplies the signed values.
    #[inline(always)]
    unsafe fn start_signed(_: *const i32) -> Self::I {
        _mm256_setzero_si256()
    }
    #[inline(always)]
    unsafe fn dot(acc: Self::I, w: Self::I, a: *const i32) -> Self::I {
        dot_bytes(acc, w, splat_word(a))
    }
    // `w` up to 255 would overflow the 16-bit sums, so the signs move to the activations.
    #[inline(always)]
    unsafe fn dot_signed(acc: Self::I, w: Self::I, a: *const i32) -> Self::I {
        let signed = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
        let a = _mm256_sign_epi8(splat_word(a), signed);
        dot_bytes(acc, _mm256_abs_epi8(signed), a)
    }
}

implement_lanes! {
    AvxVnni,
    #[inline(always)]
    unsafe fn start_signed(a: *const i32) -> Self::I {
        Self::start::<7>(a)
    }
    #[inline(always)]
    unsafe fn dot(acc: Self::I, w: Self::I, a: *const i32) -> Self::I {
        _mm256_dpbusd_avx_epi32(acc, w, splat_word(a))
    }
    #[inline(always)]
    unsafe fn dot_signed(acc: Self::I, w: Self::I, a: *const i32) -> Self::I {
        Self::dot(acc, w, a)
    }
}
