//! From the file's blocks into a tile of the packed layout, one row at a time, and back to floats.
//! All safe code: it runs once at load, and for embedding rows.

use half::{bf16, f16};

use crate::format::BlockFormat;
use crate::packed::{TILE_ROWS, TileLayout};
use crate::reference::{q4_k_scale, q5_k_quant, q5_quants, q6_k_quant};

/// Bytes of a word: four inputs of one output.
const WORD: usize = 4;
/// Bytes of one word for all outputs of a tile.
const WORDS: usize = TILE_ROWS * WORD;

/// Puts `from` (whole words) into `to`, a run of words for all lanes.
fn scatter(from: &[u8], to: &mut [u8], lane: usize) {
    for (word, to) in from.chunks_exact(WORD).zip(to.chunks_exact_mut(WORDS)) {
        to[lane * WORD..][..WORD].copy_from_slice(word);
    }
}

/// The words of `lane`, back in order.
fn gather<const BYTES: usize>(from: &[u8], lane: usize) -> [u8; BYTES] {
    let mut to = [0; BYTES];
    for (word, from) in to.chunks_exact_mut(WORD).zip(from.chunks_exact(WORDS)) {
        word.copy_from_slice(&from[lane * WORD..][..WORD]);
    }
    to
}

fn put_half(tile: &mut [u8], at: usize, lane: usize, half: &[u8]) {
    tile[at + lane * 2..][..2].copy_from_slice(half);
}

fn half_at(tile: &[u8], at: usize, lane: usize) -> f32 {
    f16::from_le_bytes([tile[at + lane * 2], tile[at + lane * 2 + 1]]).to_f32()
}

/// 32 quants as 16 bytes: the first 16 are the low nibbles.
fn to_nibbles(quants: [u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| (quants[i] & 15) | (quants[i + 16] << 4))
}

/// The high bit pairs of 32 quants of 6 bits as 8 bytes: byte `4 d + i` holds those of the words
/// `2 d` and `2 d + 1` (first 16 quants, last 16 quants, first, last; from the lowest bits up).
fn to_pairs(quants: [u8; 32]) -> [u8; 8] {
    std::array::from_fn(|byte| {
        let (double, i) = (byte / 4, byte % 4);
        let at = double * 8 + i;
        let pair = |index: usize| quants[index] >> 4;
        pair(at) | (pair(at + 16) << 2) | (pair(at + 4) << 4) | (pair(at + 20) << 6)
    })
}

/// The fifth bits of 32 quants of 5 bits as 4 bytes: byte `i` holds those of the `i`th quant of
/// each word, the first word's lowest.
fn to_fifths(quants: [u8; 32]) -> [u8; 4] {
    std::array::from_fn(|i| {
        (0..8).fold(0, |byte, word| byte | ((quants[word * 4 + i] >> 4) << word))
    })
}

/// The inverse of [`to_nibbles`] and [`to_fifths`].
fn from_fives(nibbles: [u8; 16], fifths: [u8; 4]) -> [u8; 32] {
    let low = from_planes(nibbles, [0; 8]);
    std::array::from_fn(|index| low[index] | (((fifths[index % 4] >> (index / 4)) & 1) << 4))
}

/// Writes 32 quants of 5 bits as step `step`.
fn write_fives(
    quants: [u8; 32],
    layout: &TileLayout,
    tile: &mut [u8],
    (step, lane): (usize, usize),
) {
    let to = &mut tile[layout.quants_at + step * 320..][..320];
    scatter(&to_nibbles(quants), &mut to[..256], lane);
    scatter(&to_fifths(quants), &mut to[256..], lane);
}

/// Reads what [`write_fives`] wrote; `quants` begins with the step's.
fn read_fives(quants: &[u8], lane: usize) -> [u8; 32] {
    from_fives(gather(&quants[..256], lane), gather(&quants[256..320], lane))
}

/// The inverse of [`to_nibbles`] and [`to_pairs`].
fn from_planes(nibbles: [u8; 16], pairs: [u8; 8]) -> [u8; 32] {
    std::array::from_fn(|index| {
        let (last, within) = (index / 16, index % 16);
        let low = if last == 0 { nibbles[within] & 15 } else { nibbles[within] >> 4 };
        let (word, i) = (within / 4, within % 4);
        let shift = 4 * (word % 2) + 2 * last;
        low | (((pairs[word / 2 * 4 + i] >> shift) & 3) << 4)
    })
}

