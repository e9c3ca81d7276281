//! The instruction sets: one feature list each, which feeds the detector and the compiler.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::{Kernel, KernelSet, kernel_set, slot};

pub(super) mod scalar;

/// An ISA: `entry` compiles a kernel with the features, `detected` asks the CPU for the same features.
macro_rules! isa {
    ($(#[$doc:meta])* $module:ident, $name:literal, $arch:literal, $detect:ident, $token:ident,
        int8: $mr:literal x $np:literal, gemv: $gemv_int8:literal / $gemv_int4:literal, float: $fmr:literal x $fnp:literal,
        [$($feature:tt),+ $(,)?]) => {
        $(#[$doc])*
        #[cfg(target_arch = $arch)]
        pub(super) mod $module {
            use super::*;
            use crate::simd::$token;

            /// # Safety
            /// The CPU must have the features: `detected()`.
            $(#[target_feature(enable = $feature)])+
            pub(super) unsafe fn entry<K: Kernel>(args: K::Args<'_>) -> K::Output {
                // SAFETY: the clause above: the CPU has the features, which are those of the token.
                K::run(unsafe { $token::assume() }, args)
            }

            pub(crate) const SET: KernelSet = kernel_set!($name, $arch, entry, int8: $mr x $np, gemv: $gemv_int8 / $gemv_int4, float: $fmr x $fnp);
            pub(crate) static KERNELS: KernelSet = SET;

            pub(crate) fn detected() -> bool {
                $(std::arch::$detect!($feature))&&+
            }
        }
    };
}

/// An [`isa!`] of x86-64.
macro_rules! x86_64_isa {
    ($(#[$doc:meta])* $module:ident, $name:literal, $($rest:tt)+) => {
        isa!($(#[$doc])* $module, $name, "x86_64", is_x86_feature_detected, $($rest)+);
    };
}

/// An [`isa!`] of AArch64.
macro_rules! aarch64_isa {
    ($(#[$doc:meta])* $module:ident, $name:literal, $($rest:tt)+) => {
        isa!($(#[$doc])* $module, $name, "aarch64", is_aarch64_feature_detected, $($rest)+);
    };
}

x86_64_isa!(
    /// AVX-512 with VNNI.
    avx512_vnni, "avx512-vnni", Avx512, int8: 4 x 3, gemv: 96 / 24, float: 8 x 3,
    ["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx2", "fma", "f16c"]
);

/// [`avx512_vnni`] with the int8 tiles of AMX for many rows.
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512_amx {
    use std::sync::OnceLock;

    use super::*;
    use crate::attention::AttendTiled;
    use crate::gemm_amx::{PANELS, Tiled};
    use crate::tiles::{Amx, permitted};
    use crate::{GemvRows, Slot, TilePanels, self_test};

    /// With tiles if they may be used, else the products of [`avx512_vnni`], which have the same bits.
    pub(crate) static KERNELS: KernelSet = SET;
    pub(crate) const SET: KernelSet = KernelSet {
        refusal,
        int8_gemm: Slot(|args| match refusal() {
            None => TILED.int8_gemm.call(args),
            Some(_) => avx512_vnni::KERNELS.int8_gemm.call(args),
        }),
        attend_int8: Slot(|args| match refusal() {
            None => TILED.attend_int8.call(args),
            Some(_) => avx512_vnni::KERNELS.attend_int8.call(args),
        }),
        ..DIRECT
    };

    /// With tiles: to be called once they are permitted.
    static TILED: KernelSet = DIRECT;
    const DIRECT: KernelSet = KernelSet {
        name: "avx512-amx",
        int8_gemm_name: "x86_64-int8-avx512-amx-32x2x16",
        tile_panels: TilePanels { int8: PANELS, ..avx512_vnni::SET.tile_panels },
        // Where tiles are refused, more rows go to the products of `avx512_vnni`, sooner than it would take them: slower.
        gemv_rows: GemvRows { int8: 16, int4: 12 },
        // SAFETY: `dispatch` hands out sets of this module only after `detected`, which asks for all features of
        // `avx512_vnni` and for the tiles; `KERNELS` and `difference` use them only after `permitted`.
        int8_gemm: Slot(|args| unsafe { avx512_vnni::entry::<Tiled<Amx>>(args) }),
        // SAFETY: as for `int8_gemm`: `detected` and `permitted` before any use.
        attend_int8: Slot(|args| unsafe { avx512_vnni::entry::<AttendTiled<Amx>>(args) }),
        ..avx512_vnni::SET
    };

    static REFUSAL: OnceLock<Option<String>> = OnceLock::new();

    /// Why tiles are not used. The first call asks the system for them and tests them.
    fn refusal() -> Option<&'static str> {
        let find = || match permitted() {
            true => self_test::difference(&TILED).unwrap_or_else(|error| Some(error.to_string())),
            false => Some(NOT_PERMITTED.to_owned()),
        };
        REFUSAL.get_or_init(find).as_deref()
    }

    /// What [`refusal`] has found, if it was called.
    pub(crate) fn found() -> Option<&'static str> {
        REFUSAL.get()?.as_deref()
    }

    pub(crate) fn detected() -> bool {
        avx512_vnni::detected() && Amx::detected()
    }
}

/// Linux refuses where a thread's alternate signal stack is too small for tiles, or a sandbox forbids the system call.
#[cfg(target_arch = "x86_64")]
pub(super) const NOT_PERMITTED: &str = "the system does not permit the tile registers";

/// [`avx512_vnni`] with the bf16 dot products of AVX512-BF16, which have numerics of their own.
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512_bf16 {
    use super::*;
    use crate::bf16_dot::{Bf16Dot, vdpbf16_model};
    use crate::gemm_bf16::{Dot, Vdpbf16};
    use crate::simd::Avx512;

    /// # Safety
    /// The CPU must have the features: `detected()`.
    #[target_feature(enable = "avx512f", enable = "avx512bw", enable = "avx512dq", enable = "avx512vl")]
    #[target_feature(
        enable = "avx512vnni",
        enable = "avx512bf16",
        enable = "avx2",
        enable = "fma",
        enable = "f16c"
    )]
    unsafe fn entry<K: Kernel>(args: K::Args<'_>) -> K::Output {
        // SAFETY: the clause above: the CPU has the features, among them those of the token.
        K::run(unsafe { Avx512::assume() }, args)
    }

    pub(crate) static KERNELS: KernelSet = KernelSet {
        name: "avx512-bf16",
        float_gemm_name: "x86_64-bf16-avx512-bf16-8x3x16",
        bf16_dot: Some(Bf16Dot {
            // SAFETY: `dispatch` hands out this set only after `detected`, which asks for all features of `entry`.
            product: |args| unsafe { entry::<Dot<Vdpbf16, 8, 3>>(args) },
            tile_panels: 3,
            model: vdpbf16_model,
        }),
        ..avx512_vnni::SET
    };

    pub(crate) fn detected() -> bool {
        avx512_vnni::detected() && std::arch::is_x86_feature_detected!("avx512bf16")
    }
}

/// [`avx512_amx`] with the bf16 tiles of AMX, which have numerics of their own.
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512_amx_bf16 {
    use super::*;
    use crate::bf16_dot::{Bf16Dot, tdpbf16_model};
    use crate::gemm_bf16_amx::{AmxBf16, PANELS, Tiled};

    pub(crate) static KERNELS: KernelSet = KernelSet {
        name: "avx512-amx-bf16",
        float_gemm_name: "x86_64-bf16-avx512-amx-bf16-32x2x16",
        bf16_dot: Some(Bf16Dot {
            // SAFETY: `dispatch` hands out this set only after `detected`, which asks for all features of `avx512_vnni` and for
            // the tiles, and (`Proof::Tiles`) after `permitted`.
            product: |args| unsafe { avx512_vnni::entry::<Tiled<AmxBf16>>(args) },
            tile_panels: PANELS,
            model: tdpbf16_model,
        }),
        ..avx512_amx::SET
    };

    pub(crate) fn detected() -> bool {
        avx512_amx::detected() && AmxBf16::detected()
    }
}

x86_64_isa!(
    /// AVX2 with the dot products of AVX-VNNI.
    avx_vnni, "avx-vnni", AvxVnni, int8: 4 x 1, gemv: 8 / 8, float: 6 x 1, ["avxvnni", "avx2", "fma", "f16c"]
);

x86_64_isa!(
    /// AVX2 with FMA, and the f16 conversion that all such CPUs have.
    avx2, "avx2", Avx2Maddubs, int8: 4 x 1, gemv: 8 / 8, float: 6 x 1, ["avx2", "fma", "f16c"]
);

/// [`neon_dotprod`] with the matrix products of i8mm (Armv8.6, optional since Armv8.2) for many rows of int8.
#[cfg(target_arch = "aarch64")]
pub(super) mod neon_i8mm {
    use super::*;
    use crate::Slot;
    use crate::gemm_i8mm::Gemm;
    use crate::simd::NeonDotprod;

    /// # Safety
    /// The CPU must have the features: `detected()`.
    #[target_feature(enable = "neon", enable = "dotprod", enable = "i8mm")]
    unsafe fn entry<K: Kernel>(args: K::Args<'_>) -> K::Output {
        // SAFETY: the clause above: the CPU has the features, among them those of the token.
        K::run(unsafe { NeonDotprod::assume() }, args)
    }

    pub(crate) static KERNELS: KernelSet = SET;
    pub(crate) const SET: KernelSet = KernelSet {
        name: "neon-i8mm",
        int8_gemm_name: "aarch64-int8-neon-i8mm-4x1x16",
        // SAFETY: `dispatch` hands out this set only after `detected`, which asks for all features of `entry`.
        int8_gemm: Slot(|args| unsafe { entry::<Gemm>(args) }),
        ..neon_dotprod::SET
    };

    pub(crate) fn detected() -> bool {
        neon_dotprod::detected() && std::arch::is_aarch64_feature_detected!("i8mm")
    }
}

/// [`neon_i8mm`] with the bf16 dot products of BF16 (Armv8.6, optional since Armv8.2), which have numerics of their own.
#[cfg(target_arch = "aarch64")]
pub(super) mod neon_bf16 {
    use super::*;
    use crate::bf16_dot::{Bf16Dot, bfdot_model};
    use crate::gemm_bf16::{Bfdot, Dot};
    use crate::simd::NeonDotprod;

    /// # Safety
    /// The CPU must have the features: `detected()`.
    #[target_feature(enable = "neon", enable = "dotprod", enable = "bf16")]
    unsafe fn entry<K: Kernel>(args: K::Args<'_>) -> K::Output {
        // SAFETY: the clause above: the CPU has the features, among them those of the token.
        K::run(unsafe { NeonDotprod::assume() }, args)
    }

    pub(crate) static KERNELS: KernelSet = KernelSet {
        name: "neon-bf16",
        float_gemm_name: "aarch64-bf16-neon-bf16-4x1x16",
        bf16_dot: Some(Bf16Dot {
            // SAFETY: `dispatch` hands out this set only after `detected`, which asks for all features of `entry`.
            product: |args| unsafe { entry::<Dot<Bfdot, 4, 1>>(args) },
            tile_panels: 1,
            model: bfdot_model,
        }),
        ..neon_i8mm::SET
    };

    pub(crate) fn detected() -> bool {
        neon_i8mm::detected() && std::arch::is_aarch64_feature_detected!("bf16")
    }
}

aarch64_isa!(
    /// NEON with the dot product extension (Armv8.2, optional there; Armv8.4).
    neon_dotprod, "neon-dotprod", NeonDotprod, int8: 4 x 1, gemv: 8 / 8, float: 6 x 1, ["neon", "dotprod"]
);

aarch64_isa!(
    /// NEON, which every AArch64 CPU with an operating system has.
    neon, "neon", NeonWidening, int8: 4 x 1, gemv: 8 / 8, float: 6 x 1, ["neon"]
);
