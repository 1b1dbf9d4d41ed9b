//! Vector kernels: one generic source each, compiled for every instruction set, and the choice
//! between them at run time. This is the only place where arithmetic is `unsafe`. It knows
//! pointers, strides and lanes; shapes are checked by its callers.

mod lanes;
mod portable;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

pub(crate) mod attention;
pub(crate) mod dense;
pub(crate) mod encoder;
pub(crate) mod matmul;
pub(crate) mod quantise;
pub(crate) mod rows;

/// Defines `fn name(cpu: Cpu, ...)` that calls the generic `kernel::<S>(...)` compiled for the
/// instruction set that `cpu` proves. With `[...]` further generic parameters are passed on.
macro_rules! dispatch {
    ($(#[$meta:meta])* fn $name:ident $([$($bounds:tt)*] [$($pass:tt)*])?
     ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $kernel:ident) => {
        $(#[$meta])*
        pub(crate) unsafe fn $name $(<$($bounds)*>)? (
            cpu: crate::cpu::Cpu, $($arg: $ty),*
        ) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(
                enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
            )]
            unsafe fn avx512 $(<$($bounds)*>)? ($($arg: $ty),*) $(-> $ret)? {
                $kernel::<crate::simd::avx512::Avx512 $(, $($pass)*)?>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
            unsafe fn avx_vnni $(<$($bounds)*>)? ($($arg: $ty),*) $(-> $ret)? {
                $kernel::<crate::simd::avx2::AvxVnni $(, $($pass)*)?>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2 $(<$($bounds)*>)? ($($arg: $ty),*) $(-> $ret)? {
                $kernel::<crate::simd::avx2::Avx2 $(, $($pass)*)?>($($arg),*)
            }
            match cpu.isa() {
                #[cfg(target_arch = "x86_64")]
                crate::isa::Isa::Avx512Vnni => avx512 $(::<$($pass)*>)? ($($arg),*),
                #[cfg(target_arch = "x86_64")]
                crate::isa::Isa::AvxVnni => avx_vnni $(::<$($pass)*>)? ($($arg),*),
                #[cfg(target_arch = "x86_64")]
                crate::isa::Isa::Avx2 => avx2 $(::<$($pass)*>)? ($($arg),*),
                #[cfg(not(target_arch = "x86_64"))]
                crate::isa::Isa::Avx512Vnni | crate::isa::Isa::AvxVnni | crate::isa::Isa::Avx2 => {
                    $kernel::<crate::simd::portable::Portable $(, $($pass)*)?>($($arg),*)
                }
                crate::isa::Isa::Scalar => {
                    $kernel::<crate::simd::portable::Portable $(, $($pass)*)?>($($arg),*)
                }
            }
        }
    };
}
use dispatch;
