//! Rectangles, and which of several on the same thing is kept.

/// A rectangle in pixels, origin top left.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rect {
    /// Left edge.
    pub left: f32,
    /// Upper edge.
    pub top: f32,
    /// Right edge.
    pub right: f32,
    /// Lower edge.
    pub bottom: f32,
}

impl Rect {
    /// Width times height, 0 for a rectangle that is turned inside out.
    #[must_use]
    pub fn area(&self) -> f32 {
        (self.right - self.left).max(0.0) * (self.bottom - self.top).max(0.0)
    }

    /// Common area over the area of both together.
    #[must_use]
    pub fn overlap(&self, other: &Self) -> f32 {
        let common = Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        };
        let both = self.area() + other.area() - common.area();
        if both > 0.0 { common.area() / both } else { 0.0 }
    }

    /// In pixels of a picture of which each is `scale` (across, down) of these.
    #[must_use]
    pub(super) fn scaled(&self, (x, y): (f32, f32)) -> Self {
        Self {
            left: self.left / x,
            top: self.top / y,
            right: self.right / x,
            bottom: self.bottom / y,
        }
    }
}

/// A thing that may be there.
#[derive(Debug, Clone)]
pub(super) struct Candidate<T> {
    pub(super) score: f32,
    pub(super) bounds: Rect,
    pub(super) extra: T,
}

/// Candidates that are looked at, the best ones: what a network gives for noise could be many
/// thousands, and each is compared with each.
const CANDIDATES_MAX: usize = 5000;

/// The best candidates, of which no two overlap by `iou` or more; best first, at most `keep_max`.
pub(super) fn suppress<T>(
    mut candidates: Vec<Candidate<T>>,
    iou: f32,
    keep_max: usize,
) -> Vec<Candidate<T>> {
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    candidates.truncate(CANDIDATES_MAX);
    let mut kept: Vec<Candidate<T>> = Vec::new();
    for candidate in candidates {
        if kept.len() == keep_max {
            break;
        }
        if kept.iter().all(|better| better.bounds.overlap(&candidate.bounds) < iou) {
            kept.push(candidate);
        }
    }
    kept
}
