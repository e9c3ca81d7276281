//! Attention of a batch: writes keys and values into the cache, then attends over its pages.

use clawdbot_kernels::attention::{
    self, Attention, Element, Float, Int8, Int8Head, Int8Page, KvSequence, KvSlots, Mask, PAGE_TOKENS,
    Scores, Workspaces, WriteArgs,
};

use super::Cpu;
use crate::cache::{KvCache, KvShape, PageData, PageId};
use crate::error::{Error, Result};
use crate::forward::batch::Batch;
use crate::forward::ops::LayerRef;
use crate::options::KvType;
use crate::spec::{HeadShape, KeySource};

/// From this many rows on, threads share the writing.
const MANY_ROWS: usize = 16;

/// Which rows go into which pages: the same for all layers of a group.
pub(crate) struct WritePlan(Vec<Vec<PageWrite>>);

/// Consecutive rows at consecutive positions of one page.
struct PageWrite {
    page: PageId,
    row: usize,
    slot: usize,
    rows: usize,
}

impl WritePlan {
    /// # Errors
    /// `Internal` when a page is missing.
    pub(crate) fn new(cache: &KvCache, batch: &Batch<'_>) -> Result<Self> {
        let of_group = |group: usize| {
            let mut writes = Vec::new();
            if cache.is_recurrent(group) {
                return Ok(writes);
            }
            let mut row = 0;
            for sequence in &batch.sequences {
                let (table, end) = (sequence.tables.of_group(group), row + sequence.rows);
                while row < end {
                    let (index, slot) =
                        (batch.positions[row] / PAGE_TOKENS, batch.positions[row] % PAGE_TOKENS);
                    let page = table.get(index).copied().flatten().ok_or_else(page_missing)?;
                    let rows = (PAGE_TOKENS - slot).min(end - row);
                    writes.push(PageWrite { page, row, slot, rows });
                    row += rows;
                }
            }
            writes.sort_unstable_by_key(|write| write.page);
            Ok(writes)
        };
        (0..cache.groups()).map(of_group).collect::<Result<_>>().map(WritePlan)
    }
}

/// The buffers of [`attend`].
pub(crate) struct AttendBuffers<'a> {
    /// Rotated heads of all rows, `[rows, qkv_size]`.
    pub(crate) qkv: &'a [f32],
    /// `[rows, num_attention_heads * head_dim]`
    pub(crate) out: &'a mut [f32],
    pub(crate) workspaces: &'a mut Workspaces,
}

/// See [`crate::forward::ops::Ops::attend`].
///
/// # Errors
/// `Internal` when a page is missing.
pub(crate) fn attend(
    cpu: &Cpu<'_>,
    layer: LayerRef<'_>,
    sinks: Option<&[f32]>,
    cache: &mut KvCache,
    batch: &Batch<'_>,
    plan: &WritePlan,
    buffers: AttendBuffers<'_>,
) -> Result<()> {
    match cache.kv_type() {
        KvType::F32 => attend_kind::<Float<f32>>(cpu, layer, sinks, cache, batch, plan, buffers),
        KvType::Bf16 | KvType::Auto => {
            attend_kind::<Float<u16>>(cpu, layer, sinks, cache, batch, plan, buffers)
        }
        KvType::Int8 => attend_kind::<Int8>(cpu, layer, sinks, cache, batch, plan, buffers),
    }
}

fn attend_kind<K: PageKind>(
    cpu: &Cpu<'_>,
    layer_ref: LayerRef<'_>,
    sinks: Option<&[f32]>,
    cache: &mut KvCache,
    batch: &Batch<'_>,
    plan: &WritePlan,
    buffers: AttendBuffers<'_>,
) -> Result<()> {
    let (LayerRef { spec, layer }, AttendBuffers { qkv, out, workspaces }) = (layer_ref, buffers);
    let (window, keys, heads) = (spec.layers[layer].window, spec.layers[layer].keys, spec.heads(layer));
    // A layer that shares keys reads those of another, which are written already.
    if !matches!(keys, KeySource::Layer(_)) {
        store::<K>(cpu, layer_ref, cache, plan, qkv)?;
    }
    let (pool, index) = (cache.pool(layer), cache.index_of(layer));
    let (group, shape) = (cache.group_of(layer), cache.shape(layer));
    let mut sequences = Vec::with_capacity(batch.sequences.len());
    let mut row = 0;
    for sequence in &batch.sequences {
        let rows = row..row + sequence.rows;
        row = rows.end;
        let Some(positions) = batch.positions.get(rows.clone()).filter(|positions| !positions.is_empty())
        else {
            continue;
        };
        let first_page = window.map_or(0, |window| (positions[0] + 1).saturating_sub(window) / PAGE_TOKENS);
        let last_page = positions[positions.len() - 1] / PAGE_TOKENS;
        let table = sequence.tables.of_group(group).get(first_page..=last_page).ok_or_else(page_missing)?;
        let page = |id: &Option<PageId>| K::page(pool.page((*id)?)?, index, &shape);
        let pages = table.iter().map(page).collect::<Option<_>>().ok_or_else(page_missing)?;
        sequences.push(KvSequence { rows, first_page, pages });
    }
    let problem = Attention {
        qkv,
        positions: &batch.positions,
        heads: spec.num_attention_heads,
        kv_heads: heads.num_key_value_heads,
        head_dim: heads.head_dim,
        window,
        mask: match spec.layers[layer].chunked {
            true => Mask::Chunked,
            false if spec.bidirectional => Mask::Bidirectional,
            false => Mask::Causal,
        },
        scores: Scores { divisor: spec.attention.divisor, softcap: spec.attention.softcap, sinks },
        sequences: &sequences,
    };
    attention::attend::<K>(cpu.kernels, cpu.region, &problem, out, workspaces);
    Ok(())
}

