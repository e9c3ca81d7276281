//! Packed matrices as arrays in files: the same bytes as in memory, so that mapped files are used in place.

use super::codes::{CodeLayout, Int4Codes, Int6Codes, Int8Codes};
use super::format::{Coding, Sizes};
use super::int6;
use super::panels::{CodePanels, Panels};
use super::quantize::groups;
use super::simd::LANES;
use super::{ComputeFormat, GroupScales, PackedMatrix, Result};
use crate::error::Error;
use crate::memory::{Panel, Pod, bytes_of};

/// What the elements of an array are. Little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PanelElement {
    /// Codes.
    I8,
    /// Codes of four or six bits.
    U8,
    /// Weights or scales.
    Bf16,
    /// Weights.
    F32,
    /// Lines of scales, see [`GroupScales`].
    U16,
}

/// One of the arrays of a packed matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PanelPart {
    /// What follows the name of the matrix in the name of the array.
    pub suffix: &'static str,
    /// Type of its elements.
    pub element: PanelElement,
    /// Outermost dimension first, in elements: see the layouts at the head of `matrix.rs`.
    pub shape: Vec<usize>,
}

impl PanelPart {
    /// Elements. `PackedMatrix::parts` checked that they can be counted.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Where the arrays of packed matrices come from.
pub trait PanelSource {
    /// The array `part`: [`part.elements()`](PanelPart::elements) elements of type `T`.
    ///
    /// # Errors
    /// When it does not exist, or has another type or shape.
    fn panel<T: Pod>(&mut self, part: &PanelPart) -> Result<Panel<T>>;
}

/// Names of kinds of scales in files.
const SCALES: [(&str, GroupScales); 7] = [
    ("bf16", GroupScales::Bf16),
    ("f16", GroupScales::F16),
    ("f32", GroupScales::F32),
    ("f16min", GroupScales::F16Min),
    ("f32min", GroupScales::F32Min),
    ("super", GroupScales::Superblock),
    ("super16", GroupScales::Superblock16),
];

impl ComputeFormat {
    /// Its name in files: `bf16`, `f32`, or bits, group and scales (and whether weights are rotated): `int4/32/super`.
    pub fn name(self) -> String {
        let scales = |kind| SCALES.iter().find(|(_, known)| *known == kind).map_or("", |(name, _)| name);
        let rotation = |rotated| if rotated { "/rotated" } else { "" };
        match self {
            ComputeFormat::Int8 { group, rotated } => format!("int8/{group}/bf16{}", rotation(rotated)),
            ComputeFormat::Stored8 { group, scales: kind } => format!("int8/{group}/{}", scales(kind)),
            ComputeFormat::Stored6 { group, scales: kind } => format!("int6/{group}/{}", scales(kind)),
            ComputeFormat::Int4 { group, scales: kind, rotated } => {
                format!("int4/{group}/{}{}", scales(kind), rotation(rotated))
            }
            ComputeFormat::Bf16 => "bf16".to_owned(),
            ComputeFormat::F32 => "f32".to_owned(),
        }
    }

    /// The format of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        let mut parts = name.split('/');
        let bits = parts.next()?;
        let format = match bits {
            "bf16" => ComputeFormat::Bf16,
            "f32" => ComputeFormat::F32,
            _ => {
                let group = parts.next()?.parse().ok()?;
                let kind = parts.next()?;
                let scales = SCALES.iter().find(|(known, _)| *known == kind).map(|&(_, scales)| scales)?;
                let rotated = match parts.next() {
                    None => false,
                    Some("rotated") if scales == GroupScales::Bf16 => true,
                    Some(_) => return None,
                };
                match bits {
                    "int8" if scales == GroupScales::Bf16 => ComputeFormat::Int8 { group, rotated },
                    "int8" => ComputeFormat::Stored8 { group, scales },
                    "int6" => ComputeFormat::Stored6 { group, scales },
                    "int4" => ComputeFormat::Int4 { group, scales, rotated },
                    _ => return None,
                }
            }
        };
        parts.next().is_none().then_some(format)
    }
}

