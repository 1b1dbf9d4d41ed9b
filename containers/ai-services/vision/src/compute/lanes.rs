//! One vector of an instruction set. The only place with intrinsics.
#![expect(unsafe_code, reason = "vector instructions and unaligned loads through pointers")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m256i, __m512, _mm256_add_ps, _mm256_cmpgt_epi32, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_maskload_ps, _mm256_maskstore_ps, _mm256_max_ps, _mm256_min_ps, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setr_epi32, _mm256_storeu_ps, _mm512_add_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_min_ps,
    _mm512_set1_ps, _mm512_storeu_ps,
};

/// `WIDTH` values that are computed on at once.
///
/// # Safety
/// Every method needs the instruction set of the type; loads and stores need `WIDTH` values behind
/// their pointer, those of a part `count`, which is less. Methods are inlined into functions that
/// have the set turned on.
pub(super) trait Lanes: Copy {
    /// Values.
    const WIDTH: usize;
    unsafe fn load(at: *const f32) -> Self;
    unsafe fn store(self, at: *mut f32);
    /// The first `count` values, zeros behind them.
    unsafe fn load_part(at: *const f32, count: usize) -> Self;
    /// The first `count` values.
    unsafe fn store_part(self, at: *mut f32, count: usize);
    unsafe fn splat(value: f32) -> Self;
    /// `self * by + to`.
    unsafe fn mul_add(self, by: Self, to: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn clamp(self, low: Self, high: Self) -> Self;
}

/// AVX-512F.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

/// AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256);

/// Plain code.
#[derive(Clone, Copy)]
pub(super) struct Plain([f32; 4]);

// SAFETY (of all bodies below): the trait's contract is what each intrinsic asks for.
#[cfg(target_arch = "x86_64")]
impl Lanes for Avx512 {
    const WIDTH: usize = 16;
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: the caller's contract.
        Self(unsafe { _mm512_loadu_ps(at) })
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: the caller's contract.
        unsafe { _mm512_storeu_ps(at, self.0) }
    }
    #[inline(always)]
    unsafe fn load_part(at: *const f32, count: usize) -> Self {
        // SAFETY: the caller's contract: what the mask leaves out is not read.
        Self(unsafe { _mm512_maskz_loadu_ps((1 << count) - 1, at) })
    }
    #[inline(always)]
    unsafe fn store_part(self, at: *mut f32, count: usize) {
        // SAFETY: the caller's contract: what the mask leaves out is not written.
        unsafe { _mm512_mask_storeu_ps(at, (1 << count) - 1, self.0) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's contract.
        Self(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn mul_add(self, by: Self, to: Self) -> Self {
        // SAFETY: the caller's contract.
        Self(unsafe { _mm512_fmadd_ps(self.0, by.0, to.0) })
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller's contract.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        // SAFETY: the caller's contract.
        Self(unsafe { _mm512_min_ps(_mm512_max_ps(self.0, low.0), high.0) })
    }
}

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx2 {
    const WIDTH: usize = 8;
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: the caller's contract.
        Self(unsafe { _mm256_loadu_ps(at) })
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: the caller's contract.
        unsafe { _mm256_storeu_ps(at, self.0) }
    }
    #[inline(always)]
    unsafe fn load_part(at: *const f32, count: usize) -> Self {
        // SAFETY: the caller's contract: what the mask leaves out is not read.
        Self(unsafe { _mm256_maskload_ps(at, first_lanes(count)) })
    }
    #[inline(always)]
    unsafe fn store_part(self, at: *mut f32, count: usize) {
        // SAFETY: the caller's contract: what the mask leaves out is not written.
        unsafe { _mm256_maskstore_ps(at, first_lanes(count), self.0) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's contract.
        Self(unsafe { _mm256_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn mul_add(self, by: Self, to: Self) -> Self {
        // SAFETY: the caller's contract.
        Self(unsafe { _mm256_fmadd_ps(self.0, by.0, to.0) })
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller's contract.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        // SAFETY: the caller's contract.
        Self(unsafe { _mm256_min_ps(_mm256_max_ps(self.0, low.0), high.0) })
    }
}

/// A mask of the first `count` of eight lanes.
///
/// # Safety
/// Needs AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn first_lanes(count: usize) -> __m256i {
    // SAFETY: the caller's contract.
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lanes)
    }
}

impl Lanes for Plain {
    const WIDTH: usize = 4;
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: four values are there; a pointer to f32 may be read as an array of them.
        Self(unsafe { at.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: as `load`.
        unsafe { at.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_part(at: *const f32, count: usize) -> Self {
        // SAFETY: the caller's contract: `count` values are there.
        Self(std::array::from_fn(|lane| if lane < count { unsafe { *at.add(lane) } } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn store_part(self, at: *mut f32, count: usize) {
        for (lane, value) in self.0.into_iter().enumerate().take(count) {
            // SAFETY: the caller's contract: there is room for `count` values.
            unsafe { *at.add(lane) = value };
        }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }
    #[inline(always)]
    unsafe fn mul_add(self, by: Self, to: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] * by.0[lane] + to.0[lane]))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + other.0[lane]))
    }
    #[inline(always)]
    unsafe fn clamp(self, low: Self, high: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane].max(low.0[lane]).min(high.0[lane])))
    }
}