/// How the parts of a kind of page are found.
trait PageKind: KvSlots {
    /// Layer `index` of a page; `None` when the page is of another kind.
    fn page<'a>(data: &'a PageData, index: usize, shape: &KvShape) -> Option<Self::Page<'a>>;
    /// The heads of layer `index` of a page; none when the page is of another kind.
    fn heads<'a>(data: &'a mut PageData, index: usize, shape: &KvShape) -> Vec<Self::HeadMut<'a>>;
}

impl<E: StoredElement> PageKind for Float<E> {
    fn page<'a>(data: &'a PageData, index: usize, shape: &KvShape) -> Option<&'a [E]> {
        let elements = shape.kv_heads * shape.head_elements();
        E::of(data)?.get(index * elements..(index + 1) * elements)
    }

    fn heads<'a>(data: &'a mut PageData, index: usize, shape: &KvShape) -> Vec<&'a mut [E]> {
        let heads = E::of_mut(data).chunks_exact_mut(shape.head_elements());
        heads.skip(index * shape.kv_heads).take(shape.kv_heads).collect()
    }
}

impl PageKind for Int8 {
    fn page<'a>(data: &'a PageData, index: usize, shape: &KvShape) -> Option<Int8Page<'a>> {
        let PageData::Int8 { codes, scales } = data else { return None };
        let part = |len: usize| index * shape.kv_heads * len..(index + 1) * shape.kv_heads * len;
        let (codes, scales) =
            (codes.get(part(shape.head_elements()))?, scales.get(part(shape.head_scales()))?);
        Some(Int8Page { codes, scales })
    }

    fn heads<'a>(data: &'a mut PageData, index: usize, shape: &KvShape) -> Vec<Int8Head<'a>> {
        let PageData::Int8 { codes, scales } = data else { return Vec::new() };
        let heads = codes
            .chunks_exact_mut(shape.head_elements())
            .zip(scales.chunks_exact_mut(shape.head_scales()))
            .map(|(codes, scales)| Int8Head { codes, scales });
        heads.skip(index * shape.kv_heads).take(shape.kv_heads).collect()
    }
}

/// An element type of pages.
trait StoredElement: Element {
    fn of(data: &PageData) -> Option<&[Self]>;
    fn of_mut(data: &mut PageData) -> &mut [Self];
}

impl StoredElement for f32 {
    fn of(data: &PageData) -> Option<&[f32]> {
        if let PageData::F32(data) = data { Some(data) } else { None }
    }
    fn of_mut(data: &mut PageData) -> &mut [f32] {
        if let PageData::F32(data) = data { data } else { &mut [] }
    }
}

impl StoredElement for u16 {
    fn of(data: &PageData) -> Option<&[u16]> {
        if let PageData::Bf16(data) = data { Some(data) } else { None }
    }
    fn of_mut(data: &mut PageData) -> &mut [u16] {
        if let PageData::Bf16(data) = data { data } else { &mut [] }
    }
}

/// One head of one page, to be written.
struct HeadWrite<'a, H> {
    head: Option<H>,
    index: usize,
    write: &'a PageWrite,
}

/// Writes the keys and values of all rows into the pages of `layer`.
fn store<K: PageKind>(
    cpu: &Cpu<'_>,
    LayerRef { spec, layer }: LayerRef<'_>,
    cache: &mut KvCache,
    plan: &WritePlan,
    qkv: &[f32],
) -> Result<()> {
    let (shape, writes) = (cache.shape(layer), &plan.0[cache.group_of(layer)]);
    let ids: Vec<PageId> = writes.iter().map(|write| write.page).collect();
    let index = cache.index_of(layer);
    let pages = cache.pool_mut(layer).pages_mut(&ids);
    if pages.len() != ids.len() {
        return Err(page_missing());
    }
    let mut heads = Vec::with_capacity(pages.len() * shape.kv_heads);
    for (page, write) in pages.into_iter().zip(writes) {
        let of_page = K::heads(page, index, &shape).into_iter().enumerate();
        heads.extend(of_page.map(|(index, head)| HeadWrite { head: Some(head), index, write }));
    }
    let HeadShape { num_key_value_heads: kv_heads, head_dim: d } = spec.heads(layer);
    let stride = spec.qkv_size(layer);
    let rows: usize = writes.iter().map(|write| write.rows).sum();
    let at_once = if rows < MANY_ROWS { heads.len() } else { 1 };
    cpu.region.parallel_chunks_mut(&mut heads, at_once, |_, heads| {
        for HeadWrite { head, index, write } in heads {
            let Some(head) = head.take() else { continue };
            let PageWrite { row, slot, rows, .. } = **write;
            let keys = &qkv[row * stride + (spec.num_attention_heads + *index) * d..];
            let values = &keys[kv_heads * d..];
            let args = WriteArgs { head, slot, tokens: rows, head_dim: d, keys, values, stride };
            K::slots(cpu.kernels).write.call(args);
        }
    });
    Ok(())
}

fn page_missing() -> Error {
    Error::internal("a page of the KV cache is missing")
}
