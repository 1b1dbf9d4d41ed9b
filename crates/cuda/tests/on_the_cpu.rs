//! Each kernel, compiled for the CPU and run thread by thread with the arguments and launches that
//! a GPU gets, against what `aisemble-kernels` says in plain code. Also under AddressSanitizer: an
//! index outside a buffer ends the run.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use aisemble_cuda::{
    AttentionArguments, AttentionPlan, GateArguments, Launch, NormArguments, RopeArguments,
    WriteArguments,
};
use aisemble_kernels::{
    AttentionRows, AttentionShape, KvElement, KvShape, RopeConfig, RopeStyle, RopeTable, reference,
};
use half::f16;
use proptest::prelude::*;

/// The program, compiled once.
static PROGRAM: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("run");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host");
    let status = Command::new("c++")
        .args([
            "-std=c++17",
            "-O2",
            "-Wall",
            "-Wno-unknown-pragmas",
            "-fsanitize=address,undefined",
        ])
        .arg("-I")
        .arg(&tests)
        .arg(tests.join("run.cpp"))
        .arg("-o")
        .arg(&program)
        .status()
        .expect("a C++ compiler (apt-get install g++)");
    assert!(status.success());
    (folder, program)
});

trait Arguments: Copy {
    /// Leading fields that are addresses: 8 bytes each.
    const ADDRESSES: usize;
}
impl Arguments for NormArguments {
    const ADDRESSES: usize = 3;
}
impl Arguments for GateArguments {
    const ADDRESSES: usize = 3;
}
impl Arguments for RopeArguments {
    const ADDRESSES: usize = 5;
}
impl Arguments for WriteArguments {
    const ADDRESSES: usize = 3;
}
impl Arguments for AttentionArguments {
    const ADDRESSES: usize = 8;
}

/// Runs the launch; the addresses in `arguments` are numbers of buffers. The buffers afterwards.
fn run<A: Arguments>(launch: Launch, mut buffers: Vec<Vec<u8>>, arguments: A) -> Vec<Vec<u8>> {
    let mut input = Vec::new();
    let bytes = |input: &mut Vec<u8>, bytes: &[u8]| {
        input.extend((bytes.len() as u64).to_le_bytes());
        input.extend(bytes);
    };
    bytes(&mut input, launch.kernel.as_bytes());
    launch.grid.iter().for_each(|size| input.extend(size.to_le_bytes()));
    input.extend(launch.threads.to_le_bytes());
    input.extend((buffers.len() as u64).to_le_bytes());
    buffers.iter().for_each(|buffer| bytes(&mut input, buffer));
    #[expect(unsafe_code, reason = "the bytes of a plain C struct without padding")]
    // SAFETY: the structs are `repr(C)`, Copy, and their fields fill them.
    let raw =
        unsafe { std::slice::from_raw_parts((&raw const arguments).cast::<u8>(), size_of::<A>()) };
    bytes(&mut input, raw);
    input.extend((A::ADDRESSES as u64).to_le_bytes());

    let mut child = Command::new(&PROGRAM.1)
        .env("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&input).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {}\n{said}", launch.kernel, output.status);
    let mut rest = output.stdout.as_slice();
    for buffer in &mut buffers {
        let (own, behind) = rest.split_at(buffer.len());
        buffer.copy_from_slice(own);
        rest = behind;
    }
    buffers
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn numbers(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn to_floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Values between -1 and 1.
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

#[track_caller]
fn close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let allowed = tolerance * expected.abs().max(1.0);
        assert!((found - expected).abs() <= allowed, "[{index}] {found} and {expected}");
    }
}

#[test]
fn rows_are_normalised() {
    for (rows, width) in [(1, 576), (3, 64), (2, 33), (5, 1)] {
        let (x, weight) = (random(rows * width, 1), random(width, 2));
        let buffers = vec![vec![0; 4 * x.len()], floats(&x), floats(&weight)];
        let arguments = NormArguments { out: 0, x: 1, weight: 2, width: width as u32, eps: 1e-5 };
        let found = run(aisemble_cuda::rms_norm(rows as u32), buffers, arguments);
        let mut expected = vec![0.0; x.len()];
        for (x, out) in x.chunks(width).zip(expected.chunks_mut(width)) {
            reference::rms_norm(x, &weight, 1e-5, out);
        }
        close(&to_floats(&found[0]), &expected, 1e-5);
    }
}

#[test]
fn gates_are_as_on_the_cpu_far_from_zero_too() {
    let gate: Vec<f32> = random(300, 3).iter().map(|value| value * 40.0).collect();
    let up = random(300, 4);
    type Case = (fn(u64) -> Option<Launch>, fn(f32) -> f32);
    let cases: [Case; 2] =
        [(aisemble_cuda::silu_mul, reference::silu), (aisemble_cuda::gelu_mul, reference::gelu)];
    for (launch, plain) in cases {
        let buffers = vec![vec![0; 4 * 300], floats(&gate), floats(&up)];
        let arguments = GateArguments { out: 0, gate: 1, up: 2, values: 300 };
        let found = run(launch(300).unwrap(), buffers, arguments);
        let expected: Vec<f32> = gate.iter().zip(&up).map(|(gate, up)| plain(*gate) * up).collect();
        close(&to_floats(&found[0]), &expected, 1e-5);
    }
}