/// Writes `row`, the file's bytes of one output feature, as lane `lane` of `tile`.
pub(crate) fn write_row(
    format: BlockFormat,
    row: &[u8],
    layout: &TileLayout,
    tile: &mut [u8],
    lane: usize,
) {
    for (index, block) in row.chunks_exact(format.block_bytes()).enumerate() {
        match format {
            BlockFormat::F32 | BlockFormat::F16 | BlockFormat::Bf16 => {
                let at = layout.quants_at + (index * TILE_ROWS + lane) * block.len();
                tile[at..][..block.len()].copy_from_slice(block);
            }
            BlockFormat::Q4_0 => {
                put_half(tile, index * 32, lane, &block[..2]);
                scatter(&block[2..], &mut tile[layout.quants_at + index * 256..][..256], lane);
            }
            BlockFormat::Q4_1 => {
                put_half(tile, index * 64, lane, &block[..2]);
                put_half(tile, index * 64 + 32, lane, &block[2..4]);
                scatter(&block[4..], &mut tile[layout.quants_at + index * 256..][..256], lane);
            }
            BlockFormat::Q5_0 => {
                put_half(tile, index * 32, lane, &block[..2]);
                write_fives(q5_quants(&block[2..]), layout, tile, (index, lane));
            }
            BlockFormat::Q5_1 => {
                put_half(tile, index * 64, lane, &block[..2]);
                put_half(tile, index * 64 + 32, lane, &block[2..4]);
                write_fives(q5_quants(&block[4..]), layout, tile, (index, lane));
            }
            BlockFormat::Q8_0 => {
                put_half(tile, index * 32, lane, &block[..2]);
                let offset: [u8; 32] = std::array::from_fn(|i| block[2 + i] ^ 0x80);
                scatter(&offset, &mut tile[layout.quants_at + index * 512..][..512], lane);
            }
            BlockFormat::Q4K => write_q4_k(block, layout, tile, (index, lane)),
            BlockFormat::Q5K => write_q5_k(block, layout, tile, (index, lane)),
            BlockFormat::Q6K => write_q6_k(block, layout, tile, (index, lane)),
        }
    }
}

fn write_q4_k(block: &[u8], layout: &TileLayout, tile: &mut [u8], (index, lane): (usize, usize)) {
    put_half(tile, layout.supers_at + index * 64, lane, &block[..2]);
    put_half(tile, layout.supers_at + index * 64 + 32, lane, &block[2..4]);
    for part in 0..8 {
        let step = index * 8 + part;
        let (scale, minimum) = q4_k_scale(&block[4..16], part);
        tile[step * 32 + lane] = scale;
        tile[step * 32 + 16 + lane] = minimum;
        let bytes = &block[16 + part / 2 * 32..][..32];
        let quants = std::array::from_fn(|i| (bytes[i] >> (part % 2 * 4)) & 15);
        let to = &mut tile[layout.quants_at + step * 256..][..256];
        scatter(&to_nibbles(quants), to, lane);
    }
}

fn write_q5_k(block: &[u8], layout: &TileLayout, tile: &mut [u8], (index, lane): (usize, usize)) {
    put_half(tile, layout.supers_at + index * 64, lane, &block[..2]);
    put_half(tile, layout.supers_at + index * 64 + 32, lane, &block[2..4]);
    for part in 0..8 {
        let step = index * 8 + part;
        let (scale, minimum) = q4_k_scale(&block[4..16], part);
        tile[step * 32 + lane] = scale;
        tile[step * 32 + 16 + lane] = minimum;
        let quants = std::array::from_fn(|i| q5_k_quant(block, part * 32 + i));
        write_fives(quants, layout, tile, (step, lane));
    }
}

fn write_q6_k(block: &[u8], layout: &TileLayout, tile: &mut [u8], (index, lane): (usize, usize)) {
    put_half(tile, layout.supers_at + index * 32, lane, &block[208..210]);
    for part in 0..8 {
        let step = index * 8 + part;
        tile[step * 32 + lane] = block[192 + part * 2];
        tile[step * 32 + 16 + lane] = block[192 + part * 2 + 1];
        let quants = std::array::from_fn(|i| q6_k_quant(block, part * 32 + i));
        let to = &mut tile[layout.quants_at + step * 384..][..384];
        scatter(&to_nibbles(quants), &mut to[..256], lane);
        scatter(&to_pairs(quants), &mut to[256..], lane);
    }
}

