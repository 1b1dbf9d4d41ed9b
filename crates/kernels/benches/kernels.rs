//! Throughput of the kernels: `cargo bench -p aisemble-kernels [-- FILTER...]`.
//!
//! With one thread, time is the thread's CPU time, the best of many repeats, so that other load on
//! the machine matters little; with more threads it is the wall time. GFLOP/s are 2 m K N / time,
//! GB/s are bytes of weights / time. A filter keeps the lines that contain all its words.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::{Duration, Instant};

use aisemble_kernels::{
    AttentionRows, AttentionShape, BlockFormat, Cpu, Isa, KvShape, PackedMatrix, Pool,
};
use half::f16;

const FORMATS: [BlockFormat; 8] = [
    BlockFormat::Q4_1,
    BlockFormat::Q8_0,
    BlockFormat::Q4_0,
    BlockFormat::Q4K,
    BlockFormat::Q5_0,
    BlockFormat::Q5K,
    BlockFormat::Q6K,
    BlockFormat::Bf16,
];
const SHAPES: [(usize, usize); 3] = [(576, 1536), (1536, 576), (4096, 4096)];
const ROWS: [usize; 7] = [1, 2, 4, 8, 16, 32, 256];
/// How long one figure is measured.
const MEASURE: Duration = Duration::from_millis(120);

