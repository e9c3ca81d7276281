//! Attention of a batch: keys and values into the cache, then tiles of queries over the pages, in parallel.

use crate::cache::{BlockPool, KvCache, PAGE_TOKENS, PageData, PageId};
use crate::error::{Error, Result};
use crate::kernels::attention::{AttentionArgs, KvElement, MAX_ROWS, write_kv};
use crate::model::batch::Batch;
use crate::model::decoder::Ops;
use crate::model::spec::DecoderSpec;

/// Query rows of a tile when there are many: enough to reuse a page from L1, few enough to share out evenly.
const TILE_ROWS: usize = 32;

/// Some tokens of one sequence and one KV head.
struct Tile<'a> {
    kv_head: usize,
    sequence: usize,
    /// First row of the tile in the batch.
    row: usize,
    /// `[tokens, heads of a KV head, head_dim]`
    queries: &'a [f32],
    out: &'a mut [f32],
}

/// Attends with layer `layer`. `qkv` holds the rotated heads of all rows, `[rows, qkv_size]`; `queries` and `out` are
/// `[num_key_value_heads, rows, heads of a KV head * head_dim]`.
///
/// # Errors
/// `Internal` when a page is missing.
#[expect(clippy::too_many_arguments, reason = "buffers of one caller, borrowed apart")]
pub(crate) fn attend(
    ops: &Ops<'_>,
    spec: &DecoderSpec,
    layer: usize,
    cache: &mut KvCache,
    batch: &Batch<'_>,
    qkv: &[f32],
    queries: &mut [f32],
    out: &mut [f32],
) -> Result<()> {
    store(ops, spec, layer, cache, batch, qkv)?;
    let rows = batch.rows();
    let group = spec.num_attention_heads / spec.num_key_value_heads;
    let width = group * spec.head_dim;
    let scale = 1.0 / (spec.head_dim as f32).sqrt();
    ops.by_rows(queries, width, |index, to| {
        let (kv_head, row) = (index / rows, index % rows);
        let from = &qkv[row * spec.qkv_size() + kv_head * width..][..width];
        to.iter_mut().zip(from).for_each(|(to, &q)| *to = q * scale);
    });

    let tile_tokens = (TILE_ROWS / group).clamp(1, MAX_ROWS);
    let mut tiles = Vec::new();
    let (mut queries, mut out) = (&*queries, out);
    for kv_head in 0..spec.num_key_value_heads {
        let mut row = 0;
        for (sequence, share) in batch.sequences.iter().enumerate() {
            let mut left = share.rows;
            while left > 0 {
                let tokens = left.min(tile_tokens);
                let (tile_queries, other) = queries.split_at(tokens * width);
                let (tile_out, rest) = out.split_at_mut(tokens * width);
                tiles.push(Tile { kv_head, sequence, row, queries: tile_queries, out: tile_out });
                (queries, out) = (other, rest);
                row += tokens;
                left -= tokens;
            }
        }
    }
    let (pool, range) = cache.layer(layer);
    let shape = cache.shape();
    let window = spec.layers[layer].window;
    let missing = std::sync::atomic::AtomicBool::new(false);
    ops.region.parallel_chunks_mut(&mut tiles, 1, |_, tile| {
        let tile = &mut tile[0];
        let tokens = tile.queries.len() / width;
        let positions = &batch.positions[tile.row..][..tokens];
        let first_page = window.map_or(0, |window| (positions[0] + 1).saturating_sub(window) / PAGE_TOKENS);
        let table = batch.sequences[tile.sequence].tables.of_layer(cache, layer);
        let last_page = positions[tokens - 1] / PAGE_TOKENS;
        let head = range.start + tile.kv_head * shape.head_elements()..;
        let head = head.start..head.start + shape.head_elements();
        let context = Context { spec, window, first_page, positions, group };
        let pages = table.get(first_page..=last_page).unwrap_or(&[]);
        let found = match pages.first().copied().flatten().and_then(|id| pool.page(id)) {
            Some(PageData::F32(_)) => run_tile(
                |args| ops.kernels.attention_f32(args),
                tile,
                &context,
                pages,
                |id| match pool.page(id)? {
                    PageData::F32(data) => Some(&data[head.clone()]),
                    PageData::Bf16(_) => None,
                },
            ),
            Some(PageData::Bf16(_)) => run_tile(
                |args| ops.kernels.attention_bf16(args),
                tile,
                &context,
                pages,
                |id| match pool.page(id)? {
                    PageData::Bf16(data) => Some(&data[head.clone()]),
                    PageData::F32(_) => None,
                },
            ),
            None => None,
        };
        if found.is_none() {
            missing.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    match missing.into_inner() {
        false => Ok(()),
        true => Err(page_missing(layer)),
    }
}

struct Context<'a> {
    spec: &'a DecoderSpec,
    window: Option<usize>,
    first_page: usize,
    positions: &'a [usize],
    group: usize,
}

/// Runs the kernel on one tile; `None` when a page is not there.
fn run_tile<'p, E: KvElement>(
    kernel: impl Fn(AttentionArgs<'_, E>),
    tile: &mut Tile<'_>,
    context: &Context<'_>,
    pages: &[Option<PageId>],
    page: impl Fn(PageId) -> Option<&'p [E]>,
) -> Option<()> {
    let pages: Vec<&[E]> = pages.iter().map(|id| page((*id)?)).collect::<Option<_>>()?;
    // Each token has one row per query head.
    let mut positions = [0; MAX_ROWS];
    let head_dim = context.spec.head_dim;
    let tokens_at_once = (MAX_ROWS / context.group).max(1);
    let rows_at_once = (tokens_at_once * context.group).min(MAX_ROWS);
    let rows = context.positions.len() * context.group;
    let mut start = 0;
    while start < rows {
        let count = (rows - start).min(rows_at_once);
        for (offset, position) in positions[..count].iter_mut().enumerate() {
            *position = context.positions[(start + offset) / context.group];
        }
        kernel(AttentionArgs {
            queries: &tile.queries[start * head_dim..][..count * head_dim],
            positions: &positions[..count],
            head_dim,
            window: context.window,
            first_page: context.first_page,
            pages: &pages,
            out: &mut tile.out[start * head_dim..][..count * head_dim],
        });
        start += count;
    }
    Some(())
}

/// A page that this batch writes to, with the rows that go there.
struct Target<'a> {
    page: &'a mut PageData,
    /// (row in the batch, slot in the page)
    rows: Vec<(usize, usize)>,
}

/// Writes the keys and values of all rows into the pages of `layer`.
fn store(
    ops: &Ops<'_>,
    spec: &DecoderSpec,
    layer: usize,
    cache: &mut KvCache,
    batch: &Batch<'_>,
    qkv: &[f32],
) -> Result<()> {
    let mut writes: Vec<(PageId, usize, usize)> = Vec::with_capacity(batch.rows());
    let mut row = 0;
    for sequence in &batch.sequences {
        let table = sequence.tables.of_layer(cache, layer);
        for row in row..row + sequence.rows {
            let position = batch.positions[row];
            let page = table.get(position / PAGE_TOKENS).copied().flatten();
            writes.push((page.ok_or_else(|| page_missing(layer))?, row, position % PAGE_TOKENS));
        }
        row += sequence.rows;
    }
    writes.sort_unstable_by_key(|&(page, row, _)| (page, row));
    let mut ids: Vec<PageId> = writes.iter().map(|write| write.0).collect();
    ids.dedup();
    let shape = cache.shape();
    let (pool, range) = cache.layer_mut(layer);
    let mut targets = targets(pool, &ids, &writes);
    let (d, kv_heads) = (spec.head_dim, spec.num_key_value_heads);
    let keys_at = spec.num_attention_heads * d;
    ops.region.parallel_chunks_mut(&mut targets, 1, |_, target| {
        let Target { page, rows } = &mut target[0];
        for &(row, slot) in rows.iter() {
            let (keys, values) =
                qkv[row * spec.qkv_size()..][..spec.qkv_size()][keys_at..].split_at(kv_heads * d);
            for head in 0..kv_heads {
                let (key, value) = (&keys[head * d..][..d], &values[head * d..][..d]);
                let start = range.start + head * shape.head_elements();
                let part = start..start + shape.head_elements();
                match page {
                    PageData::F32(data) => write_kv(&mut data[part], slot, key, value),
                    PageData::Bf16(data) => write_kv(&mut data[part], slot, key, value),
                }
            }
        }
    });
    Ok(())
}

fn targets<'a>(
    pool: &'a mut BlockPool,
    ids: &[PageId],
    writes: &[(PageId, usize, usize)],
) -> Vec<Target<'a>> {
    let pages = pool.pages_mut(ids);
    let by_page = writes.chunk_by(|a, b| a.0 == b.0);
    let rows = by_page.map(|part| part.iter().map(|&(_, row, slot)| (row, slot)).collect());
    pages.into_iter().zip(rows).map(|(page, rows)| Target { page, rows }).collect()
}

fn page_missing(layer: usize) -> Error {
    Error::internal(format!("a page of the KV cache of layer {layer} is missing"))
}