impl PackedMatrix {
    /// The arrays of a packed `[n, k]`, in the order in which they are stored.
    ///
    /// # Errors
    /// `OutOfMemory` when a size overflows, `InvalidArgument` for an impossible group, `Unsupported` on a big-endian machine.
    pub fn parts(format: ComputeFormat, n: usize, k: usize) -> Result<Vec<PanelPart>> {
        if cfg!(target_endian = "big") {
            return Err(Error::Unsupported("packed weights need a little-endian machine".to_owned()));
        }
        let panels = n.div_ceil(LANES);
        let (element, block) = match format {
            ComputeFormat::Int8 { .. } | ComputeFormat::Stored8 { .. } => (PanelElement::I8, 4),
            ComputeFormat::Stored6 { .. } => (PanelElement::U8, 16),
            ComputeFormat::Int4 { .. } => (PanelElement::U8, 8),
            ComputeFormat::Bf16 => (PanelElement::Bf16, 2),
            ComputeFormat::F32 => (PanelElement::F32, 1),
        };
        // Bytes of codes of less than eight bits: of a column or, of six bits, of a line.
        let inner = match format {
            ComputeFormat::Stored6 { .. } => [int6::LINES, 4 * LANES],
            ComputeFormat::Int4 { .. } => [LANES, 4],
            _ => [LANES, block],
        };
        let shape = vec![panels, k.div_ceil(block), inner[0], inner[1]];
        let data = PanelPart { suffix: "", element, shape };
        let mut parts = vec![data];
        let Sizes { data, scales } = Sizes::of(format, n, k)?;
        if let Some(Coding { group, scales: kind, .. }) = format.coding() {
            let element = if kind == GroupScales::Bf16 { PanelElement::Bf16 } else { PanelElement::U16 };
            let shape = vec![panels, kind.lines(groups(k, group)), LANES];
            parts.push(PanelPart { suffix: ".scales", element, shape });
        }
        let expected = [data, scales];
        match parts.iter().zip(expected).all(|(part, len)| part.elements() == len) {
            true => Ok(parts),
            false => Err(Error::Internal(format!("the arrays of {n} x {k} do not have the packed size"))),
        }
    }

    /// The bytes of [`parts`](Self::parts).
    pub fn part_bytes(&self) -> Vec<&[u8]> {
        match &self.panels {
            Panels::Int8(CodePanels { codes, scales, .. }) => vec![bytes_of(codes), bytes_of(scales)],
            Panels::Int4(CodePanels { codes, scales, .. })
            | Panels::Int6(CodePanels { codes, scales, .. }) => {
                vec![bytes_of(codes), bytes_of(scales)]
            }
            Panels::Bf16(data) => vec![bytes_of(data)],
            Panels::F32(data) => vec![bytes_of(data)],
            Panels::Joined(parts) => parts.iter().flat_map(Self::part_bytes).collect(),
        }
    }

    /// A matrix of arrays that were packed before.
    ///
    /// # Errors
    /// As [`parts`](Self::parts), and those of `source`.
    pub fn from_parts(
        format: ComputeFormat,
        n: usize,
        k: usize,
        source: &mut impl PanelSource,
    ) -> Result<Self> {
        let parts = Self::parts(format, n, k)?;
        let panels = match format {
            ComputeFormat::Int8 { .. } | ComputeFormat::Stored8 { .. } => {
                code_panels::<Int8Codes>(format, &parts, source)?
            }
            ComputeFormat::Stored6 { .. } => code_panels::<Int6Codes>(format, &parts, source)?,
            ComputeFormat::Int4 { .. } => code_panels::<Int4Codes>(format, &parts, source)?,
            ComputeFormat::Bf16 => Panels::Bf16(checked(source, &parts[0])?),
            ComputeFormat::F32 => Panels::F32(checked(source, &parts[0])?),
        };
        Ok(PackedMatrix { n, k, panels })
    }
}

/// The panels of a format with codes.
fn code_panels<L: CodeLayout>(
    format: ComputeFormat,
    parts: &[PanelPart],
    source: &mut impl PanelSource,
) -> Result<Panels> {
    let coding = format.coding().expect("a format of codes");
    Ok(L::panels(CodePanels {
        codes: checked(source, &parts[0])?,
        scales: checked(source, &parts[1])?,
        coding,
    }))
}

/// An array of the source, whose length kernels rely on.
fn checked<T: Pod>(source: &mut impl PanelSource, part: &PanelPart) -> Result<Panel<T>> {
    let panel = source.panel::<T>(part)?;
    match panel.len() == part.elements() {
        true => Ok(panel),
        false => Err(Error::invalid_weights(format!(
            "expected {} elements, found {}",
            part.elements(),
            panel.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_formats_round_trip() {
        let mut formats = vec![ComputeFormat::Bf16, ComputeFormat::F32];
        for rotated in [false, true] {
            formats.push(ComputeFormat::Int8 { group: 64, rotated });
            formats.push(ComputeFormat::Int4 { group: 32, scales: GroupScales::Bf16, rotated });
        }
        for &(_, scales) in &SCALES[1..] {
            formats.push(ComputeFormat::Stored8 { group: 16, scales });
            formats.push(ComputeFormat::Stored6 { group: 16, scales });
            formats.push(ComputeFormat::Int4 { group: 32, scales, rotated: false });
        }
        for format in formats {
            assert_eq!(ComputeFormat::from_name(&format.name()), Some(format), "{}", format.name());
        }
        for other in
            ["", "int8", "int8/x/bf16", "int8/64/b", "int8/64/f16/rotated", "int4/32/f16/more", "f32/1"]
        {
            assert_eq!(ComputeFormat::from_name(other), None, "{other}");
        }
    }
}
