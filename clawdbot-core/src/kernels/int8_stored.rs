//! int8 panels of codes and scales that are taken over from a file as they are: nothing is rounded.

use super::Result;
use super::int4::{Int4Scales, put_scale};
use super::matrix::{Rows, for_each_part, interleave};
use super::quantize::groups;
use super::simd::LANES;
use crate::error::Error;
use crate::memory::AlignedBuf;
use crate::threads::Region;

impl Rows<'_> {
    pub(super) fn pack_stored8(
        &self,
        region: &Region<'_>,
        (group, kind): (usize, Int4Scales),
        codes: &mut [i8],
        scales: &mut [u16],
    ) -> Result<()> {
        let (blocks, groups) = (self.k.div_ceil(4), groups(self.k, group));
        let lines = kind.lines(groups);
        let per_task = self.panels_per_task(region);
        let parts = codes
            .chunks_mut((per_task * blocks * 64).max(1))
            .zip(scales.chunks_mut((per_task * lines * LANES).max(1)));
        for_each_part(region, parts, |task, (codes, scales)| {
            // Rows of codes of one panel, k padded with zeros.
            let mut panel_codes = AlignedBuf::<i8>::zeroed(LANES * blocks * 4)?;
            let (mut stored, mut row_scales) = (Vec::new(), Vec::new());
            let panels = codes.chunks_mut(blocks * 64).zip(scales.chunks_mut(lines * LANES));
            for (panel, (codes, scales)) in panels.enumerate() {
                let scales = scales.as_chunks_mut::<LANES>().0;
                let first = (task * per_task + panel) * LANES;
                let columns = self.each_row(first, &mut stored, |column, source, index, stored| {
                    if source.stored8() != Some((group, kind)) {
                        let message = format!("row {index}: expected int8 weights with {kind:?} scales");
                        return Err(Error::internal(message));
                    }
                    let row_codes = &mut panel_codes[column * blocks * 4..][..self.k];
                    row_scales.clear();
                    source.read_stored8(index, stored, row_codes, &mut row_scales)?;
                    check(index, row_scales.len(), groups)?;
                    for (g, scale) in row_scales.iter().enumerate() {
                        put_scale(kind, scales, g, column, *scale)?;
                    }
                    Ok(())
                })?;
                panel_codes[columns * blocks * 4..].fill(0);
                interleave::<i8, 4>(&panel_codes, codes);
            }
            Ok(())
        })
    }
}

/// # Errors
/// `InvalidModel` for another number of scales than of groups.
fn check(row: usize, scales: usize, groups: usize) -> Result<()> {
    if scales != groups {
        let message = format!("row {row}: expected {groups} scales, found {scales}");
        return Err(Error::invalid_model(message).with("row", row));
    }
    Ok(())
}
