//! Packed matrices as arrays that a file can hold: the same bytes as in memory, so that they can be used in place.

use super::matrix::{Panels, Sizes};
use super::quantize::groups;
use super::simd::LANES;
use super::{ComputeFormat, Int4Scales, PackedMatrix, Result};
use crate::error::Error;
use crate::memory::{Panel, Pod, bytes_of};

/// What the elements of an array are. Little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PanelElement {
    /// Codes.
    I8,
    /// Pairs of codes of four bits.
    U8,
    /// Weights or scales.
    Bf16,
    /// Weights.
    F32,
}

/// One of the arrays of a packed matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PanelPart {
    /// Told behind the matrix's name.
    pub(crate) suffix: &'static str,
    pub(crate) element: PanelElement,
    /// Outermost dimension first, in elements: see the layouts at the head of `matrix.rs`.
    pub(crate) shape: Vec<usize>,
}

impl PanelPart {
    /// Elements. `PackedMatrix::parts` checked that they can be counted.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Where the arrays of packed matrices come from.
pub(crate) trait PanelSource {
    /// The array `part`, of `part.len()` elements of type `T`.
    ///
    /// # Errors
    /// When it is not there, or not as `part` says.
    fn panel<T: Pod>(&mut self, part: &PanelPart) -> Result<Panel<T>>;
}

impl PackedMatrix {
    /// The arrays of a packed `[n, k]`, in the order in which they are stored.
    ///
    /// # Errors
    /// `OutOfBudget` when a size overflows, `InvalidArgument` for an impossible group, `UnsupportedModel` on a big-endian
    /// machine.
    pub(crate) fn parts(format: ComputeFormat, n: usize, k: usize) -> Result<Vec<PanelPart>> {
        if cfg!(target_endian = "big") {
            return Err(Error::unsupported_model("packed weights need a little-endian machine"));
        }
        let panels = n.div_ceil(LANES);
        let (element, block) = match format {
            ComputeFormat::Int8 { .. } => (PanelElement::I8, 4),
            ComputeFormat::Int4 { .. } => (PanelElement::U8, 8),
            ComputeFormat::Bf16 => (PanelElement::Bf16, 2),
            ComputeFormat::F32 => (PanelElement::F32, 1),
        };
        // Two codes of four bits are one element.
        let elements = if element == PanelElement::U8 { block / 2 } else { block };
        let data = PanelPart { suffix: "", element, shape: vec![panels, k.div_ceil(block), LANES, elements] };
        let mut parts = vec![data];
        if let ComputeFormat::Int4 { scales, .. } = format
            && scales != Int4Scales::Bf16
        {
            return Err(Error::unsupported_model(format!(
                "int4 weights with {scales:?} scales cannot be stored"
            )));
        }
        if let Some((group, _)) = format.activations() {
            let shape = vec![panels, groups(k, group), LANES];
            parts.push(PanelPart { suffix: ".scales", element: PanelElement::Bf16, shape });
        }
        let Sizes { data, scales } = Sizes::of(format, n, k)?;
        let expected = [data, scales];
        match parts.iter().zip(expected).all(|(part, len)| part.len() == len) {
            true => Ok(parts),
            false => Err(Error::internal(format!("the arrays of {n} x {k} do not have the packed size"))),
        }
    }

    /// The bytes of [`parts`](Self::parts).
    pub(crate) fn part_bytes(&self) -> Vec<&[u8]> {
        match &self.panels {
            Panels::Int8 { codes, scales, .. } => vec![bytes_of(codes), bytes_of(scales)],
            Panels::Int4 { codes, scales, .. } => vec![bytes_of(codes), bytes_of(scales)],
            Panels::Bf16(data) => vec![bytes_of(data)],
            Panels::F32(data) => vec![bytes_of(data)],
        }
    }

    /// A matrix of arrays that were packed before.
    ///
    /// # Errors
    /// As [`parts`](Self::parts), and those of `source`.
    pub(crate) fn from_parts(
        format: ComputeFormat,
        n: usize,
        k: usize,
        source: &mut impl PanelSource,
    ) -> Result<Self> {
        let parts = Self::parts(format, n, k)?;
        let panels = match format {
            ComputeFormat::Int8 { group, rotated } => Panels::Int8 {
                codes: checked(source, &parts[0])?,
                scales: checked(source, &parts[1])?,
                group,
                rotated,
            },
            ComputeFormat::Int4 { group, scales: kind, rotated } => Panels::Int4 {
                codes: checked(source, &parts[0])?,
                scales: checked(source, &parts[1])?,
                group,
                kind,
                rotated,
            },
            ComputeFormat::Bf16 => Panels::Bf16(checked(source, &parts[0])?),
            ComputeFormat::F32 => Panels::F32(checked(source, &parts[0])?),
        };
        Ok(PackedMatrix { n, k, panels })
    }
}

/// Kernels rely on the length.
fn checked<T: Pod>(source: &mut impl PanelSource, part: &PanelPart) -> Result<Panel<T>> {
    let panel = source.panel::<T>(part)?;
    match panel.len() == part.len() {
        true => Ok(panel),
        false => {
            Err(Error::invalid_model(format!("expected {} elements, found {}", part.len(), panel.len())))
        }
    }
}