/// Decodes lane `lane` of `tile`.
pub(crate) fn read_row(
    format: BlockFormat,
    layout: &TileLayout,
    tile: &[u8],
    lane: usize,
    out: &mut [f32],
) {
    let quants = &tile[layout.quants_at..];
    if !format.is_quantised() {
        read_floats(format, quants, lane, out);
        return;
    }
    for (step, out) in out.chunks_exact_mut(32).enumerate() {
        let at = step * quants_bytes(format);
        match format {
            BlockFormat::F32 | BlockFormat::F16 | BlockFormat::Bf16 => {}
            BlockFormat::Q4_0 => {
                let quants = from_planes(gather(&quants[at..][..256], lane), [0; 8]);
                let scale = half_at(tile, step * 32, lane);
                decode(out, |i| scale * (f32::from(quants[i]) - 8.0));
            }
            BlockFormat::Q4_1 => {
                let quants = from_planes(gather(&quants[at..][..256], lane), [0; 8]);
                let scale = half_at(tile, step * 64, lane);
                let minimum = half_at(tile, step * 64 + 32, lane);
                decode(out, |i| scale * f32::from(quants[i]) + minimum);
            }
            BlockFormat::Q5_0 => {
                let quants = read_fives(&quants[at..], lane);
                let scale = half_at(tile, step * 32, lane);
                decode(out, |i| scale * (f32::from(quants[i]) - 16.0));
            }
            BlockFormat::Q5_1 => {
                let quants = read_fives(&quants[at..], lane);
                let scale = half_at(tile, step * 64, lane);
                let minimum = half_at(tile, step * 64 + 32, lane);
                decode(out, |i| scale * f32::from(quants[i]) + minimum);
            }
            BlockFormat::Q8_0 => {
                let quants: [u8; 32] = gather(&quants[at..][..512], lane);
                let scale = half_at(tile, step * 32, lane);
                decode(out, |i| scale * f32::from((quants[i] ^ 0x80) as i8));
            }
            BlockFormat::Q4K | BlockFormat::Q5K => {
                let quants = if format == BlockFormat::Q5K {
                    read_fives(&quants[at..], lane)
                } else {
                    from_planes(gather(&quants[at..][..256], lane), [0; 8])
                };
                let whole = layout.supers_at + step / 8 * 64;
                let scale = half_at(tile, whole, lane) * f32::from(tile[step * 32 + lane]);
                let minimum =
                    half_at(tile, whole + 32, lane) * f32::from(tile[step * 32 + 16 + lane]);
                decode(out, |i| scale * f32::from(quants[i]) - minimum);
            }
            BlockFormat::Q6K => {
                let nibbles = gather(&quants[at..][..256], lane);
                let pairs = gather(&quants[at + 256..][..128], lane);
                let quants = from_planes(nibbles, pairs);
                let whole = half_at(tile, layout.supers_at + step / 8 * 32, lane);
                let scale = |i: usize| f32::from(tile[step * 32 + i / 16 * 16 + lane] as i8);
                decode(out, |i| whole * scale(i) * (f32::from(quants[i]) - 32.0));
            }
        }
    }
}

fn decode(out: &mut [f32], value: impl Fn(usize) -> f32) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = value(i);
    }
}

/// Bytes of quants of a tile's step.
const fn quants_bytes(format: BlockFormat) -> usize {
    match format {
        BlockFormat::F32 => TILE_ROWS * 4,
        BlockFormat::F16 | BlockFormat::Bf16 => TILE_ROWS * 2,
        BlockFormat::Q4_0 | BlockFormat::Q4_1 | BlockFormat::Q4K => TILE_ROWS * 16,
        BlockFormat::Q5_0 | BlockFormat::Q5_1 | BlockFormat::Q5K => TILE_ROWS * 20,
        BlockFormat::Q8_0 => TILE_ROWS * 32,
        BlockFormat::Q6K => TILE_ROWS * 24,
    }
}

fn read_floats(format: BlockFormat, values: &[u8], lane: usize, out: &mut [f32]) {
    let width = format.block_bytes();
    let lanes = values[lane * width..].chunks(TILE_ROWS * width);
    for (out, bytes) in out.iter_mut().zip(lanes) {
        *out = if format == BlockFormat::F32 {
            f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        } else if format == BlockFormat::F16 {
            f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
        } else {
            bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
        };
    }
}
