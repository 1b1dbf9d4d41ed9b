//! Changes to an input: bits, bytes, numbers, pieces moved, words of the format, the middle of
//! another input.

use rand::rngs::SmallRng;
use rand::{Rng as _, seq::IndexedRandom as _};

/// Bytes of an input.
pub const INPUT_BYTES_MAX: usize = 256 * 1024;
/// Changes to one input, one after the other.
const CHANGES_MAX: usize = 6;
/// Bytes of a piece that is moved, doubled or taken out.
const PIECE_BYTES_MAX: usize = 64;
/// Numbers that lengths and offsets go wrong at.
const NUMBERS: [u64; 14] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffff,
];

/// Changes `input` in place. `other` is another input of the same target; `words` are those of its
/// format.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&str], random: &mut SmallRng) {
    for _ in 0..random.random_range(1..=CHANGES_MAX) {
        change(input, other, words, random);
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn change(input: &mut Vec<u8>, other: &[u8], words: &[&str], random: &mut SmallRng) {
    let at = random.random_range(0..=input.len());
    match random.random_range(0..10) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.random_range(0..8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.random();
            }
        }
        2 => {
            let number = NUMBERS.choose(random).copied().unwrap_or(0).to_le_bytes();
            let width = [1, 2, 4, 8].choose(random).copied().unwrap_or(1);
            let end = (at + width).min(input.len());
            input[at..end].copy_from_slice(&number[..end - at]);
        }
        3 => {
            // A number a little off.
            if let Some(byte) = input.get_mut(at) {
                *byte = byte.wrapping_add_signed(random.random_range(-4..=4));
            }
        }
        4 => {
            let end = (at + random.random_range(1..=PIECE_BYTES_MAX)).min(input.len());
            input.drain(at..end);
        }
        5 => {
            let end = (at + random.random_range(1..=PIECE_BYTES_MAX)).min(input.len());
            let piece = input[at..end].to_vec();
            let to = random.random_range(0..=input.len());
            let times = if random.random_ratio(1, 16) { 40 } else { 1 };
            insert(input, to, &piece.repeat(times));
        }
        6 => {
            let bytes: Vec<u8> = (0..random.random_range(1..8)).map(|_| random.random()).collect();
            insert(input, at, &bytes);
        }
        7 => {
            if let Some(word) = words.choose(random) {
                insert(input, at, word.as_bytes());
            }
        }
        8 => {
            if !other.is_empty() {
                let from = random.random_range(0..other.len());
                let end = (from + random.random_range(1..=4 * PIECE_BYTES_MAX)).min(other.len());
                insert(input, at, &other[from..end]);
            }
        }
        _ => input.truncate(at),
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}