/// CPU time of this thread so far.
#[expect(unsafe_code, reason = "the standard library has no CPU clock")]
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(answer, 0, "the thread's CPU clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Best time of a call.
fn best(threads: usize, mut call: impl FnMut()) -> Duration {
    call();
    let clock = |start: Instant, cpu: Duration| {
        if threads == 1 { cpu_time() - cpu } else { start.elapsed() }
    };
    let (start, cpu) = (Instant::now(), cpu_time());
    call();
    let once = clock(start, cpu).max(Duration::from_nanos(200));
    // Enough calls between two readings for the clocks to be exact.
    let calls = (200_000 / once.as_nanos()).clamp(1, 1000) as u32;
    let mut best = Duration::MAX;
    let begin = Instant::now();
    while begin.elapsed() < MEASURE {
        let (start, cpu) = (Instant::now(), cpu_time());
        (0..calls).for_each(|_| call());
        best = best.min(clock(start, cpu) / calls);
    }
    best
}

fn weights(format: BlockFormat, rows: usize, cols: usize) -> PackedMatrix {
    let len = format.row_bytes(cols).unwrap_or(0) * rows;
    // Small positive scales everywhere: the bytes of a half float near 0.001.
    let bytes: Vec<u8> =
        (0..len).map(|i| if i % 2 == 0 { (i * 7 % 251) as u8 } else { 0x14 }).collect();
    PackedMatrix::pack(format, &bytes, rows, cols).expect("sizes fit")
}

fn matmul(filters: &[String]) {
    for threads in [1, 2] {
        for isa in Isa::ALL.into_iter().rev() {
            let Ok(cpu) = Cpu::with_isa(isa) else { continue };
            let Ok(pool) = Pool::with_cpu(Some(threads), cpu) else { continue };
            for format in FORMATS {
                for (k, n) in SHAPES {
                    if k % format.block_values() != 0 {
                        continue;
                    }
                    let line = format!("matmul {} {format:?} t{threads} K={k} N={n}", isa.name());
                    if !keeps(filters, &line) {
                        continue;
                    }
                    let packed = weights(format, n, k);
                    let mut text = format!("{line:45}");
                    for m in ROWS {
                        let x: Vec<f32> = (0..m * k).map(|i| (i % 17) as f32 - 8.0).collect();
                        let mut out = vec![0.0; m * n];
                        let time = best(threads, || pool.matmul(&x, m, &packed, &mut out));
                        let flops = 2.0 * (m * k * n) as f64 / time.as_nanos() as f64;
                        if m == 1 {
                            let bytes = packed.resident_bytes() as f64 / time.as_nanos() as f64;
                            text += &format!(" [{bytes:5.1} GB/s]");
                        }
                        text += &format!(" m{m}: {:.1}us {flops:.0}", time.as_nanos() as f64 / 1e3);
                    }
                    println!("{text}");
                }
            }
        }
    }
}

/// A model's worth of matrices one after the other, so that nothing stays in the private caches:
/// what a decoded token costs in weights alone.
fn stream(filters: &[String]) {
    for threads in [1, 2] {
        for format in [BlockFormat::Q4_1, BlockFormat::Q8_0, BlockFormat::Q4_0] {
            let line = format!("stream {format:?} t{threads}");
            if !keeps(filters, &line) {
                continue;
            }
            let Ok(pool) = Pool::new(Some(threads)) else { continue };
            let matrices: Vec<PackedMatrix> =
                (0..120).map(|_| weights(format, 1536, 576)).collect();
            let x = vec![1.0; 576 * 8];
            let mut out = vec![0.0; 1536 * 8];
            let bytes: usize = matrices.iter().map(PackedMatrix::resident_bytes).sum();
            for m in [1, 2, 4, 8] {
                let time = best(threads, || {
                    for matrix in &matrices {
                        pool.matmul(&x[..m * 576], m, matrix, &mut out[..m * 1536]);
                    }
                });
                let rate = bytes as f64 / time.as_nanos() as f64;
                println!("{line:20} m={m} {:.0} MB: {time:?} {rate:.1} GB/s", bytes as f64 / 1e6);
            }
        }
    }
}

/// Attention as in SmolLM2-135M (9 query heads, 3 key/value heads of 64): one decoded row, and a
/// chunk of 256 rows, at several context lengths.
fn attention(filters: &[String]) {
    let kv = KvShape { blocks: 320, block_tokens: 16, kv_heads: 3, head_dim: 64 };
    let shape = AttentionShape { kv, heads: 9, scale: 0.125, window: None, softcap: None };
    let cache = vec![f16::from_f32(0.5); kv.values()];
    let tables: Vec<u32> = (0..kv.blocks as u32).rev().collect();
    for threads in [1, 2] {
        for isa in Isa::ALL.into_iter().rev() {
            let Ok(cpu) = Cpu::with_isa(isa) else { continue };
            let Ok(pool) = Pool::with_cpu(Some(threads), cpu) else { continue };
            for (rows, context) in [(1, 128), (1, 512), (1, 4096), (256, 256), (256, 4096)] {
                let line =
                    format!("attention {} t{threads} rows={rows} context={context}", isa.name());
                if !keeps(filters, &line) {
                    continue;
                }
                let query = vec![0.1; rows * 9 * 64];
                let mut out = query.clone();
                let positions: Vec<u32> = (context - rows as u32..context).collect();
                let rows = AttentionRows {
                    query: &query,
                    sequences: &vec![0; rows],
                    positions: &positions,
                    block_tables: &tables,
                    blocks_max: kv.blocks,
                };
                let time = best(threads, || {
                    pool.paged_attention(&shape, &rows, (&cache, &cache), &mut out);
                });
                let seen: f64 = positions.iter().map(|p| f64::from(p + 1)).sum();
                let flops = seen * 9.0 * 64.0 * 4.0 / time.as_nanos() as f64;
                let bytes = f64::from(context) * 3.0 * 64.0 * 4.0 / time.as_nanos() as f64;
                println!("{line:52} {time:9.1?} {flops:6.1} GFLOP/s {bytes:5.1} GB/s");
            }
        }
    }
}

/// Row operations on 64 rows of 1536 values, and a row of logits.
fn rows(filters: &[String]) {
    for isa in Isa::ALL.into_iter().rev() {
        let Ok(cpu) = Cpu::with_isa(isa) else { continue };
        let line = format!("rows {}", isa.name());
        if !keeps(filters, &line) {
            continue;
        }
        let x: Vec<f32> = (0..64 * 1536).map(|i| (i % 19) as f32 - 9.0).collect();
        let mut out = x.clone();
        let norm = best(1, || cpu.rms_norm(&x, &x[..1536], 1e-5, &mut out));
        let silu = best(1, || cpu.silu_mul(&x, &x, &mut out));
        let add = best(1, || cpu.add_assign(&mut out, &x));
        let argmax = best(1, || {
            std::hint::black_box(cpu.argmax(&x[..49152]));
        });
        println!(
            "{line:20} rms_norm {norm:.1?} silu_mul {silu:.1?} add {add:.1?} argmax {argmax:.1?}"
        );
    }
}

fn keeps(filters: &[String], line: &str) -> bool {
    filters.iter().all(|filter| line.contains(filter.as_str()))
}

fn main() {
    let filters: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    stream(&filters);
    attention(&filters);
    rows(&filters);
    matmul(&filters);
}