#[test]
fn heads_turn_as_on_the_cpu() {
    for (style, rotary_dim) in
        [(RopeStyle::Interleaved, 64), (RopeStyle::Halves, 64), (RopeStyle::Halves, 48)]
    {
        let table = RopeTable::new(&RopeConfig {
            style,
            rotary_dim,
            base: 10_000.0,
            linear_scale: 1.0,
            frequency_factors: Vec::new(),
            positions: 100,
        });
        let (positions, heads, head_dim) = ([0_u32, 7, 99], 3, 64);
        let x = random(positions.len() * heads * head_dim, 5);
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in 0..100 {
            cos.extend_from_slice(table.at(position).0);
            sin.extend_from_slice(table.at(position).1);
        }
        let buffers =
            vec![vec![0; 4 * x.len()], floats(&x), numbers(&positions), floats(&cos), floats(&sin)];
        let arguments = RopeArguments {
            out: 0,
            x: 1,
            positions: 2,
            cos: 3,
            sin: 4,
            heads: heads as u32,
            head_dim: head_dim as u32,
            pairs: rotary_dim as u32 / 2,
            halves: u32::from(style == RopeStyle::Halves),
        };
        let found = run(aisemble_cuda::rope(3), buffers, arguments);
        let mut expected = x.clone();
        for (row, &position) in expected.chunks_mut(heads * head_dim).zip(&positions) {
            for head in row.chunks_mut(head_dim) {
                reference::rope(&table, head, position as usize);
            }
        }
        close(&to_floats(&found[0]), &expected, 1e-6);
    }
}

fn element_bytes<T: KvElement>(values: &[T]) -> Vec<u8> {
    let bits = |value: &T| f16::from_f32(value.to_f32()).to_le_bytes();
    if T::IS_F16 {
        values.iter().flat_map(bits).collect()
    } else {
        floats(&values.iter().map(|value| value.to_f32()).collect::<Vec<_>>())
    }
}

fn write_is_the_same<T: KvElement>() {
    let shape = KvShape { blocks: 3, block_tokens: 32, kv_heads: 2, head_dim: 48 };
    let slots = [0_u32, 31, 32, 95];
    let mut rows = random(slots.len() * 2 * 48, 6);
    // Where rounding to half has its corners: subnormal, the largest, halfway, beyond.
    rows[..6].copy_from_slice(&[6e-8, -3.1e-5, 65_504.0, 1.000_488_3, 70_000.0, -0.0]);
    for is_keys in [true, false] {
        let mut expected = vec![T::default(); shape.values()];
        if is_keys {
            shape.write_keys(&mut expected, &rows, &slots);
        } else {
            shape.write_values(&mut expected, &rows, &slots);
        }
        let expected = element_bytes(&expected);
        let arguments = WriteArguments {
            cache: 0,
            rows: 1,
            slots: 2,
            kv_heads: 2,
            head_dim: 48,
            block_tokens: 32,
            is_keys: is_keys.into(),
        };
        let buffers = vec![vec![0; expected.len()], floats(&rows), numbers(&slots)];
        let found = run(aisemble_cuda::kv_write(4, T::IS_F16), buffers, arguments);
        assert_eq!(found[0], expected, "keys: {is_keys}");
    }
}

#[test]
fn keys_and_values_are_written_bit_for_bit_as_on_the_cpu() {
    write_is_the_same::<f32>();
    write_is_the_same::<f16>();
}

#[derive(Debug, Clone)]
struct Case {
    kv_heads: usize,
    group: usize,
    head_dim: usize,
    block_tokens: usize,
    window: Option<usize>,
    softcap: Option<f32>,
    positions: Vec<u32>,
    seed: u64,
}

