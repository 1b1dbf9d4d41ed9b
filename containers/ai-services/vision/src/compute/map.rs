//! A batch of feature maps, and the memory that maps leave for those after them.

use std::cell::RefCell;

/// Values that a thread keeps for its next maps: without them every layer's result would be new
/// pages from the kernel, which cost as much as a small layer.
const KEPT_VALUES_MAX: usize = 64 * 1024 * 1024;
/// Maps of fewer values are left to the allocator.
const KEPT_VALUES_MIN: usize = 4096;

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept { values: 0, buffers: Vec::new() }) };
}

/// Memory of maps that are gone.
struct Kept {
    values: usize,
    buffers: Vec<Vec<f32>>,
}

impl Kept {
    /// The smallest buffer that holds `len` values without wasting half of it.
    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        let fits = |buffer: &Vec<f32>| buffer.len() >= len && buffer.len() / 2 <= len;
        let found = self.buffers.iter().enumerate().filter(|(_, buffer)| fits(buffer));
        let (index, _) = found.min_by_key(|(_, buffer)| buffer.len())?;
        let mut buffer = self.buffers.swap_remove(index);
        self.values -= buffer.len();
        buffer.truncate(len);
        Some(buffer)
    }

    fn keep(&mut self, mut buffer: Vec<f32>) {
        // Written once already, so this writes no memory that is new.
        buffer.resize(buffer.capacity(), 0.0);
        if buffer.len() >= KEPT_VALUES_MIN && self.values + buffer.len() <= KEPT_VALUES_MAX {
            self.values += buffer.len();
            self.buffers.push(buffer);
        }
    }
}

/// `n` maps of `h` rows, `w` columns and `c` channels, channels innermost.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    /// Pictures of the batch.
    pub n: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// `n * h * w * c` values.
    pub data: Vec<f32>,
}

impl Map {
    /// A map of zeros.
    #[must_use]
    pub fn zeros(n: usize, h: usize, w: usize, c: usize) -> Self {
        Self { n, h, w, c, data: vec![0.0; n * h * w * c] }
    }

    /// A map that holds anything: for who writes every value of it.
    pub(super) fn scratch(n: usize, h: usize, w: usize, c: usize) -> Self {
        let len = n * h * w * c;
        let kept =
            if len < KEPT_VALUES_MIN { None } else { KEPT.with_borrow_mut(|kept| kept.take(len)) };
        Self { n, h, w, c, data: kept.unwrap_or_else(|| vec![0.0; len]) }
    }

    /// A map of the values given.
    ///
    /// # Panics
    /// When `data` has another length than the shape.
    #[must_use]
    pub fn new((n, h, w, c): (usize, usize, usize, usize), data: Vec<f32>) -> Self {
        assert_eq!(data.len(), n * h * w * c, "a map's values fill its shape");
        Self { n, h, w, c, data }
    }

    /// `n`, `h`, `w`, `c`.
    #[must_use]
    pub fn shape(&self) -> (usize, usize, usize, usize) {
        (self.n, self.h, self.w, self.c)
    }

    /// Pixels over the whole batch.
    #[must_use]
    pub fn pixels(&self) -> usize {
        self.n * self.h * self.w
    }

    /// The values of one picture of the batch.
    #[must_use]
    pub fn picture(&self, index: usize) -> &[f32] {
        let len = self.h * self.w * self.c;
        &self.data[index * len..(index + 1) * len]
    }

    /// Maps of one size behind each other. `None` when there is none, or the sizes differ.
    #[must_use]
    pub fn stack(maps: &[&Self]) -> Option<Self> {
        let first = maps.first()?;
        let same = |map: &&&Self| (map.h, map.w, map.c) == (first.h, first.w, first.c);
        if !maps.iter().all(|map| same(&map)) {
            return None;
        }
        let n = maps.iter().map(|map| map.n).sum();
        let mut data = Vec::with_capacity(n * first.h * first.w * first.c);
        for map in maps {
            data.extend_from_slice(&map.data);
        }
        Some(Self { n, h: first.h, w: first.w, c: first.c, data })
    }

    /// One map for each picture of the batch.
    #[must_use]
    pub fn unstack(self) -> Vec<Self> {
        if self.n == 1 {
            return vec![self];
        }
        (0..self.n)
            .map(|index| Self::new((1, self.h, self.w, self.c), self.picture(index).to_vec()))
            .collect()
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let data = std::mem::take(&mut self.data);
        if data.capacity() >= KEPT_VALUES_MIN {
            // At the end of a thread there is nobody to keep it for.
            let _kept = KEPT.try_with(|kept| kept.borrow_mut().keep(data));
        }
    }
}
