//! What was copied to the device lately, on the thread that owns the model: each step's numbers are
//! used by every layer, the angles of a model by every step.
//!
//! An entry is found by the identity of what was copied, which it keeps alive: no other value can
//! come to lie at the same address meanwhile.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use aisemble_kernels::RopeTable;
use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaDevice, Result};

/// Arrays of numbers that are kept: a step has four.
const NUMBERS_MAX: usize = 8;
/// Tables that are kept: a model has one, or two.
const TABLES_MAX: usize = 4;

/// A rotary table on the device: `[positions, pairs]` each.
#[derive(Debug)]
pub(super) struct Angles {
    pub(super) cos: CudaSlice<f32>,
    pub(super) sin: CudaSlice<f32>,
}

type Kept<K, V> = VecDeque<(DeviceId, Arc<K>, Arc<V>)>;

thread_local! {
    static NUMBERS: RefCell<Kept<[u32], CudaSlice<u32>>> = const { RefCell::new(VecDeque::new()) };
    static TABLES: RefCell<Kept<RopeTable, Angles>> = const { RefCell::new(VecDeque::new()) };
}

/// `numbers` (not empty) on the device.
pub(super) fn numbers(device: &CudaDevice, numbers: &Arc<[u32]>) -> Result<Arc<CudaSlice<u32>>> {
    NUMBERS.with_borrow_mut(|kept| {
        found(kept, NUMBERS_MAX, (device, numbers), || device.clone_htod(&**numbers))
    })
}

/// The angles of `table` on the device.
pub(super) fn angles(device: &CudaDevice, table: &Arc<RopeTable>) -> Result<Arc<Angles>> {
    TABLES.with_borrow_mut(|kept| {
        found(kept, TABLES_MAX, (device, table), || {
            let (mut cos, mut sin) = (Vec::new(), Vec::new());
            for position in 0..table.positions() {
                let (cos_here, sin_here) = table.at(position);
                cos.extend_from_slice(cos_here);
                sin.extend_from_slice(sin_here);
            }
            Ok(Angles { cos: device.clone_htod(&cos)?, sin: device.clone_htod(&sin)? })
        })
    })
}

fn found<K: ?Sized, V>(
    kept: &mut Kept<K, V>,
    limit: usize,
    (device, key): (&CudaDevice, &Arc<K>),
    copy: impl FnOnce() -> Result<V>,
) -> Result<Arc<V>> {
    let id = device.id();
    let known = kept.iter().find(|(of, known, _)| *of == id && Arc::ptr_eq(known, key));
    if let Some((_, _, copied)) = known {
        return Ok(Arc::clone(copied));
    }
    let copied = Arc::new(copy()?);
    if kept.len() == limit {
        kept.pop_front();
    }
    kept.push_back((id, Arc::clone(key), Arc::clone(&copied)));
    Ok(copied)
}