/// Attention of one row a sequence, with blocks in no order and cells that nobody wrote poisoned.
fn attention_is_the_same<T: KvElement>(case: &Case) {
    let needed = |position: &u32| *position as usize / case.block_tokens + 1;
    let blocks_max = case.positions.iter().map(needed).max().unwrap();
    let blocks = blocks_max * case.positions.len();
    let kv = KvShape {
        blocks,
        block_tokens: case.block_tokens,
        kv_heads: case.kv_heads,
        head_dim: case.head_dim,
    };
    // Sequences take turns from the end.
    let tables: Vec<u32> = (0..case.positions.len())
        .flat_map(|row| (0..blocks_max).map(move |at| (row, at)))
        .map(|(row, at)| (blocks - 1 - (at * case.positions.len() + row)) as u32)
        .collect();
    let mut caches = [vec![T::from_f32(f32::NAN); kv.values()], vec![T::default(); kv.values()]];
    caches[1].fill(T::from_f32(f32::NAN));
    for (row, &position) in case.positions.iter().enumerate() {
        for token in 0..=position {
            let block = tables[row * blocks_max + token as usize / case.block_tokens];
            let slot = block * case.block_tokens as u32 + token % case.block_tokens as u32;
            let seed = case.seed + u64::from(slot);
            let values = kv.kv_heads * kv.head_dim;
            kv.write_keys(&mut caches[0], &random(values, seed), &[slot]);
            kv.write_values(&mut caches[1], &random(values, seed + 77_777), &[slot]);
        }
    }
    let shape = AttentionShape {
        kv,
        heads: case.kv_heads * case.group,
        scale: 1.0 / (case.head_dim as f32).sqrt(),
        window: case.window.and_then(NonZeroUsize::new),
        softcap: case.softcap,
    };
    let query = random(case.positions.len() * shape.heads * case.head_dim, case.seed + 1);
    let sequences: Vec<u32> = (0..case.positions.len() as u32).collect();
    let rows = AttentionRows {
        query: &query,
        sequences: &sequences,
        positions: &case.positions,
        block_tables: &tables,
        blocks_max,
    };
    let expected: Vec<f32> = (0..case.positions.len())
        .flat_map(|row| (0..shape.heads).map(move |head| (row, head)))
        .flat_map(|at| reference::attention_row(&shape, &rows, (&caches[0], &caches[1]), at))
        .collect();
    close(&launched(case, &shape, &rows, &caches), &expected, 2e-5);
}

fn launched<T: KvElement>(
    case: &Case,
    shape: &AttentionShape,
    rows: &AttentionRows<'_>,
    caches: &[Vec<T>; 2],
) -> Vec<f32> {
    let context = rows.positions.iter().max().unwrap() + 1;
    let heads = (shape.heads as u32, case.kv_heads as u32, case.head_dim as u32);
    let sizes = (rows.positions.len() as u32, context);
    let plan = AttentionPlan::new(sizes, heads, case.block_tokens as u32, T::IS_F16).unwrap();
    let arguments = AttentionArguments {
        out: 0,
        query: 1,
        keys: 2,
        values: 3,
        positions: 4,
        sequences: 5,
        block_tables: 6,
        partials: 7,
        heads: heads.0,
        kv_heads: heads.1,
        head_dim: heads.2,
        block_tokens: case.block_tokens as u32,
        blocks_max: rows.blocks_max as u32,
        window: case.window.unwrap_or(0) as u32,
        tiles: plan.tiles,
        chunks: plan.chunks,
        scale: shape.scale,
        softcap: case.softcap.unwrap_or(0.0),
    };
    let buffers = vec![
        vec![0; 4 * rows.query.len()],
        floats(rows.query),
        element_bytes(&caches[0]),
        element_bytes(&caches[1]),
        numbers(rows.positions),
        numbers(rows.sequences),
        numbers(rows.block_tables),
        vec![0; 4 * plan.partial_values as usize],
    ];
    let mut buffers = run(plan.attend, buffers, arguments);
    if let Some(merge) = plan.merge {
        buffers = run(merge, buffers, arguments);
    }
    to_floats(&buffers[0])
}

#[test]
fn attention_over_many_blocks_is_merged_from_its_chunks() {
    let case = Case {
        kv_heads: 1,
        group: 3,
        head_dim: 64,
        block_tokens: 32,
        window: None,
        softcap: None,
        positions: vec![600, 3, 255, 256],
        seed: 1,
    };
    attention_is_the_same::<f16>(&case);
    // A window that leaves whole chunks out, and one that begins within a block.
    attention_is_the_same::<f16>(&Case { window: Some(70), ..case.clone() });
    attention_is_the_same::<f32>(&Case { window: Some(1), softcap: Some(2.0), ..case });
}

#[test]
fn every_width_and_group_has_a_kernel_that_is_right() {
    for head_dim in [16, 80, 256] {
        for group in [1, 2, 4, 12] {
            let case = Case {
                kv_heads: 2,
                group,
                head_dim,
                block_tokens: 64,
                window: None,
                softcap: None,
                positions: vec![40],
                seed: (head_dim + group) as u64,
            };
            attention_is_the_same::<f16>(&case);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn attention_is_as_on_the_cpu(
        (kv_heads, group) in (1_usize..3, 1_usize..6),
        head_dim in (1_usize..9).prop_map(|steps| steps * 16),
        window in prop::option::of(1_usize..100),
        softcap in prop::option::of(1.0_f32..50.0),
        positions in prop::collection::vec(0_u32..150, 1..4),
        seed in any::<u32>(),
    ) {
        let seed = seed.into();
        let case =
            Case { kv_heads, group, head_dim, block_tokens: 32, window, softcap, positions, seed };
        attention_is_the_same::<f32>(&case);
        attention_is_the_same::<f16>(&case);
    }
}
